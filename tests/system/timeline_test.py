"""The timeline shows wait-free backpropagation: gradients leave from inside the backward pass.

Only the order of events is tested here; how long they take depends on the machine (bench/first_byte.py).
"""
import collections
import json

import pytest
from support import job

WORKERS, ITERATIONS = 2, 20


@pytest.fixture(scope="module")
def timeline(poseidon, digits, tmp_path_factory):
    lenet = job.Workbench(poseidon, digits, tmp_path_factory.mktemp("timeline"))
    path = lenet.folder / "timeline.json"
    lenet.train(lenet.solver(lenet.net(32), max_iter=ITERATIONS), WORKERS, "--scheme", "ps,ip1=sfb", "--timeline", path)
    return json.loads(path.read_text())["traceEvents"]


def instants(timeline, category):
    """{(worker, tensor, iteration): time}, of the first one."""
    found = {}
    for event in timeline:
        if event.get("cat") == category:
            found.setdefault((event["pid"], event["args"]["tensor"], event["args"]["iteration"]), event["ts"])
    return found


def spans(timeline, name):
    """{(worker, iteration): (begin, end)}"""
    found = collections.defaultdict(dict)
    for event in timeline:
        if event["ph"] in "BE" and event["name"] == name:
            found[event["pid"], event["args"]["iteration"]][event["ph"]] = event["ts"]
    return {key: (span["B"], span["E"]) for key, span in found.items()}


def test_every_worker_and_lane_has_a_track(timeline):
    names = collections.defaultdict(list)
    for event in timeline:
        if event["ph"] == "M" and event["name"] == "process_name":
            names[event["pid"]].insert(0, event["args"]["name"])
        elif event["ph"] == "M" and event["name"] == "thread_name":
            names[event["pid"]].append(event["args"]["name"])
    assert names == {rank: [f"worker {rank}", "poseidon", "poseidon lane 0"] for rank in range(WORKERS)}


def inside_backward(timeline, category):
    """The share of these events that lie within their worker's backward pass."""
    backward = spans(timeline, "backward")
    found = instants(timeline, category)
    assert len(backward) == WORKERS * ITERATIONS
    # ip1 travels as factors, and its bias inside them: seven things to send in each iteration.
    assert len(found) == 7 * WORKERS * ITERATIONS
    return sum(begin < time < end for (worker, _, iteration), time in found.items()
               for begin, end in [backward[worker, iteration]]) / len(found)


def test_all_gradients_are_handed_over_from_inside_the_backward_pass(timeline):
    assert inside_backward(timeline, "gradient ready") == 1


def test_gradients_are_queued_before_the_backward_pass_ends(timeline):
    """Three quarters of them and more, where a lane gets a core when it wants one (bench/first_byte.py prints the share). Here,
    where other work may fill the cores, as many as must have been taken by an engine that does not wait for the end."""
    assert inside_backward(timeline, "queued") >= 0.25


def test_events_of_a_gradient_come_in_their_order(timeline):
    ready, queued, first, synced, updated = (
        instants(timeline, kind) for kind in ("gradient ready", "queued", "first byte", "synced", "updated"))
    assert ready.keys() == queued.keys() == synced.keys()
    assert synced.keys() <= updated.keys()
    for key, time in synced.items():
        assert ready[key] <= queued[key] <= time <= updated[key], key
        assert key not in first or queued[key] <= first[key], key


def test_no_layer_computes_before_its_own_update(timeline):
    updated = instants(timeline, "updated")
    tensors = {layer: [f"{layer}.weight", f"{layer}.bias"] for layer in ("conv1", "conv2", "ip1", "ip2")}
    for layer, own in tensors.items():
        for (worker, iteration), (begin, _) in spans(timeline, f"forward {layer}").items():
            if iteration == 0:
                continue
            for tensor in own:
                assert updated[worker, tensor, iteration - 1] <= begin


def test_a_factor_layer_is_ready_before_the_layers_below_are_differentiated(timeline):
    """Its factors exist then, and no product stands between: the full gradient is never formed."""
    ready = instants(timeline, "gradient ready")
    for (worker, tensor, iteration), time in ready.items():
        if tensor.startswith("conv"):
            assert ready[worker, "ip1.weight", iteration] < time
