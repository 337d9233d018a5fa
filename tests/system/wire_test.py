"""`--wire bf16|fp16`: half the bytes, about the same training, equal replicas, the same bits again; and what is refused."""
import json

import pytest
from support import job

ITERATIONS = 100
SCHEMES = "ps,ip1=block,ip2=sfb"


def payload(done):
    return sum(layer["bytes_sent"] for layer in done.report["layers"])


@pytest.fixture(scope="module")
def full(poseidon, digits, tmp_path_factory):
    """The same training with gradients as they are."""
    lenet = job.Workbench(poseidon, digits, tmp_path_factory.mktemp("full"))
    return lenet.train(lenet.solver(lenet.net(32), max_iter=ITERATIONS), 2, "--scheme", SCHEMES)


@pytest.mark.parametrize("wire, name, last_bit", [("bf16", "bfloat16", 2**-8), ("fp16", "float16", 2**-11)])
def test_training_on_a_narrow_wire(lenet, full, wire, name, last_bit):
    solver = lenet.solver(lenet.net(32), max_iter=ITERATIONS)
    done = lenet.train(solver, 2, "--scheme", SCHEMES, "--wire", wire)
    plan = lenet.run_folder / "plan.json"
    assert json.loads(plan.read_text())["wire"] == done.report["wire"] == name
    assert 2 * payload(done) == payload(full)
    # Each gradient is off by half a last bit at most, twice (on the way to the server, and back). The first loss comes before any
    # gradient, and is the same; later ones part slowly, and stay within the noise of training, a small share of what is learnt.
    ours, theirs = job.losses(done), job.losses(full)
    assert ours[0] == theirs[0]
    assert 0 < abs(ours[1] - theirs[1]) < last_bit * theirs[0]
    assert max(abs(a - b) for a, b in zip(ours, theirs)) < 0.05 * theirs[0]
    # The launcher compares all replicas' digests at the end, and says so; what it says is one digest for all.
    assert "equal on all workers" in done.out
    again = lenet.train(solver, 2, "--plan", plan)
    assert again.report["parameters_digest"] == done.report["parameters_digest"] != full.report["parameters_digest"]
    assert again.report["wire"] == name
    assert again.report["train_loss"] == done.report["train_loss"]


def test_a_plan_with_another_wire_is_refused(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=1)
    lenet.train(solver, 2, "--scheme", "ps", "--wire", "bf16")
    plan = lenet.run_folder / "plan.json"
    done = lenet.train(solver, 2, "--plan", plan, "--wire", "fp16", code=3)
    assert f"{plan}: in this plan gradients travel as bfloat16, not as float16" in done.err and "--wire" in done.err
    lenet.train(solver, 2, "--plan", plan, "--wire", "bf16")


def test_one_worker_narrows_nothing(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=3)
    digests = {lenet.train(solver, 1, *flags).report["parameters_digest"] for flags in ([], ["--wire", "fp16"])}
    assert len(digests) == 1


def test_wrong_flags_are_told(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=1)
    done = lenet.train(solver, 2, "--wire", "int8", code=2)
    assert "--wire" in done.err and "int8" in done.err
    done = lenet.train(solver, 2, "--wire", "bf16", "--dtype", "float64", code=2)
    assert "--wire" in done.err and "--dtype" in done.err


def test_a_replay_moves_half(poseidon, tmp_path):
    report = tmp_path / "replay.json"
    job.run(poseidon, "replay", "--model", job.ROOT / "examples/models/lenet.json", "--images-per-second", 3000, "--batch", 64,
            "--workers", 2, "--iterations", 3, "--warm-up", 1, "--scheme", "ps", "--wire", "fp16", "--run-folder", tmp_path / "run",
            "--report", report).expect()
    told = json.loads(report.read_text())
    assert told["wire"] == "float16"
    payload_bytes = 5 * 431080 * 2  # as in replay_test.py
    assert payload_bytes < sum(told["bytes_sent"]) / 2 < 1.03 * payload_bytes  # frames carry half as much each


def test_a_plan_of_a_narrow_wire_is_that_of_a_link_twice_as_fast(poseidon):
    def plan(bandwidth, *flags):
        done = job.run(poseidon, "plan", "--model", job.ROOT / "examples/models/alexnet.json", "--images-per-second", 1421, "--batch", 128,
                       "--nodes", 4, "--scheme", "ps", "--bandwidth", bandwidth, *flags, "--json").expect()
        return json.loads(done.out)
    narrow, fast = plan("1Gbit", "--wire", "bf16"), plan("2Gbit")
    assert narrow["wire"] == "bfloat16" and "wire" not in fast
    assert narrow["bound_seconds"] == pytest.approx(fast["bound_seconds"], rel=1e-9)
    assert narrow["iteration_seconds"] == pytest.approx(fast["iteration_seconds"], rel=0.02)
