"""What `pip install .` puts into a Python environment, put into a folder that looks like one: by the same rules of CMake."""
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

SCRIPT = """
import torch, torch.nn.functional as F
import poseidon, poseidon.torch as ps
torch.manual_seed(0)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
F.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
optimizer.step()
print(poseidon.__file__, ps.size())
"""


@pytest.fixture
def installed(poseidon, tmp_path):
    build = pathlib.Path(poseidon).resolve().parents[1]
    subprocess.run(["cmake", "--install", build, "--component", "python", "--prefix", tmp_path / "env"], check=True, capture_output=True, timeout=300)
    return tmp_path / "env"


def test_an_installed_command_trains_with_the_installed_package(installed, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    packages = installed / os.path.relpath(sysconfig.get_path("platlib"), pathlib.Path(sysconfig.get_path("scripts")).parent)
    # An environment's own interpreter would look there by itself.
    done = subprocess.run([installed / "bin/poseidon", "run", "-n", "2", "-o", "out", sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONPATH": str(packages)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(packages / "poseidon/__init__.py"), "2"]
    assert all((installed / "bin" / program).exists() for program in ("poseidon-data", "poseidon-images"))


def test_a_python_without_the_package_is_told_so(installed, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([installed / "bin/poseidon", "run", "-n", "2", "-o", "out", sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode != 0
    assert f"poseidon: {sys.executable} has no package poseidon: install it there (pip install .)" in done.stderr


CAFFE_SCRIPT = """
import poseidon.caffe as caffe
solver = caffe.SGDSolver("solver.prototxt")
solver.step(2)
print(caffe.__file__, caffe.proto.caffe_pb2.__file__, solver.iter)
"""


def test_an_installed_package_and_command_run_layers_in_python(installed, tmp_path):
    packages = installed / os.path.relpath(sysconfig.get_path("platlib"), pathlib.Path(sysconfig.get_path("scripts")).parent)
    shutil.copytree(pathlib.Path(__file__).parents[2] / "examples/python_layer", tmp_path / "examples/python_layer")
    shutil.move(tmp_path / "examples/python_layer/solver.prototxt", tmp_path)
    # The example's classes say `import caffe`, which means nothing to a Python that has not been told.
    done = subprocess.run([sys.executable, "-c", "import poseidon.caffe; poseidon.caffe.install()" + CAFFE_SCRIPT], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(packages)})
    assert done.stdout.split() == [str(packages / "poseidon/caffe/__init__.py"), str(packages / "poseidon/caffe/proto/caffe_pb2.py"), "2"], done.stderr
    done = subprocess.run([installed / "bin/poseidon", "train", "--solver", "solver.prototxt", "--iterations", "2"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
