"""N workers train as one does with the global batch, and one trains as an independent PyTorch program does."""
import json
import pathlib

import pytest
from support import job, reference
from support.selection import often

SCHEMES = ["ps", "sfb", "adam", "block", "auto"]
ITERATIONS = 200


def relative(ours, theirs):
    """The largest relative difference of two curves."""
    assert len(ours) == len(theirs)
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))


def initial_model(lenet, dtype):
    """The .caffemodel with which every training of this solver begins."""
    solver = lenet.solver(lenet.net(64, "initial.prototxt"), "initial_solver.prototxt", snapshot_after_train="true")
    done = lenet.train(solver, 1, "--dtype", dtype, "--iterations", 0)
    return done.report["snapshots"][0]["model"]


@pytest.fixture(scope="module")
def one_worker(poseidon, digits, tmp_path_factory):
    """{dtype: losses of one worker with the global batch}"""
    lenet = job.Workbench(poseidon, digits, tmp_path_factory.mktemp("one_worker"))
    solver = lenet.solver(lenet.net(64), max_iter=ITERATIONS)
    return {dtype: job.losses(lenet.train(solver, 1, "--dtype", dtype)) for dtype in ("float32", "float64")}


@pytest.fixture(scope="module")
def four_workers(poseidon, digits, tmp_path_factory):
    """scheme, dtype -> losses of four workers with a quarter of it each; one run serves all tests that ask for it."""
    lenet = job.Workbench(poseidon, digits, tmp_path_factory.mktemp("four_workers"))
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    known = {}

    def losses(scheme, dtype):
        if (scheme, dtype) not in known:
            known[scheme, dtype] = job.losses(lenet.train(solver, 4, "--scheme", scheme, "--dtype", dtype))
        return known[scheme, dtype]
    return losses


@pytest.mark.parametrize("scheme", SCHEMES)
def test_four_workers_follow_one_in_float64(four_workers, one_worker, scheme):
    ours = four_workers(scheme, "float64")
    assert len(ours) == ITERATIONS
    assert relative(ours, one_worker["float64"]) < 1e-9


RULES = {
    "sgd": {},
    "nesterov": {"type": '"Nesterov"'},
    "adagrad": {"type": '"AdaGrad"', "momentum": None},
    "rmsprop": {"type": '"RMSProp"', "momentum": None, "base_lr": 0.0002, "delta": 1e-6},
    "adadelta": {"type": '"AdaDelta"', "momentum": 0.95, "base_lr": 1, "delta": 1e-6},
    "adam": {"type": '"Adam"', "base_lr": 0.001, "delta": 1e-6},
}


@pytest.mark.parametrize("rule, scheme", often([(rule, scheme) for rule in RULES for scheme in ("ps", "sfb", "block")],
                                               lambda _, number: number % 4 == 0 or number == 17))  # each rule, and each scheme twice
def test_four_workers_follow_one_by_every_rule(lenet, rule, scheme):
    """With gradients of two batches in each iteration and, for some, above the norm that they are clipped to."""
    settings = {"max_iter": 40, "iter_size": 2, "clip_gradients": 2, **RULES[rule]}
    one = lenet.train(lenet.solver(lenet.net(32), **settings), 1, "--dtype", "float64")
    four = lenet.train(lenet.solver(lenet.net(8), **settings), 4, "--dtype", "float64", "--scheme", scheme)
    assert relative(job.losses(four), job.losses(one)) < 1e-8
    assert job.losses(one)[-1] < 0.9 * job.losses(one)[0], "it does not learn"
    assert "equal on all workers" in four.out


def test_several_batches_in_an_iteration_are_one_larger_batch(lenet, one_worker):
    """Also with factors, which travel together."""
    for scheme, batch in (("ps", 8), ("sfb", 4), ("adam", 4), ("block", 8)):
        solver = lenet.solver(lenet.net(batch), max_iter=40, iter_size=16 // batch)
        done = lenet.train(solver, 4, "--scheme", scheme, "--dtype", "float64")
        assert relative(job.losses(done), one_worker["float64"][:40]) < 1e-9


@pytest.mark.parametrize("scheme", often([*SCHEMES, "ps --per-host 2", "block --per-host 2"], lambda scheme, _: scheme in ("ps", "sfb", "block --per-host 2")))
def test_added_gradients_are_averaged_ones_at_a_rate_times_the_workers(lenet, scheme):
    """Without decay, which is no part of the sum. Also across a snapshot, which knows how its gradients were taken."""
    settings = {"weight_decay": 0, "max_iter": 20}
    averaged = lenet.train(lenet.solver(lenet.net(64, "one.prototxt"), "one_solver.prototxt", base_lr=0.01, **settings), 1, "--dtype", "float64")
    solver = lenet.solver(lenet.net(16), base_lr=0.0025, snapshot=10, **settings)
    flags = ("--dtype", "float64", "--scheme", *scheme.split())
    added = lenet.train(solver, 4, *flags, "--update", "sum")
    assert relative(job.losses(added), job.losses(averaged)) < 1e-9
    assert added.report["update"] == "sum"
    state = added.report["snapshots"][0]["state"]
    rest = lenet.train(solver, 4, *flags, "--update", "sum", "--snapshot", state)
    assert relative(job.losses(rest), job.losses(averaged)[10:]) < 1e-9
    if scheme == "ps":
        assert "--update sum" in lenet.train(solver, 4, *flags, "--snapshot", state, code=3).err


def test_what_becomes_of_gradients_is_told_and_checked(lenet):
    solver = lenet.solver(lenet.net(16))
    for update, words in (("sum", "gradients: added over the workers"), ("average", "gradients: averaged over the workers")):
        told = job.run(lenet.poseidon, "train", "--dry-run", "--solver", solver, "--workers", 2, "--update", update, cwd=lenet.folder).expect()
        assert words in told.out
    wrong = job.run(lenet.poseidon, "train", "--solver", solver, "--update", "max", cwd=lenet.folder).expect(2)
    assert "--update" in wrong.err and "max" in wrong.err and "average" in wrong.err and "sum" in wrong.err


@pytest.mark.parametrize("scheme, per_host, hosts", often(
    [(scheme, *groups) for scheme in ("ps", "sfb", "block") for groups in (("on", [[0, 1, 2, 3]]), (2, [[0, 1], [2, 3]]))],
    lambda case, _: case[:2] in (("ps", "on"), ("sfb", 2), ("block", 2))))
def test_four_workers_that_combine_in_shared_memory_follow_one(lenet, one_worker, scheme, per_host, hosts):
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    done = lenet.train(solver, 4, "--scheme", scheme, "--dtype", "float64", "--per-host", per_host)
    assert relative(job.losses(done), one_worker["float64"]) < 1e-9
    assert "equal on all workers" in done.out
    assert done.report["hosts"] == len(hosts)
    assert json.loads((lenet.run_folder / "plan.json").read_text())["hosts"] == hosts
    if len(hosts) == 1:
        assert all(layer["bytes_sent"] == 0 for layer in done.report["layers"])


@pytest.mark.parametrize("scheme", often(SCHEMES, lambda scheme, _: scheme in ("sfb", "block")))
def test_four_workers_stay_near_one_in_float32(four_workers, one_worker, scheme):
    ours, one = four_workers(scheme, "float32"), one_worker["float32"]
    assert relative(ours[:20], one[:20]) < 1e-5
    assert max(abs(a - b) for a, b in zip(ours, one)) <= 0.01 * one[0]


def test_one_worker_agrees_with_plain_pytorch(lenet, digits, one_worker):
    images, labels = reference.load(digits / "digits_train_lmdb")
    assert len(labels) == 1437
    theirs = reference.LeNet(pathlib.Path(initial_model(lenet, "float64"))).train(images, labels, 64, 100)
    assert relative(one_worker["float64"][:100], theirs) < 1e-9


# A comparison that cannot fail shows nothing. Each of these trains a little differently, in the way of a plausible mistake.
@pytest.mark.parametrize("mistake", [
    {"momentum": "0.9000001"},           # another history
    {"weight_decay": "0.00050001"},      # decay outside the update
    {"gamma": "0.000101"},               # another rate
    {"random_seed": "2"},                # other initial parameters
], ids=lambda change: next(iter(change)))
def test_the_comparison_notices_another_training(lenet, one_worker, mistake):
    solver = lenet.solver(lenet.net(16), max_iter=40, **mistake)
    assert relative(job.losses(lenet.train(solver, 4, "--dtype", "float64")), one_worker["float64"][:40]) > 1e-9


def test_the_comparison_notices_other_records(lenet, one_worker):
    """Five workers of 13 take 65 records where one takes 64: the first of each global batch are the same, the rest are not."""
    solver = lenet.solver(lenet.net(13), max_iter=10)
    assert relative(job.losses(lenet.train(solver, 5, "--dtype", "float64")), one_worker["float64"][:10]) > 1e-9


@pytest.mark.parametrize("workers, batch", often([(1, 64), (4, 16)], lambda case, _: case[0] == 4))
def test_the_shipped_solver_reaches_its_accuracy(lenet, workers, batch):
    done = lenet.train(lenet.solver(lenet.net(batch), test=True), workers)
    assert done.report["iterations"] == 600
    assert done.report["test"][-1]["iteration"] == 600
    assert done.report["test"][-1]["accuracy"] >= 0.975
