"""Ordinary PyTorch scripts under `poseidon run`: each ends as in one process, to the last digits of float64, in float32 with the same evaluation."""
import pathlib
import re
import subprocess
import sys

import pytest
import torch
from support.selection import ALL

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests/scripts/pytorch"
NAMES = ["mlp", "cnn", "scheduler", "accumulation", "clipping", "gan", "lstm", "gpt", "lbfgs", "iterable", "resume", "trainer", "ema", "workers", "clamp",
         "accelerator"]
# Which script, on how many workers, with which optimiser: all of them take a quarter of an hour on two cores.
CASES = [(name, *((2, "sgd"), (4, "adam"))[number % 2]) for number, name in enumerate(NAMES)] + [("mlp", 1, "sgd"), ("gan", 1, "adam")]
if ALL:
    CASES = [(name, workers, optimizer) for name in NAMES for workers in (1, 2, 4) for optimizer in ("sgd", "adam")]
# Before the script, in every rank: what is synchronised is wrong.
BREAKAGES = {
    "the sum instead of the average": "import poseidon.torch._gradients as broken; broken.size = lambda: 1",
    "one rank's part is lost": "import poseidon.torch as ps, poseidon.torch._losses as broken\n"
                               "if ps.rank() == 1: broken.scaled = lambda loss, scale: broken._ScaledBackward.apply(loss, 0 * scale)",
}
BROKEN = [(name, breakage) for name in (NAMES if ALL else ["mlp", "gan", "scheduler", "ema"]) for breakage in BREAKAGES
          # What all gradients are multiplied by cannot be seen where each is clipped to a norm that it exceeds, nor by L-BFGS, whose direction
          # is that of the gradient, and whose step comes from its change.
          if not (name in ("clipping", "gpt", "lbfgs") and breakage == "the sum instead of the average")]


def tensors_of(saved, prefix=""):
    """Every tensor of a checkpoint, by its path in it."""
    found = {}
    for key, value in (saved.items() if isinstance(saved, dict) else enumerate(saved)):
        if isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, (dict, list, tuple)):
            found |= tensors_of(value, f"{prefix}{key}.")
    return found


def numbers_of(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """What a script prints and saves in one process."""
    known = {}

    def run(name, dtype, optimizer):
        if (name, dtype, optimizer) not in known:
            out = tmp_path_factory.mktemp("alone") / "model.pt"
            done = subprocess.run([sys.executable, SCRIPTS / f"{name}.py", dtype, optimizer, out], capture_output=True, text=True, timeout=300, check=True)
            known[name, dtype, optimizer] = done.stdout, tensors_of(torch.load(out))
        return known[name, dtype, optimizer]

    return run


def train(poseidon, folder, workers, *command):
    done = subprocess.run([poseidon, "run", "-n", str(workers), "-o", folder / "run", sys.executable, *command, folder / "model.pt"], capture_output=True,
                          text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, tensors_of(torch.load(folder / "model.pt"))


def furthest(got, expected):
    """The largest difference of any number in two checkpoints."""
    assert got.keys() == expected.keys()
    return max((got[key].double() - tensor.double()).abs().max().item() for key, tensor in expected.items() if tensor.numel())


@pytest.mark.parametrize("name, workers, optimizer", CASES)
def test_a_script_ends_as_in_one_process(poseidon, alone, tmp_path, name, optimizer, workers):
    printed, expected = alone(name, "float64", optimizer)
    shown, got = train(poseidon, tmp_path, workers, SCRIPTS / f"{name}.py", "float64", optimizer)
    assert numbers_of(shown) == pytest.approx(numbers_of(printed), abs=2e-8)
    assert furthest(got, expected) <= (0 if workers == 1 else 1e-8)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "model.pt", "model.pt.checkpoint"}


@pytest.mark.parametrize("name", ["mlp", "cnn", "amp"])
def test_evaluation_in_single_precision_is_the_same(poseidon, alone, tmp_path, name):
    """Within a thousandth of the first loss, which is that of ten classes."""
    printed, _ = alone(name, "float32", "sgd")
    shown, _ = train(poseidon, tmp_path, 2, SCRIPTS / f"{name}.py", "float32", "sgd")
    for got, expected in zip(numbers_of(shown), numbers_of(printed), strict=True):
        assert abs(got - expected) <= 1e-3 * 2.3


@pytest.mark.parametrize("name, breakage", BROKEN)
def test_the_comparison_sees_what_is_wrong(poseidon, alone, tmp_path, name, breakage):
    (tmp_path / "broken.py").write_text(f"import runpy, sys, torch\n{BREAKAGES[breakage]}\nsys.argv = sys.argv[1:]\nsys.path[0] = {str(SCRIPTS)!r}\n"
                                        "runpy.run_path(sys.argv[0], run_name='__main__')\n")
    _, expected = alone(name, "float64", "sgd")
    _, got = train(poseidon, tmp_path, 2, "broken.py", SCRIPTS / f"{name}.py", "float64", "sgd")
    assert furthest(got, expected) > 1e-6
