"""`poseidon train` on several hosts: network namespaces, with a program in the place of ssh that enters them."""
import json
import signal
import subprocess

import pytest
from support import job
from support.processes import LiveJob

# The number of threads changes how ATen adds.
PLAN = ("--scheme", "ps,ip1=sfb,ip2=sfb", "--threads", 1)


def digest(lenet, solver, *flags):
    """Of the parameters after a training."""
    lenet.count += 1
    report = lenet.folder / f"report-{lenet.count}.json"
    done = job.run(lenet.poseidon, "train", "--solver", solver, "--run-folder", lenet.run_folder, "--report", report, *PLAN, *flags, cwd=lenet.folder)
    done.expect()
    told = json.loads(report.read_text())
    return told["parameters_digest"], told["workers"]


def test_hosts_train_what_as_many_workers_of_one_host_train(lenet, hosts):
    """Bit for bit: the same plan on three hosts, one of which has two workers, and on this host alone."""
    solver = lenet.solver(lenet.net(8), max_iter=6, test=True, test_interval=3, test_iter=2, snapshot=6)
    timeline = lenet.folder / "timeline.json"
    (lenet.folder / "hosts").write_text(f"{hosts.hosts[0].address} slots=2\n{hosts.hosts[1].address}\n{hosts.hosts[2].address}\n")
    spread = digest(lenet, solver, "--hostfile", "hosts", "--ssh", hosts.ssh, "--network", hosts.network, "--timeline", timeline)
    folder = lenet.run_folder
    assert spread == digest(lenet, solver, "--workers", 4)
    assert spread[1] == 4
    assert {file.name for file in folder.iterdir()} >= {f"worker-{rank}.log" for rank in range(4)} | {"plan.json", "train.log"}
    workers = {event["pid"] for event in json.loads(timeline.read_text())["traceEvents"] if "ts" in event}
    assert len(workers) == 4


def test_servers_have_hosts_of_their_own(lenet, hosts):
    solver = lenet.solver(lenet.net(8), max_iter=4)
    here, there, server = (host.address for host in hosts.hosts)
    flags = ("--ssh", hosts.ssh, "--network", hosts.network)
    served = digest(lenet, solver, "--hosts", f"{here},{there}", "--servers", server, *flags)
    assert (lenet.run_folder / "server-0.log").exists()
    assert served == digest(lenet, solver, "--workers", 2)


def test_a_host_that_is_lost_ends_the_training(lenet, hosts):
    lost = hosts.hosts[1]
    solver = lenet.solver(lenet.net(8), max_iter=100_000, display=1)
    with LiveJob(lenet, solver, 2, "--hosts", f"{hosts.hosts[0].address},{lost.address}", "--ssh", hosts.ssh, "--network", hosts.network) as training:
        training.wait_for_iteration(1)
        subprocess.run([*lost.prefix, "ip", "link", "set", "eth0", "down"], check=True)
        done = training.end(60).expect(4)
    assert "rank 1" in done.err and f"{training.run_folder}/worker-*.log" in done.err


def test_hosts_may_all_be_this_one(lenet):
    solver = lenet.solver(lenet.net(8), max_iter=4)
    assert digest(lenet, solver, "--hosts", "localhost:2") == digest(lenet, solver, "--workers", 2)
    # Fewer than there is room for.
    assert digest(lenet, solver, "--hosts", "localhost:8", "--workers", 2)[1] == 2


def test_run_hands_a_training_over(lenet):
    """What the published edition's users type, with the cluster's file or without."""
    solver = lenet.solver(lenet.net(8), max_iter=3)
    done = job.run(lenet.poseidon, "run", "-n", 2, "-o", "by-run", "poseidon", "train", "--solver", solver, cwd=lenet.folder).expect()
    assert "2 workers" in done.out and "equal on all workers" in done.out
    assert (lenet.folder / "by-run/train.log").exists()
    done = job.run(lenet.poseidon, "run", "--dry-run", "-H", "localhost:2", f"caffe train --solver={solver}", cwd=lenet.folder).expect()
    assert done.out.count("rank ") == 2 and f"train --solver={solver}" in done.out
    done = job.run(lenet.poseidon, "run", "--env", "A=1", f"caffe train --solver={solver}", cwd=lenet.folder).expect(2)
    assert "--env is for scripts" in done.err


def test_ctrl_c_on_hosts_stops_all_workers_after_the_same_iteration(lenet):
    solver = lenet.solver(lenet.net(8), max_iter=100_000, display=1)
    with LiveJob(lenet, solver, 2, "--hosts", "localhost:2", "--on-interrupt", "snapshot") as training:
        training.wait_for_iteration(3)
        training.signal(signal.SIGINT)
        done = training.end(60).expect(130)
    assert "all workers stopped after the same iteration" in done.err
    assert "equal on all workers" in done.out
    assert len(list((lenet.folder / "snapshots").glob("*.solverstate"))) == 1


@pytest.mark.parametrize("flags, words", [
    (["--hosts", "a b"], ["-H", "a b"]),
    (["--hostfile", "none"], ["--hostfile", "none"]),
    (["--hosts", "localhost:2", "--workers", "3"], ["3", "2 workers"]),
    (["--hosts", "localhost:2", "--servers", "2"], ["--servers", "on which hosts"]),
    (["--hosts", "localhost", "--network", "300.0.0.0/8"], ["--network", "300.0.0.0/8"]),
], ids=lambda value: " ".join(value) if value[0].startswith("--") else None)
def test_mistakes_are_told(poseidon, lenet, flags, words):
    solver = lenet.solver(lenet.net(8), max_iter=1)
    done = job.run(poseidon, "train", "--solver", solver, *flags, cwd=lenet.folder)
    assert done.code in (2, 3)
    assert all(word in done.err for word in words), done.err
    assert done.err.count("\n") == 1
