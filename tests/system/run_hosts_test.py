"""`poseidon run` over several hosts: network namespaces, with a program in the place of ssh that enters them."""
import json
import re
import subprocess
import sys

import pytest

from support import processes

SCRIPT = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
x, y = torch.randn(60, 8), torch.randint(0, 3, (60,))
model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
print(*(f"{value:.9f}" for p in model.parameters() for value in p.flatten().tolist()))
"""


def run(poseidon, folder, *arguments, timeout=120):
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.run([poseidon, "run", "-o", "out", *map(str, arguments), sys.executable, "script.py"], cwd=folder, capture_output=True, text=True,
                          timeout=timeout)


def test_hosts_train_together_as_one(poseidon, hosts, tmp_path):
    (tmp_path / "hosts").write_text(f"{hosts.hosts[0].address} slots=2\n{hosts.hosts[1].address}\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    alone = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    done = run(poseidon, tmp_path, "--hostfile", "hosts", "--ssh", hosts.ssh, "--network", hosts.network)
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == pytest.approx([float(word) for word in alone.stdout.split()], abs=2e-9)
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert [process["host"] for process in record["processes"]] == [hosts.hosts[0].address] * 2 + [hosts.hosts[1].address]
    assert record["trained_together"]


def test_a_host_behind_a_firewall_is_named(poseidon, hosts, tmp_path):
    """Of the launcher's addresses the host reaches none."""
    blocked = hosts.hosts[1]
    subprocess.run([*blocked.prefix, "ip", "route", "flush", "table", "main"], check=True)
    done = run(poseidon, tmp_path, "-H", f"{hosts.hosts[0].address},{blocked.address}", "--ssh", hosts.ssh, "--network", hosts.network)
    assert done.returncode == 4, done.stderr
    assert re.search(rf"host {blocked.address}: it cannot reach the launcher at {hosts.bridge_address}:\d+ \(Network is unreachable\); is there a firewall", done.stderr), done.stderr


def test_a_host_that_is_lost_ends_the_job(poseidon, hosts, tmp_path):
    lost = hosts.hosts[1]
    (tmp_path / "slow.py").write_text(SCRIPT.replace("range(2)", "range(10**6)"))
    launcher = subprocess.Popen([poseidon, "run", "-o", "out", "-H", f"{hosts.hosts[0].address},{lost.address}", "--ssh", hosts.ssh, "--network", hosts.network,
                                 sys.executable, "slow.py"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        processes.wait_for((tmp_path / "out/plan.json").exists, "the training to begin")
        subprocess.run([*lost.prefix, "ip", "link", "set", "eth0", "down"], check=True)
        _, err = launcher.communicate(timeout=300)
    finally:
        launcher.kill()
        launcher.wait()
    assert launcher.returncode != 0
    assert re.search(r"rank 1 \(pid \d+ on .*\) (has not been heard of|died or cannot be reached)", err), err
