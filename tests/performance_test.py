"""docs/performance.md is what bench/performance.py makes of the stored results."""
import copy
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import performance  # noqa: E402 (after the path that finds it)


@pytest.fixture(scope="module")
def rows():
    return performance.harness_rows(performance.RESULTS)


@pytest.fixture(scope="module")
def plans():
    return performance.Plans(performance.RESULTS)


def test_the_page_is_up_to_date(plans, rows):
    assert performance.PAGE.read_text() == performance.page(plans, rows), "run bench/performance.py"
    for picture in (performance.PICTURE, performance.SCALING_PICTURE):
        assert picture.name in performance.PAGE.read_text()
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 200_000


def test_every_claim_has_a_row_and_nothing_is_invented(tmp_path):
    text = performance.page(performance.Plans(tmp_path), [])
    for claim in performance.CLAIMS:
        line = next(line for line in text.splitlines() if f"| {claim.speedup:g}× " in line and claim.title in line)
        assert "not measured yet" in line and "not asked yet" in line
    assert "No row has been measured yet." in text


ROW = {"model": "vgg19-22k", "nodes": 16, "system": "poseidon", "equivalent": "10Gbit", "dilation": 20.0, "batch": 32,
       "samples_per_second": 34.6, "status": "measured", "median_seconds": 20.0, "speed_up": 14.8, "bound_share": 0.95,
       "congestion_control": "cubic", "file": "some.json"}


def test_a_measured_row_stands_beside_its_claim_and_its_plan(tmp_path):
    plans = performance.Plans(tmp_path)
    # 20 s at a dilation of 20 are 1 s; the plan says 1.02 s.
    plans._answers[plans._key(performance.of_row(ROW))] = {"answer": {
        "iteration_seconds": 1.02, "speedup": 14.5, "fraction_of_bound": 0.98, "limit": "the link", "link_sent": 1, "link_received": 1}}
    text = performance.page(plans, [ROW])
    claim = next(line for line in text.splitlines() if "15.5×" in line)
    assert "| 14.80× | 14.50× | 98.0 % | the link |" in claim
    assert "| 1000.00 ms | 1020.00 ms | +2.0 % | `some.json` |" in text


def test_ddp_stands_beside_the_row_of_the_same_cluster():
    ddp = ROW | {"system": "ddp", "bucket_mb": 25, "median_seconds": 50.0}
    elsewhere = ddp | {"nodes": 8, "median_seconds": 1.0}
    lines = performance.ddp_table([ROW, ddp, elsewhere], "poseidon").splitlines()
    assert lines[2:] == ["| vgg19-22k | 32 | 16 | 10 Gbit/s | 2500.0 ms (25 MB) | 1000.0 ms | 2.50× | 95.0 % |"]


@pytest.mark.parametrize("system, scheme, flags", [
    ("poseidon", "auto", None), ("poseidon:sfb", "sfb", None), ("poseidon:wfbp", "auto", ["--overlap", "backward", "--no-priorities"]),
    ("poseidon:ps:servers=2", "ps", ["--overlap", "full", "--servers", "2"])])
def test_the_plan_is_asked_what_the_harness_ran(system, scheme, flags):
    asked = performance.of_row(copy.deepcopy(ROW) | {"system": system})
    assert (asked["scheme"], asked.get("flags")) == (scheme, flags)


@pytest.mark.parametrize("change", [{"system": "ddp"}, {"system": "horovod"}, {"model": "push-pull"}])
def test_the_plan_is_asked_about_nothing_that_it_cannot_run(change):
    assert performance.of_row(copy.deepcopy(ROW) | change) is None
