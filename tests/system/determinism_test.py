"""Two runs of one plan end in the same bits, also when the second is a resumption of a part of the first."""
import shutil

import pytest

SCHEMES = ["ps", "sfb", "adam", "block", "auto"]


def digest(done):
    return done.report["parameters_digest"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_plan_gives_the_same_bits_again(lenet, scheme):
    solver = lenet.solver(lenet.net(16), max_iter=30)
    first = lenet.train(solver, 3, "--scheme", scheme)
    plan = lenet.run_folder / "plan.json"
    again = lenet.train(solver, 3, "--plan", plan)
    # On a slow machine `auto` may have gone over to another plan in the middle; then that is repeated as well.
    chosen = [(entry["from"], entry["schemes"]) for entry in first.report["plans"]]
    assert [(entry["from"], entry["schemes"]) for entry in again.report["plans"]] == chosen
    assert len(chosen) == 1 or scheme == "auto"
    assert digest(again) == digest(first)
    assert again.report["train_loss"] == first.report["train_loss"]


# ip1 weighs 1.6 MB, so under ps it lies on all lanes; the others live on one each.
@pytest.mark.parametrize("scheme", ["ps", "sfb", "block"])
def test_lanes_change_no_bit(lenet, scheme):
    solver = lenet.solver(lenet.net(16), max_iter=10)
    one = lenet.train(solver, 2, "--scheme", scheme)
    for flags in [("--lanes", 2), ("--lanes", 3, "--pin-lanes")]:
        several = lenet.train(solver, 2, "--scheme", scheme, *flags)
        assert digest(several) == digest(one)
        assert several.report["train_loss"] == one.report["train_loss"]
        assert [layer["bytes_sent"] for layer in several.report["layers"]] == [layer["bytes_sent"] for layer in one.report["layers"]]


def test_a_cap_for_staging_changes_no_bit(lenet):
    """Workers that hold pushes back send in another order; a cap of 0 takes one chunk after the other."""
    solver = lenet.solver(lenet.net(16), max_iter=10)
    calm = lenet.train(solver, 4, "--scheme", "ps")
    for cap in ("0", "100kB"):
        crowded = lenet.train(solver, 4, "--scheme", "ps", "--staging", cap)
        assert digest(crowded) == digest(calm)
        assert crowded.report["train_loss"] == calm.report["train_loss"]


def test_another_seed_gives_other_bits(lenet):
    net = lenet.net(16)
    runs = [lenet.train(lenet.solver(net, f"{seed}.prototxt", max_iter=5, random_seed=seed), 2) for seed in (1, 2)]
    assert digest(runs[0]) != digest(runs[1])


def test_one_layer_may_differ_from_the_rest(lenet):
    done = lenet.train(lenet.solver(lenet.net(16), max_iter=2), 2, "--scheme", "ps,ip1=sfb,ip2=adam")
    assert {layer["name"]: layer["scheme"] for layer in done.report["layers"]} == {
        "conv1": "ps", "conv2": "ps", "ip1": "sfb", "ip2": "adam"}


# Dropout takes part: its draws, too, must go on where they stopped.
def with_dropout(text):
    layer = 'layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" dropout_param { dropout_ratio: 0.5 } }\n'
    at = text.index('layer {\n  name: "ip2"')
    return text[:at] + layer + text[at:]


# One worker moves nothing: its scheme makes no difference.
@pytest.mark.parametrize("workers, scheme", [(1, "ps"), (2, "ps"), (2, "sfb"), (2, "adam"), (2, "block")])
def test_resumption_is_bit_for_bit(lenet, workers, scheme):
    solver = lenet.solver(lenet.net(32, edit=with_dropout), max_iter=30, snapshot=10)
    whole = lenet.train(solver, workers, "--scheme", scheme)
    state = whole.report["snapshots"][0]["state"]
    assert state.endswith("_iter_10.solverstate")
    rest = lenet.train(solver, workers, "--scheme", scheme, "--snapshot", state)
    assert rest.report["train_loss"] == whole.report["train_loss"][10:]
    assert digest(rest) == digest(whole)


def test_the_draws_of_dropout_do_not_depend_on_the_number_of_workers(lenet):
    losses = {}
    for workers, batch in [(1, 64), (2, 32), (4, 16)]:
        net = lenet.net(batch, f"{workers}.prototxt", edit=with_dropout)
        done = lenet.train(lenet.solver(net, max_iter=30), workers, "--dtype", "float64")
        losses[workers] = [loss for _, loss in done.report["train_loss"]]
    for workers in (2, 4):
        assert losses[workers] == pytest.approx(losses[1], rel=1e-9)


def test_a_snapshot_can_be_moved_and_taken_up_by_another_number_of_workers(lenet):
    """The global batch stays 64; only the number of workers that share it changes."""
    four = lenet.solver(lenet.net(16, "four.prototxt", edit=with_dropout), "four_solver.prototxt", max_iter=20, snapshot=10)
    two = lenet.solver(lenet.net(32, "two.prototxt", edit=with_dropout), "two_solver.prototxt", max_iter=20)
    whole = lenet.train(four, 4, "--dtype", "float64")
    elsewhere = lenet.folder / "elsewhere"
    elsewhere.mkdir()
    for file in whole.report["snapshots"][0].values():
        if isinstance(file, str):
            shutil.copy(file, elsewhere)
    rest = lenet.train(two, 2, "--dtype", "float64", "--snapshot", elsewhere / "lenet_iter_10.solverstate")
    assert [loss for _, loss in rest.report["train_loss"]] == pytest.approx(
        [loss for _, loss in whole.report["train_loss"][10:]], rel=1e-9)
