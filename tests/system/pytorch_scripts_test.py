"""Ordinary PyTorch scripts under `poseidon run`: each ends as in one process, to the last digits of float64."""
import pathlib
import re
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests/scripts/pytorch"
NAMES = ["mlp", "cnn", "scheduler", "accumulation", "clipping", "gan", "lstm", "gpt", "lbfgs", "iterable", "resume", "trainer", "ema", "workers"]


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

    def run(name, optimizer):
        if (name, optimizer) not in known:
            out = tmp_path_factory.mktemp("alone") / "model.pt"
            done = subprocess.run([sys.executable, SCRIPTS / f"{name}.py", "float64", optimizer, out], capture_output=True, text=True, timeout=300, check=True)
            known[name, optimizer] = done.stdout, torch.load(out)
        return known[name, optimizer]

    return run


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", NAMES)
def test_a_script_ends_as_in_one_process(poseidon, alone, tmp_path, name, optimizer, workers):
    printed, saved = alone(name, optimizer)
    out = tmp_path / "model.pt"
    done = subprocess.run([poseidon, "run", "-n", str(workers), "-o", tmp_path / "run", sys.executable, SCRIPTS / f"{name}.py", "float64", optimizer, out],
                          capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run/rank-00.log").read_text()
    assert numbers_of(log) == pytest.approx(numbers_of(printed), abs=2e-8)
    expected, got = tensors_of(saved), tensors_of(torch.load(out))
    assert got.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(got[key], tensor, rtol=0, atol=0 if workers == 1 else 1e-8, msg=lambda text, key=key: f"{key}: {text}")
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "model.pt", "model.pt.checkpoint"}
