"""What every test of whole jobs needs: the command, and the digits' data bases.

    .venv/bin/python -m pytest tests/system [-k NAME]

The command is build/bin/poseidon of this tree, or $POSEIDON.
"""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(ROOT / "bench"))

# Threads that wait for others of a parallel region must not spin: the cores belong to other processes of the job, and to other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from cluster import netns  # noqa: E402 (after the paths that find them)
from support import job  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: bounds seconds, so that nothing else runs beside it (scripts/test)")


@pytest.hookimpl(wrapper=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Tests that share a fixture of their module run in one process, so that it is made once."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()
        if any(fixture.scope == "module" for definitions in fixtures for fixture in definitions):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
    return (yield)


@pytest.fixture(scope="session")
def poseidon():
    """The command under test."""
    command = pathlib.Path(os.environ.get("POSEIDON", ROOT / "build" / "bin" / "poseidon"))
    assert command.exists(), f"{command} is missing: build it with scripts/setup, or set POSEIDON"
    return command


@pytest.fixture(scope="session")
def digits(poseidon, tmp_path_factory):
    """A folder with digits_train_lmdb and digits_test_lmdb, made as the example makes them. Tests only read it."""
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run([ROOT / "examples/digits/create_lmdb.sh", folder], check=True, stdout=subprocess.DEVNULL, timeout=120,
                   env={**os.environ, "POSEIDON": str(poseidon), "PYTHON": sys.executable})
    return folder


@pytest.fixture
def lenet(poseidon, digits, tmp_path):
    """A factory of LeNet trainings that write under tmp_path."""
    return job.Workbench(poseidon, digits, tmp_path)


@pytest.fixture
def hosts(tmp_path):
    """Three hosts, network namespaces on one bridge; its `ssh` is a program that enters them in the place of ssh."""
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    with netns.Cluster(3, 10**9) as cluster:
        lines = "".join(f'{host.address}) exec {" ".join(host.prefix)} sh -c "$command" ;;\n' for host in cluster.hosts)
        ssh = tmp_path / "enter"
        ssh.write_text('#!/bin/sh\nfor word in "$@"; do host="$command"; command="$word"; done\ncase "$host" in\n' + lines + '*) exit 255 ;;\nesac\n')
        ssh.chmod(0o755)
        cluster.ssh = ssh
        yield cluster
