"""A job that goes over to another plan in the middle follows one worker all the same, and is repeated bit for bit."""
import json

import pytest
from support import job

WORKERS = 4
ITERATIONS = 30


def plan(**schemes):
    """All layers by ps, but for those that are named."""
    layers = []
    for name in ("conv1", "conv2", "ip1", "ip2"):
        layer = {"name": name, "scheme": schemes.get(name, "ps")}
        if layer["scheme"] == "block":
            layer["grid"] = [2, 2]
        if layer["scheme"] == "adam":
            layer["owner"] = 1
        layers.append(layer)
    return {"poseidon_plan": 1, "workers": WORKERS, "layers": layers}


def sequence(*versions):
    return json.dumps({"poseidon_plans": 1, "versions": [{"from": start, "plan": plan} for start, plan in versions]})


SEQUENCE = sequence((0, plan()), (8, plan(ip1="sfb", ip2="adam")), (9, plan(ip1="block")), (20, plan(ip2="sfb")))


@pytest.fixture
def plans(lenet):
    file = lenet.folder / "plans.json"
    file.write_text(SEQUENCE)
    return file


def without_devices(text):
    """The plans of a file, without the field that may be left out."""
    document = json.loads(text)
    for version in document["versions"]:
        version["plan"].pop("devices_per_node", None)
    return document


def test_a_sequence_of_plans_follows_one_worker_and_repeats_itself(lenet, plans):
    one = lenet.train(lenet.solver(lenet.net(64, "one.prototxt"), "one_solver.prototxt", max_iter=ITERATIONS), 1, "--dtype", "float64")
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    first = lenet.train(solver, WORKERS, "--plan", plans, "--dtype", "float64")
    assert job.losses(first) == pytest.approx(job.losses(one), rel=1e-9)
    assert [entry["from"] for entry in first.report["plans"]] == [0, 8, 9, 20]
    assert first.report["plans"][1]["schemes"] == {"conv1": "ps", "conv2": "ps", "ip1": "sfb", "ip2": "adam"}
    written = (lenet.run_folder / "plan.json").read_text()
    assert without_devices(written) == without_devices(SEQUENCE)
    (lenet.folder / "again.json").write_text(written)
    again = lenet.train(solver, WORKERS, "--plan", lenet.folder / "again.json", "--dtype", "float64")
    assert again.report["parameters_digest"] == first.report["parameters_digest"]
    assert again.report["train_loss"] == first.report["train_loss"]


def test_the_plans_make_a_difference_in_the_last_bits(lenet, plans):
    """Or the test above could not tell whether they were carried out."""
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS)
    digests = [lenet.train(solver, WORKERS, *how).report["parameters_digest"] for how in (["--plan", plans], ["--scheme", "ps"])]
    assert digests[0] != digests[1]


def test_a_job_taken_up_in_the_middle_goes_on_with_the_plan_of_that_iteration(lenet, plans):
    solver = lenet.solver(lenet.net(16), max_iter=ITERATIONS, snapshot=15)
    whole = lenet.train(solver, WORKERS, "--plan", plans)
    state = whole.report["snapshots"][0]["state"]
    assert state.endswith("_iter_15.solverstate")
    rest = lenet.train(solver, WORKERS, "--plan", plans, "--snapshot", state)
    assert [entry["from"] for entry in rest.report["plans"]] == [0, 20]
    assert rest.report["parameters_digest"] == whole.report["parameters_digest"]


def test_plans_that_do_not_follow_each_other_are_refused(lenet):
    file = lenet.folder / "wrong.json"
    file.write_text(sequence((0, plan()), (8, plan(ip1="sfb")), (8, plan())))
    done = lenet.train(lenet.solver(lenet.net(16), max_iter=2), WORKERS, "--plan", file, code=3)
    assert "wrong.json: the plans cannot be used: version 2 is in force from 8, the one before it from 8" in done.err
