"""Signals, deaths and silence while a job trains: who is named, how it ends, and that nothing is left of it."""
import json
import os
import re
import signal
import stat

import pytest
from support import job
from support.processes import LiveJob, of_job, wait_for

pytestmark = pytest.mark.alone  # who ends within how many seconds

# More than any of these tests waits for.
ENDLESS = 100_000


@pytest.fixture
def endless(lenet):
    """solver -> LeNet on a small batch, which tells every iteration and would train for a long time."""
    def solver(batch=16, **settings):
        return lenet.solver(lenet.net(batch), max_iter=ENDLESS, display=1, **settings)
    return solver


def snapshots(lenet):
    folder = lenet.folder / "snapshots"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def snapshot_pair(lenet):
    """The iteration of the only snapshot there is."""
    names = snapshots(lenet)
    iteration = int(re.fullmatch(r"lenet_iter_(\d+)\.caffemodel", names[0])[1])
    assert names == [f"lenet_iter_{iteration}.caffemodel", f"lenet_iter_{iteration}.solverstate"]
    return iteration


# --- Interruptions


@pytest.mark.parametrize("to", ["the launcher", "the whole group"])
def test_ctrl_c_stops_all_workers_after_the_same_iteration(lenet, endless, to):
    with LiveJob(lenet, endless(), 3) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        (training.signal if to == "the launcher" else training.signal_group)(signal.SIGINT)
        done = training.end(10).expect(130)
        assert "interrupted; all workers stopped after the same iteration" in done.err
        assert "parameters " in done.out and "equal on all workers" in done.out
        report = json.loads(training.report_file.read_text())
        assert report["interrupted"] is True
        assert 3 < report["iterations"] < ENDLESS
        training.expect_nothing_left(holdings)
    assert snapshots(lenet) == []


# timeout(1) and service managers send SIGTERM to all processes of a job, and a terminal that is closed sends SIGHUP.
@pytest.mark.parametrize("to", ["the launcher", "the whole group"])
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"])
def test_a_polite_end_from_elsewhere_is_an_interruption_too(lenet, endless, number, code, to):
    with LiveJob(lenet, endless(), 2, "--on-interrupt", "snapshot") as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        (training.signal if to == "the launcher" else training.signal_group)(number)
        done = training.end(10).expect(code)
        assert "interrupted; all workers stopped after the same iteration" in done.err
        training.expect_nothing_left(holdings)
    assert snapshot_pair(lenet) > 3


@pytest.mark.parametrize("scheme", ["ps", "sfb", "block"])
def test_an_interrupted_training_goes_on_from_its_snapshot_bit_for_bit(lenet, endless, scheme):
    solver = endless()
    with LiveJob(lenet, solver, 2, "--scheme", scheme, "--on-interrupt", "snapshot") as training:
        training.wait_for_iteration(5)
        training.signal_group(signal.SIGINT)
        training.end(10).expect(130)
    reached = snapshot_pair(lenet)
    rest = ["--scheme", scheme, "--iterations", reached + 10]
    state = lenet.folder / f"snapshots/lenet_iter_{reached}.solverstate"
    resumed = lenet.train(solver, 2, *rest, "--snapshot", state)
    uninterrupted = lenet.train(solver, 2, *rest)
    assert resumed.report["iterations"] == 10 and uninterrupted.report["iterations"] == reached + 10
    assert resumed.report["parameters_digest"] == uninterrupted.report["parameters_digest"]
    assert job.losses(resumed) == job.losses(uninterrupted)[reached:]


@pytest.mark.parametrize("on_interrupt, snapshot_after_train, written", [
    ("discard", "true", False), ("solver", "true", True), ("solver", "false", False)])
def test_what_an_interruption_writes_is_the_users_choice(lenet, endless, on_interrupt, snapshot_after_train, written):
    with LiveJob(lenet, endless(snapshot_after_train=snapshot_after_train), 2, "--on-interrupt", on_interrupt) as training:
        training.wait_for_iteration(3)
        training.signal(signal.SIGINT)
        training.end(10).expect(130)
    if written:
        snapshot_pair(lenet)
    else:
        assert snapshots(lenet) == []


def test_a_second_ctrl_c_ends_a_job_at_once_that_cannot_stop_in_order(lenet, endless):
    with LiveJob(lenet, endless(), 3) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        training.worker_processes()[1].signal(signal.SIGSTOP)  # so that the workers cannot agree
        training.signal(signal.SIGINT)
        training.wait_until_taken(signal.SIGINT)
        training.signal(signal.SIGINT)
        done = training.end(10).expect(130)
        assert "interrupted twice" in done.err
        training.expect_nothing_left(holdings)


def test_ctrl_c_ends_a_job_that_waits_for_a_worker_to_join(lenet, digits):
    """No data base is ready, as if their file system hung: opening a pipe waits for somebody who writes."""
    folder = lenet.folder / "hanging_lmdb"
    folder.mkdir()
    os.mkfifo(folder / "data.mdb")
    net = lenet.net(16, edit=lambda text: text.replace(f"{digits}/digits_train_lmdb", str(folder)))
    with LiveJob(lenet, lenet.solver(net), 2) as training:
        training.wait_for(lambda: "waiting for rank 0 and rank 1 to join since" in training.err.read_text(), "its explanation", 30)
        training.wait_for(lambda: len(training.readers()) == 2, "the workers' readers", 30)
        holdings = training.holdings()
        training.signal_group(signal.SIGINT)
        # The workers, which wait for their readers, cannot hear of it, and are killed after 4 s.
        done = training.end(20).expect(130)
        assert "interrupted before the training began" in done.err
        # A reader hears of its worker's death by its pipe.
        training.expect_nothing_left(holdings, 5)


# --- Deaths


@pytest.mark.parametrize("per_host", ["off", "on", "2"])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_worker_that_is_killed_ends_the_job_and_is_named(lenet, endless, rank, per_host):
    with LiveJob(lenet, endless(), 3, "--per-host", per_host) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        assert len(holdings.sockets) == 4, "the coordinator and three workers listen; if not, the test would see nothing"
        victim = training.worker_processes()[rank]
        victim.signal(signal.SIGKILL)
        done = training.end(5).expect(4)
        assert f"rank {rank} (pid {victim.pid}) ended with signal 9 (Killed)" in done.err
        assert f"{training.run_folder}/worker-{rank}.log" in done.err
        assert "signal 9" in json.loads(training.report_file.read_text())["error"]
        training.expect_nothing_left(holdings)
    assert not [name for name in os.listdir("/dev/shm") if "poseidon" in name]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_falls_silent_is_noticed_named_and_ended(lenet, endless, rank):
    with LiveJob(lenet, endless(), 3) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        victim = training.worker_processes()[rank]
        victim.signal(signal.SIGSTOP)
        # 3.3 s until the silence is noticed, 4 s for the others to say farewell, and the machine's own slowness.
        training.wait_for(lambda: "has not been heard of" in (training.run_folder / f"worker-2.log").read_text(),
                          "the others to hear of the silence", 7)
        done = training.end(20).expect(4)
        assert re.search(rf"rank {rank} \(pid {victim.pid} .*has not been heard of for 3.0 s.*stopped", done.err), done.err
        training.expect_nothing_left(holdings)


def test_a_launcher_that_is_killed_takes_everybody_along(lenet, endless):
    with LiveJob(lenet, endless(), 3) as training:
        training.wait_for_iteration(3)
        assert len(training.worker_processes()) == 3 and len(training.readers()) == 3
        holdings = training.holdings()
        members = of_job(training.run_folder)
        training.signal(signal.SIGKILL)
        training.end(5).expect(-signal.SIGKILL)
        wait_for(lambda: not any(member.lives() for member in members), "the end of all workers and readers", 5)
        assert of_job(training.run_folder) == []
        assert holdings.left() == []


def test_a_reader_of_the_data_base_that_is_killed_ends_the_training_with_its_reason(lenet, endless, digits):
    with LiveJob(lenet, endless(), 2) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        training.readers()[1].signal(signal.SIGKILL)
        done = training.end(10).expect(5)  # not the data base's fault: memory was short, or somebody did it
        blamed = rf"rank 1 .*the reader of {digits}/digits_train_lmdb was ended by SIGKILL near record \d+"
        assert re.search(blamed, done.err), done.err
        training.expect_nothing_left(holdings)


def test_a_worker_that_dies_before_it_has_joined_is_named(lenet, endless):
    """Its reader of the data base kills it, so that it is certain to have started and not to have joined."""
    program = lenet.folder / "murderous-reader"
    program.write_text('#!/bin/sh\nif [ "$POSEIDON_RANK" = 1 ]; then kill -KILL "$PPID"; fi\n'
                       f'exec {lenet.poseidon.parent}/poseidon-data "$@"\n')
    program.chmod(0o755)
    with LiveJob(lenet, endless(), 2, POSEIDON_DATA_PROGRAM=str(program)) as training:
        done = training.end(15).expect(4)
        assert "rank 1 (pid " in done.err and "signal 9 (Killed) before the job was over" in done.err
        training.expect_nothing_left(training.holdings())


# --- Neighbours


def test_two_jobs_at_once_do_not_disturb_each_other(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=20)
    with LiveJob(lenet, solver, 2, "--scheme", "ps") as one, LiveJob(lenet, solver, 2, "--scheme", "ps") as other:
        for training in (one, other):
            training.end(60).expect(0)
        digests = [json.loads(training.report_file.read_text())["parameters_digest"] for training in (one, other)]
    assert digests[0] == digests[1]


def test_the_death_of_one_job_is_none_of_anothers_business(lenet, endless):
    solver = endless()
    with LiveJob(lenet, solver, 2) as one, LiveJob(lenet, solver, 2) as other:
        one.wait_for_iteration(3)
        other.wait_for_iteration(3)
        one.worker_processes()[0].signal(signal.SIGKILL)
        one.end(5).expect(4)
        said = other.out.read_text()
        other.wait_for(lambda: len(other.out.read_text()) > len(said), "the other job to go on")
        assert len(other.worker_processes()) == 2
        other.signal(signal.SIGINT)
        other.end(10).expect(130)


def test_nobody_else_may_read_the_secret_and_it_goes_with_the_job(lenet, endless):
    with LiveJob(lenet, endless(), 2) as training:
        training.wait_for_iteration(0)
        (secret,) = training.secrets.iterdir()
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and secret.stat().st_uid == os.getuid()
        training.signal(signal.SIGINT)
        training.end(10).expect(130)
        assert list(training.secrets.iterdir()) == []
