"""`poseidon run` starts programs that use the library: here the C ABI's own test program, which is a worker where it finds a job."""
import json
import pathlib
import subprocess

import pytest


@pytest.fixture
def program(poseidon):
    found = pathlib.Path(poseidon).resolve().parents[1] / "tests" / "capi_test"
    if not found.exists():
        pytest.skip(f"{found} is missing: the command under test is not that of a build with tests")
    return found


def test_a_program_of_the_c_abi_trains_and_has_its_track_in_the_timeline(poseidon, program, tmp_path):
    done = subprocess.run([poseidon, "run", "-n", "2", "-o", "out", "--timeline", "--scheme", "ps", program, "spans"],
                          capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/run.json").read_text())["trained_together"]
    assert not list(tmp_path.glob("out/*.part"))
    events = json.loads((tmp_path / "out/timeline.json").read_text())["traceEvents"]
    for rank in range(2):
        own = [event for event in events if event["pid"] == rank]
        tracks = {event["tid"]: event["args"]["name"] for event in own if event["ph"] == "M" and "tid" in event}
        named = {name: [event for event in own if event["name"] == name] for name in ("thinking", "queued ip.weight", "synced ip.weight")}
        assert [(event["ph"], event["args"]["iteration"]) for event in named["thinking"]] == [(ph, i) for i in range(3) for ph in "BE"]
        assert len({event["tid"] for event in named["thinking"]}) == 1
        for name in ("queued ip.weight", "synced ip.weight"):
            assert [event["args"]["iteration"] for event in named[name]] == [0, 1, 2]
            assert {tracks[event["tid"]] for event in named[name]} == {"poseidon lane 0"}
