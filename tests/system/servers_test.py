"""Dedicated servers: the same bits whoever serves, and an end by name."""
import json
import re
import signal

import pytest
from support import job
from support.processes import LiveJob

pytestmark = pytest.mark.alone  # who ends within how many seconds

LENET_REPLAY = ["--model", job.ROOT / "examples/models/lenet.json", "--images-per-second", 3000, "--batch", 64]
# 20·25 + 20, 50·20·25 + 50, 500·800 + 500, 10·500 + 10.
LENET_NUMBERS = 431080


def shares(lenet):
    return json.loads((lenet.run_folder / "plan.json").read_text()).get("server_shares")


# Not auto: it measures, and two runs may choose differently.
@pytest.mark.parametrize("scheme", ["ps", "ps,ip1=block"])
def test_who_serves_changes_no_bit(lenet, scheme):
    solver = lenet.solver(lenet.net(16), max_iter=20)
    alone = lenet.train(solver, 3, "--scheme", scheme)
    assert shares(lenet) is None
    helped = lenet.train(solver, 3, "--scheme", scheme, "--servers", 2)
    # (n - k) / (n² + k (n - 2)) = 1/11 and 2 (n - 1) / 11 = 4/11: processes of one host have links alike.
    assert shares(lenet) == [90909, 90909, 90909, 363637, 363636]
    assert "each worker serves 9.09 %, each of 2 dedicated servers 36.4 %" in helped.out
    plan = lenet.run_folder / "plan.json"
    served = lenet.train(solver, 3, "--scheme", scheme, "--servers", "localhost,127.0.0.1", "--no-colocated")
    assert shares(lenet) == [0, 0, 0, 500000, 500000]
    again = lenet.train(solver, 3, "--servers", 2, "--plan", plan)
    assert shares(lenet) == [90909, 90909, 90909, 363637, 363636]
    for other in (helped, served, again):
        assert other.report["parameters_digest"] == alone.report["parameters_digest"]
        assert other.report["train_loss"] == alone.report["train_loss"]
    done = lenet.train(solver, 3, "--plan", plan, code=3)
    assert "it was made for 2 dedicated servers, this job has 0" in done.err


def test_servers_alone_get_every_number_once_from_each_worker(lenet):
    done = lenet.train(lenet.solver(lenet.net(16), max_iter=5), 2, "--scheme", "ps", "--servers", 1, "--no-colocated")
    for layer in done.report["layers"]:
        numbers = {"conv1": 520, "conv2": 25050, "ip1": 400500, "ip2": 5010}[layer["name"]]
        assert [worker["bytes_sent"] for worker in layer["by_worker"]] == [4 * numbers] * 2
        assert [worker["bytes_received"] for worker in layer["by_worker"]] == [4 * numbers] * 2


def test_a_replay_takes_servers_too(poseidon, tmp_path):
    report = tmp_path / "replay.json"
    job.run(poseidon, "replay", *LENET_REPLAY, "--workers", 2, "--servers", 2, "--iterations", 3, "--warm-up", 1, "--scheme", "ps",
            "--run-folder", tmp_path / "run", "--report", report).expect()
    told = json.loads(report.read_text())
    assert told["servers"] == 2 and len(told["server_cpu_seconds"]) == 2
    # Two servers for two workers own everything: each worker sends each gradient once, five times.
    payload = 5 * LENET_NUMBERS * 4
    assert all(payload < sent < 1.02 * payload for sent in told["bytes_sent"])


@pytest.mark.parametrize("number, words", [(signal.SIGKILL, r"ended with signal 9 \(Killed\) before the job was over"),
                                           (signal.SIGSTOP, r".*has not been heard of for 3.0 s")], ids=["killed", "silent"])
def test_a_server_that_dies_or_falls_silent_ends_the_job_and_is_named(lenet, number, words):
    solver = lenet.solver(lenet.net(16), max_iter=100_000, display=1)
    with LiveJob(lenet, solver, 2, "--servers", 2, "--scheme", "ps") as training:
        training.wait_for_iteration(3)
        assert len(training.worker_processes()) == 2
        holdings = training.holdings()
        assert len(holdings.sockets) == 5, "the coordinator, two workers and two servers listen"
        victim = training.server_processes()[1]
        victim.signal(number)
        done = training.end(20).expect(4)
        assert re.search(rf"server 1 \(pid {victim.pid}.*{words}" if number == signal.SIGSTOP else
                         rf"server 1 \(pid {victim.pid}\) {words}; its log is .*/server-1.log", done.err), done.err
        assert "server 1" in json.loads(training.report_file.read_text())["error"]
        training.expect_nothing_left(holdings)


def test_ctrl_c_and_a_workers_death_take_servers_along(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=100_000, display=1)
    with LiveJob(lenet, solver, 2, "--servers", 1) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        training.signal_group(signal.SIGINT)
        done = training.end(10).expect(130)
        assert "interrupted; all workers stopped after the same iteration" in done.err
        training.expect_nothing_left(holdings)
    with LiveJob(lenet, solver, 2, "--servers", 1) as training:
        training.wait_for_iteration(3)
        holdings = training.holdings()
        training.worker_processes()[1].signal(signal.SIGKILL)
        assert "rank 1 (pid " in training.end(20).expect(4).err
        training.expect_nothing_left(holdings)


@pytest.mark.parametrize("flags, words", [
    (["--servers", "far.example.org"], ["far.example.org", "not this host", "--hosts"]),
    (["--servers", "localhost,,localhost"], ["localhost,,localhost"]),
    (["--servers", "5000"], ["5000", "at most 1024"]),
    (["--servers=-1"], ["-1"]),
    (["--no-colocated"], ["--no-colocated", "--servers"]),
], ids=lambda value: " ".join(value) if value[0].startswith("--") else None)
def test_mistakes_are_told(poseidon, tmp_path, flags, words):
    for command in (["replay", *LENET_REPLAY], ["train", "--solver", "none.prototxt"]):
        done = job.run(poseidon, *command, *flags, cwd=tmp_path).expect(2)
        assert all(word in done.err for word in words), done.err
        assert done.err.count("\n") == 1


def test_a_server_without_a_job_says_what_it_lacks(poseidon):
    assert "POSEIDON_ROLE=server" in job.run(poseidon, "serve").expect(3).err
    assert "it must be worker or server" in job.run(poseidon, "serve", POSEIDON_RANK="0", POSEIDON_WORLD_SIZE="1",
                                                    POSEIDON_ROLE="queen").expect(3).err
    assert "POSEIDON_SERVERS" in job.run(poseidon, "serve", POSEIDON_RANK="0", POSEIDON_WORLD_SIZE="1",
                                         POSEIDON_ROLE="server").expect(3).err


def test_a_prediction_with_servers_is_nearer_to_computing(poseidon):
    def plan(*flags):
        return json.loads(job.run(poseidon, "plan", *LENET_REPLAY, "--nodes", 4, "--bandwidth", "1Gbit", "--scheme", "ps", *flags,
                                  "--json").expect().out)
    alone, helped = plan(), plan("--servers", 4)
    assert (alone["servers"], helped["servers"]) == (0, 4)
    assert helped["iteration_seconds"] <= alone["iteration_seconds"]
    assert helped["bound_seconds"] <= alone["bound_seconds"]
    assert plan("--servers", 1, "--no-colocated")["bound_seconds"] > alone["bound_seconds"]
