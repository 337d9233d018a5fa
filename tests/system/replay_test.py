"""`poseidon plan` and `poseidon replay`: predictions hold together, real processes replay, mistakes are told."""
import json

import pytest
from support import job

MODELS = job.ROOT / "examples/models"
ALEXNET = ["--model", MODELS / "alexnet.json", "--images-per-second", 1421, "--batch", 128]


def plan(poseidon, *flags):
    return json.loads(job.run(poseidon, "plan", *ALEXNET, *flags, "--json").expect().out)


def test_a_plan_tells_its_fields(poseidon):
    one = plan(poseidon, "--nodes", 8, "--bandwidth", "10Gbit")
    assert one["speedup"] == pytest.approx(8 * 128 / 1421 / one["iteration_seconds"])
    assert one["fraction_of_bound"] == pytest.approx(one["bound_seconds"] / one["iteration_seconds"])
    assert 0.9 < one["fraction_of_bound"] <= 1.0001
    assert {layer["name"]: layer["scheme"] for layer in one["layers"]}["fc6"] == "sfb"
    assert all(layer["link_seconds"] > 0 and layer["forward_seconds"] > 0 for layer in one["layers"])
    assert all(layer["queued_seconds"] < layer["synced_seconds"] for layer in one["layers"])


def test_what_ifs_are_rows(poseidon):
    rows = plan(poseidon, "--nodes", "1,2,4", "--bandwidth", "1Gbit,100Gbit", "--scheme", "ps")["rows"]
    assert [(row["nodes"], row["bandwidth"]) for row in rows] == [(n, b) for b in ("1Gbit", "100Gbit") for n in (1, 2, 4)]
    slow, fast = ([row["speedup"] for row in rows if row["bandwidth"] == b] for b in ("1Gbit", "100Gbit"))
    assert all(a <= b * 1.001 for a, b in zip(slow, fast))
    assert fast[2] == pytest.approx(4, rel=0.02)


def test_latency_is_part_of_the_answer(poseidon):
    near, far = (plan(poseidon, "--nodes", 4, "--latency", latency)["iteration_seconds"] for latency in ("10us", "20 ms"))
    assert near < far


def test_a_plot_shows_the_way_to_the_number_of_nodes(poseidon, tmp_path):
    picture = tmp_path / "speedup.png"
    done = job.run(poseidon, "plan", *ALEXNET, "--nodes", 6, "--bandwidth", "10Gbit", "--plot", picture, "--json").expect()
    assert [row["nodes"] for row in json.loads(done.out)["rows"]] == [1, 2, 4, 6]
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
    assert picture.stat().st_size > 5000


def test_a_plot_that_cannot_be_written_is_told(poseidon, tmp_path):
    done = job.run(poseidon, "plan", *ALEXNET, "--nodes", 2, "--plot", tmp_path / "no/folder.png").expect(3)
    assert "--plot" in done.err and "folder.png" in done.err


def test_a_net_is_a_model_without_its_data_base(poseidon, tmp_path):
    net = job.ROOT / "examples/digits/lenet_train_test.prototxt"
    flags = ["--images-per-second", 3000, "--batch", 64, "--nodes", 4, "--bandwidth", "1Gbit", "--json"]
    from_net = json.loads(job.run(poseidon, "plan", "--model", net, "--record", "1,28,28", *flags, cwd=tmp_path).expect().out)
    from_description = json.loads(job.run(poseidon, "plan", "--model", MODELS / "lenet.json", *flags).expect().out)
    assert [layer["scheme"] for layer in from_net["layers"]] == [layer["scheme"] for layer in from_description["layers"]]
    assert from_net["iteration_seconds"] == pytest.approx(from_description["iteration_seconds"], rel=1e-6)
    done = job.run(poseidon, "plan", "--model", net, *flags, cwd=tmp_path).expect(3)
    assert "--record" in done.err


def test_a_replay_moves_what_the_schemes_say(poseidon, tmp_path):
    report = tmp_path / "replay.json"
    job.run(poseidon, "replay", "--model", MODELS / "lenet.json", "--images-per-second", 3000, "--batch", 64, "--workers", 2,
            "--iterations", 3, "--warm-up", 1, "--scheme", "ps", "--run-folder", tmp_path / "run", "--report", report).expect()
    told = json.loads(report.read_text())
    assert len(told["iteration_seconds"]) == 3
    assert min(told["iteration_seconds"]) >= 0.999 * 64 / 3000
    assert [layer["scheme"] for layer in told["layers"]] == ["ps"] * 4
    # 431,080 parameters: half of each gradient to the other, and half of the sums back, five times (the last one ends the one before).
    payload = 5 * 431080 * 4
    assert payload < sum(told["bytes_sent"]) / 2 < 1.02 * payload


def test_a_replay_with_hardly_any_staging_memory_ends(poseidon, tmp_path):
    report = tmp_path / "replay.json"
    job.run(poseidon, "replay", "--model", MODELS / "lenet.json", "--images-per-second", 3000, "--batch", 64, "--workers", 4,
            "--iterations", 3, "--warm-up", 1, "--scheme", "ps", "--staging", 0, "--run-folder", tmp_path / "run", "--report", report).expect()
    told = json.loads(report.read_text())
    assert all(staged > 0 for staged in told["staging_bytes_max"])


def test_a_size_that_is_none_is_told(poseidon):
    done = job.run(poseidon, "replay", *ALEXNET, "--staging", "much").expect(2)
    assert '--staging: "much" is no number of bytes' in done.err


def test_a_plan_says_what_overlap_and_priorities_are_worth(poseidon):
    flags = ["--nodes", 4, "--bandwidth", "2Gbit", "--scheme", "ps"]
    full = plan(poseidon, *flags)
    published = plan(poseidon, *flags, "--overlap", "backward", "--no-priorities")
    none = plan(poseidon, *flags, "--overlap", "none", "--no-priorities")
    assert (full["overlap"], full["priorities"]) == ("full", True)
    assert (none["overlap"], none["priorities"]) == ("none", False)
    # Nothing is computed while gradients travel without overlap: computing and the line's time follow each other.
    dense_seconds = 2 * 60965224 * 4 * 3 / 4 / (2e9 / 8 * 1448 / 1514)
    assert none["iteration_seconds"] >= 128 / 1421 + dense_seconds
    assert full["iteration_seconds"] < published["iteration_seconds"] < none["iteration_seconds"]
    assert full["bound_seconds"] == published["bound_seconds"]


def test_a_latency_without_a_unit_is_told(poseidon):
    done = job.run(poseidon, "plan", *ALEXNET, "--latency", "50").expect(2)
    assert "--latency" in done.err and "50us" in done.err


@pytest.mark.parametrize("flags, code, words", [
    (["--model", "none.json"], 3, ["none.json"]),
    (["--model", "broken.json"], 3, ["broken.json", "no model description"]),
    (["--bandwidth", "fast"], 2, ["--bandwidth", "fast"]),
    (["--scheme", "fc9=sfb"], 3, ["fc9", "fc8"]),
    (["--scheme", "conv1=sfb"], 3, ["conv1", "ps"]),
    (["--images-per-second", "0"], 2, ["--images-per-second"]),
], ids=lambda value: value[-1] if isinstance(value, list) else None)
@pytest.mark.parametrize("command", ["plan", "replay"])
def test_mistakes_are_told(poseidon, tmp_path, command, flags, code, words):
    (tmp_path / "broken.json").write_text('{"layers": 7}')
    done = job.run(poseidon, command, *(flags if "--model" in flags else ALEXNET[:2]),
                   *(flags if "--images-per-second" in flags else ALEXNET[2:4]), *ALEXNET[4:],
                   *(flags if flags[0] in ("--bandwidth", "--scheme") else []), cwd=tmp_path).expect(code)
    assert all(word in done.err for word in words), done.err
    assert done.err.count("\n") == 1
