"""In every way to train with TensorFlow gradients leave while others are still computed.

Only the order of events is looked at. The sums of a net of sixteen layers are told of by the engine, in its timeline.
"""
import collections
import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "scripts/tensorflow/deep.py"


def shares(timeline):
    """Of each worker's iterations: the share of the gradients that had begun to leave when the last one was handed in."""
    handed_in, left = collections.defaultdict(dict), collections.defaultdict(dict)
    for event in timeline:
        kind = {"queued": handed_in, "first byte": left}.get(event.get("cat"))
        if kind is not None:
            kind[event["pid"], event["args"]["iteration"]].setdefault(event["args"]["tensor"], event["ts"])
    return {key: sum(time < max(tensors.values()) for time in left[key].values()) / len(tensors) for key, tensors in handed_in.items()}


@pytest.mark.alone  # the engine's thread must get a core when it wants one
@pytest.mark.parametrize("how", ["fit", "function", "session", "eager"])
def test_gradients_leave_before_the_last_one_exists(poseidon, tmp_path, how):
    done = subprocess.run([poseidon, "run", "-n", "2", "--scheme", "ps", "--timeline", "-o", "out", sys.executable, SCRIPT, how], capture_output=True, text=True,
                          timeout=600, cwd=tmp_path, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
    assert done.returncode == 0, done.stderr
    found = shares(json.loads((tmp_path / "out/timeline.json").read_text())["traceEvents"])
    # Not the first iterations: a function is traced, and eager passes show how often a variable is read.
    later = sorted(share for (_, iteration), share in found.items() if iteration >= 2)
    assert len(later) == 2 * 4
    assert later[len(later) // 2] >= 0.5
