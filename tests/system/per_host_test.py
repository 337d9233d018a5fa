"""`--per-host`: what changes no bit, what a narrow wire and changes of plan do where workers combine in shared memory, and what is refused."""
import json

import pytest
from support import job

ITERATIONS = 20


def digest(done):
    return done.report["parameters_digest"]


def sent(done):
    return [layer["bytes_sent"] for layer in done.report["layers"]]


# ip1 weighs 1.6 MB, so under ps it lies on all lanes.
@pytest.mark.parametrize("scheme", ["ps", "sfb", "adam", "block"])
def test_lanes_encryption_and_a_cap_for_staging_change_no_bit(lenet, scheme):
    solver = lenet.solver(lenet.net(16), max_iter=10)
    one = lenet.train(solver, 4, "--scheme", scheme, "--per-host", 2)
    for flags in [("--lanes", 2), ("--lanes", 3, "--tls", "--staging", 0)]:
        other = lenet.train(solver, 4, "--scheme", scheme, "--per-host", 2, *flags)
        assert digest(other) == digest(one)
        assert other.report["train_loss"] == one.report["train_loss"]
        assert sent(other) == sent(one)


def test_a_plan_gives_the_same_bits_again(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    first = lenet.train(solver, 4, "--per-host", 2)
    assert len(first.report["plans"]) == 1, "auto chooses once"
    again = lenet.train(solver, 4, "--plan", lenet.run_folder / "plan.json")
    assert digest(again) == digest(first)
    assert again.report["train_loss"] == first.report["train_loss"]


def test_between_hosts_a_narrow_wire_halves_the_bytes(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    scheme = ("--scheme", "ps,ip1=block,ip2=sfb")
    full = lenet.train(solver, 4, *scheme, "--per-host", 2)
    narrow = lenet.train(solver, 4, *scheme, "--per-host", 2, "--wire", "bf16", "--lanes", 2)
    assert [2 * some for some in sent(narrow)] == sent(full)
    assert "equal on all workers" in narrow.out
    ours, theirs = job.losses(narrow), job.losses(full)
    assert ours[0] == theirs[0] and 0 < abs(ours[1] - theirs[1]) < 2**-8 * theirs[0]
    again = lenet.train(solver, 4, "--plan", lenet.run_folder / "plan.json")
    assert digest(again) == digest(narrow) != digest(full)


def test_within_a_host_nothing_is_narrowed(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=5)
    assert len({digest(lenet.train(solver, 3, "--per-host", "on", *flags)) for flags in ([], ["--wire", "fp16"])}) == 1


def test_plans_with_other_hosts_may_follow_each_other(lenet):
    """Also with none, and all on one: each change is another engine, and memory of the old one's is mapped no more."""
    def plan(hosts=None, **layers):
        entries = [{"name": name, "scheme": "ps"} | layers.get(name, {}) for name in ("conv1", "conv2", "ip1", "ip2")]
        return {"poseidon_plan": 1, "workers": 4, "layers": entries} | ({"hosts": hosts} if hosts else {})

    versions = [(0, plan()), (4, plan([[0, 1], [2, 3]], ip1={"scheme": "sfb"})), (5, plan([[0, 2], [1, 3]], ip2={"scheme": "adam", "owner": 1})),
                (11, plan([[0, 1, 2, 3]])), (15, plan([[0, 1, 2], [3]], ip1={"scheme": "block", "grid": [2, 1]})), (18, plan())]
    file = lenet.folder / "plans.json"
    file.write_text(json.dumps({"poseidon_plans": 1, "versions": [{"from": start, "plan": which} for start, which in versions]}))
    one = lenet.train(lenet.solver(lenet.net(64, "one.prototxt"), "one_solver.prototxt", max_iter=ITERATIONS), 1, "--dtype", "float64")
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    done = [lenet.train(solver, 4, "--plan", file, "--dtype", "float64", *flags) for flags in ([], ["--lanes", 2])]
    assert job.losses(done[0]) == pytest.approx(job.losses(one), rel=1e-9)
    assert [entry["from"] for entry in done[0].report["plans"]] == [start for start, _ in versions]
    assert digest(done[1]) == digest(done[0])


def test_hosts_and_dedicated_servers_exclude_each_other(lenet, poseidon, tmp_path):
    solver = lenet.solver(lenet.net(16), max_iter=1)
    done = lenet.train(solver, 4, "--per-host", 2, "--servers", 1, code=2)
    assert "--per-host" in done.err and "--servers" in done.err and done.err.count("\n") == 1
    lenet.train(solver, 4, "--per-host", 2)
    done = lenet.train(solver, 4, "--plan", lenet.run_folder / "plan.json", "--servers", 1, code=3)
    assert "it cannot be used with 1 dedicated servers" in done.err
    done = job.run(poseidon, "replay", "--model", "examples/models/lenet.json", "--images-per-second", "3000", "--workers", "4",
                   "--per-host", "2", "--servers", "1", cwd=tmp_path).expect(2)
    assert "--servers" in done.err
