"""Ordinary TensorFlow scripts under `poseidon run`: each ends as in one process, to the last digits of float64."""
import os
import pathlib
import re
import subprocess
import sys

import numpy
import pytest
from support.selection import ALL

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests/scripts/tensorflow"
NAMES = ["sequential", "functional", "subclassed", "tape", "eager", "text", "accumulation", "session", "monitored", "cifar"]
# Which script, on how many workers, with which optimiser.
CASES = [(name, *((2, "sgd"), (4, "adam"))[number % 2]) for number, name in enumerate(NAMES)] + [("sequential", 1, "adam"), ("text", 4, "sgd")]
if ALL:
    CASES = [(name, workers, optimizer) for name in NAMES for workers in (1, 2, 4) for optimizer in ("sgd", "adam")]
# Keras' Adam squares the gradients of an embedding's rows before it adds up those of one row: docs/tensorflow.md.
CASES = [case for case in CASES if (case[0], case[2]) != ("text", "adam")]
FLAGS = {"session": ["--split-feeds"], "cifar": ["--split-feeds"], "monitored": ["--split-feeds"], "tape": ["--shard-datasets"]}
UNCUT = "every worker trains on ALL of each batch"
# Before the script, in every rank: what is synchronised is wrong.
BREAKAGES = {
    "the sum instead of the average": "import poseidon.tensorflow._gradients as broken\nscaled = broken._scaled_roots\n"
                                      "broken._scaled_roots = lambda target, given, share: scaled(target, given, share * 2)",
    "one rank's part is lost": "import poseidon.tensorflow as ps, poseidon.tensorflow._gradients as broken\nscaled = broken._scaled_roots\n"
                               "if ps.rank() == 1: broken._scaled_roots = lambda target, given, share: scaled(target, given, share * 0)",
}
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}


def numbers_of(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def arrays_of(path):
    with numpy.load(path) as saved:
        return dict(saved)


def furthest(got, expected):
    assert got.keys() == expected.keys()
    return max(numpy.abs(got[key] - array).max() for key, array in expected.items())


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """What a script prints and saves in one process."""
    known = {}

    def run(name, dtype, optimizer):
        if (name, dtype, optimizer) not in known:
            out = tmp_path_factory.mktemp("alone") / "model.npz"
            done = subprocess.run([sys.executable, SCRIPTS / f"{name}.py", dtype, optimizer, out], capture_output=True, text=True, timeout=300, check=True,
                                  env=QUIET)
            known[name, dtype, optimizer] = done.stdout, arrays_of(out)
        return known[name, dtype, optimizer]

    return run


def train(poseidon, folder, workers, flags, *command):
    done = subprocess.run([poseidon, "run", "-n", str(workers), *flags, "-o", folder / "run", sys.executable, *command, folder / "model.npz"],
                          capture_output=True, text=True, timeout=600, cwd=folder, env=QUIET)
    assert done.returncode == 0, done.stderr
    assert UNCUT not in done.stderr
    return done.stdout, arrays_of(folder / "model.npz")


@pytest.mark.parametrize("name, workers, optimizer", CASES)
def test_a_script_ends_as_in_one_process(poseidon, alone, tmp_path, name, optimizer, workers):
    printed, expected = alone(name, "float64", optimizer)
    shown, got = train(poseidon, tmp_path, workers, FLAGS.get(name, []), SCRIPTS / f"{name}.py", "float64", optimizer)
    assert numbers_of(shown) == pytest.approx(numbers_of(printed), abs=2e-6)
    assert furthest(got, expected) <= (0 if workers == 1 else 1e-8)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "model.npz", "model.npz.weights.h5", "checkpoints"}


@pytest.mark.parametrize("name", ["tape", "session"])
def test_a_script_whose_batches_are_not_cut_is_told_so(poseidon, alone, tmp_path, name):
    done = subprocess.run([poseidon, "run", "-n", "2", "-o", tmp_path / "run", sys.executable, SCRIPTS / f"{name}.py", "float64", "sgd", tmp_path / "model.npz"],
                          capture_output=True, text=True, timeout=600, cwd=tmp_path, env=QUIET)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(UNCUT) == 1 and FLAGS[name][0] in done.stderr
    assert furthest(arrays_of(tmp_path / "model.npz"), alone(name, "float64", "sgd")[1]) <= 1e-8


def test_mixed_precision_evaluates_the_same(poseidon, alone, tmp_path):
    """Within a thousandth of the first loss, which is that of ten classes."""
    printed, _ = alone("mixed", "float16", "sgd")
    shown, _ = train(poseidon, tmp_path, 2, [], SCRIPTS / "mixed.py", "float16", "sgd")
    for got, expected in zip(numbers_of(shown), numbers_of(printed), strict=True):
        assert abs(got - expected) <= 1e-3 * 2.3


@pytest.mark.parametrize("name", ["sequential", "session"])
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_the_comparison_sees_what_is_wrong(poseidon, alone, tmp_path, name, breakage):
    (tmp_path / "broken.py").write_text(f"import runpy, sys\n{BREAKAGES[breakage]}\nsys.argv = sys.argv[1:]\nsys.path[0] = {str(SCRIPTS)!r}\n"
                                        "runpy.run_path(sys.argv[0], run_name='__main__')\n")
    _, expected = alone(name, "float64", "sgd")
    _, got = train(poseidon, tmp_path, 2, FLAGS.get(name, []), "broken.py", SCRIPTS / f"{name}.py", "float64", "sgd")
    assert furthest(got, expected) > 1e-6
