"""`poseidon run`: what starts where, what is shown and kept, and how it ends. Processes here are small programs that do not train."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from support import processes

PYTHON = sys.executable


def run(poseidon, folder, *arguments, timeout=300, **environment):
    return subprocess.run([poseidon, "run", *map(str, arguments)], capture_output=True, text=True, timeout=timeout, cwd=folder,
                          env={**os.environ, **environment})


def script(folder, text, name="script.py"):
    (folder / name).write_text(text)
    return name


def test_every_rank_has_the_variables_that_launchers_give(poseidon, tmp_path):
    name = script(tmp_path, "import json, os; print(json.dumps(dict(os.environ)))")
    done = run(poseidon, tmp_path, "-n", 3, "-o", "out", "--env", "COLOUR=blue", "--env", "HERE", PYTHON, name, HERE="there")
    assert done.returncode == 0, done.stderr
    environments = [json.loads((tmp_path / f"out/rank-0{rank}.log").read_text()) for rank in range(3)]
    for rank, environment in enumerate(environments):
        for prefix in ("", "POSEIDON_"):
            assert environment[f"{prefix}RANK"] == environment[f"{prefix}LOCAL_RANK"] == str(rank)
            assert environment[f"{prefix}WORLD_SIZE"] == "3"
        assert environment["LOCAL_WORLD_SIZE"] == environment["POSEIDON_LOCAL_SIZE"] == "3"
        assert environment["MASTER_ADDR"] == "127.0.0.1"
        assert environment["COLOUR"] == "blue" and environment["HERE"] == "there"
        assert int(environment["OMP_NUM_THREADS"]) == max(1, os.cpu_count() // 3)
    assert len({environment["MASTER_PORT"] for environment in environments}) == 1
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["exit_code"] == 0 and not record["trained_together"]
    assert [process["ended"] for process in record["processes"]] == ["exit code 0"] * 3
    assert "made no optimiser" in done.stderr


def test_rank_0_is_on_the_screen_and_all_are_in_logs(poseidon, tmp_path):
    name = script(tmp_path, "import os, sys; r = os.environ['RANK']; print('out', r); print('err', r, file=sys.stderr); sys.stdout.write('no end')")
    done = run(poseidon, tmp_path, "-n", 2, "-o", "out", PYTHON, name)
    assert done.stdout == "out 0\nno end"
    assert "err 0\n" in done.stderr and "err 1" not in done.stderr
    for rank in range(2):
        log = (tmp_path / f"out/rank-0{rank}.log").read_text()
        assert log.replace("no end", "").split("\n").count(f"out {rank}") == 1 and f"err {rank}\n" in log and "no end" in log
    done = run(poseidon, tmp_path, "-n", 2, "-o", "out", "--screen", "all", PYTHON, name)
    assert sorted(done.stdout.splitlines()) == ["localhost:0│ no end", "localhost:0│ out 0", "localhost:1│ no end", "localhost:1│ out 1"]
    assert "localhost:1│ err 1\n" in done.stderr
    done = run(poseidon, tmp_path, "-n", 2, "-o", "out", "--screen", "none", PYTHON, name)
    assert done.stdout == "" and "err" not in done.stderr


def test_a_rank_that_raises_ends_the_job_with_its_traceback_last(poseidon, tmp_path):
    name = script(tmp_path, "import os, sys, time\nif os.environ['RANK'] == '2': raise ValueError('the data is bad')\ntime.sleep(60)")
    begin = time.monotonic()
    done = run(poseidon, tmp_path, "-n", 3, "-o", "out", PYTHON, name)
    assert done.returncode == 1
    assert time.monotonic() - begin < 30
    assert done.stderr.rstrip().endswith("ValueError: the data is bad")
    assert "rank 2 on localhost ended with exit code 1. The last that it wrote:\nTraceback" in done.stderr


@pytest.mark.parametrize("text, code", [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("os.abort()", 134)])
def test_the_exit_code_is_that_of_who_failed(poseidon, tmp_path, text, code):
    name = script(tmp_path, f"import os, sys, time\nif os.environ['RANK'] == '1': {text}\ntime.sleep(60)")
    done = run(poseidon, tmp_path, "-n", 2, "-o", "out", PYTHON, name)
    assert done.returncode == code, done.stderr
    assert json.loads((tmp_path / "out/run.json").read_text())["exit_code"] == code


def children_script(folder):
    """Each rank starts a child that starts another, in a session of its own, and tells their pids."""
    return script(folder, "import os, subprocess, sys, time\n"
                          "child = subprocess.Popen(['sh', '-c', 'setsid sleep 300 & echo $! ; sleep 300'], stdout=subprocess.PIPE, text=True)\n"
                          "grandchild = child.stdout.readline().strip()\n"
                          "name = f'pids-{os.environ[\"RANK\"]}'\n"
                          "open(name + '.new', 'w').write(f'{os.getpid()} {child.pid} {grandchild}'); os.rename(name + '.new', name)\n"
                          "time.sleep(300)\n")


def pids_of(folder, ranks):
    processes.wait_for(lambda: all((folder / f"pids-{rank}").exists() for rank in range(ranks)), "all ranks to start")
    return [int(pid) for rank in range(ranks) for pid in (folder / f"pids-{rank}").read_text().split()]


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_whatever_ends_the_launcher(poseidon, tmp_path, asked):
    name = children_script(tmp_path)
    launcher = subprocess.Popen([poseidon, "run", "-n", "2", "-o", "out", PYTHON, name], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        pids = pids_of(tmp_path, 2)
        launcher.send_signal(asked)
        code = launcher.wait(30)
    finally:
        launcher.kill()
        launcher.wait()
    assert code == (-asked if asked == signal.SIGKILL else 128 + asked)
    processes.wait_for(lambda: not any(map(processes.lives, pids)), "the processes to end", 10)


def test_an_interrupted_script_may_save_what_it_has(poseidon, tmp_path):
    name = script(tmp_path, "import os, time\nopen(f'here-{os.environ[\"RANK\"]}', 'w')\n"
                            "try: time.sleep(300)\nexcept KeyboardInterrupt: print('saved', flush=True)\n")
    launcher = subprocess.Popen([poseidon, "run", "-n", "2", "-o", "out", PYTHON, name], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes.wait_for(lambda: all((tmp_path / f"here-{rank}").exists() for rank in range(2)), "all ranks to start")
    launcher.send_signal(signal.SIGINT)
    out, err = launcher.communicate(timeout=30)
    assert launcher.returncode == 130
    assert out == "saved\n"
    assert err.rstrip().endswith("interrupted")


def test_a_dry_run_says_what_would_start(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "--dry-run", "-H", "alpha:2,beta", "--ssh-args=-p2222", "--", "python", "train.py", "a b")
    assert done.returncode == 0
    assert "rank 1 on alpha: python train.py 'a b'\nrank 2 on beta: python train.py 'a b'" in done.stdout
    assert "ssh -p2222" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_published_command_line(poseidon, tmp_path):
    (tmp_path / "cluster.json").write_text(json.dumps({"worker_nodes": ["localhost", "localhost"], "server_nodes": ["localhost"], "master_node": "localhost"}))
    name = script(tmp_path, "import os, sys; print(os.environ['RANK'], sys.argv[1:])")
    (tmp_path / "psd_run").symlink_to(poseidon)
    done = subprocess.run([tmp_path / "psd_run", "-c", "cluster.json", "-o", "logs", f"{PYTHON} {name} --worker 'a b', {PYTHON} {name} --worker c"],
                          capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs/rank-00.log").read_text() == "0 ['--worker', 'a b']\n"
    assert (tmp_path / "logs/rank-01.log").read_text() == "1 ['--worker', 'c']\n"


def fake_ssh(folder, body):
    path = folder / "fake-ssh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("body, sentence", [
    ("echo 'ssh: connect to host far port 22: Connection refused' >&2; exit 255",
     "host far: ssh cannot reach it: ssh: connect to host far port 22: Connection refused; `ssh far true` must work without a password"),
    ("echo 'bash: poseidon: not found' >&2; exit 127", "host far: there is no .*: bash: poseidon: not found; install poseidon there"),
    ("echo Welcome; exit 3", "host far: no agent could be started: ssh ended with exit code 3: Welcome"),
    ("printf 'poseidon-agent 1\\nnonsense 3\\nabc'; sleep 100", "host far: this is no message of an agent: its kind is unknown"),
])
def test_hosts_that_cannot_be_used_give_a_sentence(poseidon, tmp_path, body, sentence):
    begin = time.monotonic()
    done = run(poseidon, tmp_path, "-H", "far,localhost", "-o", "out", "--ssh", fake_ssh(tmp_path, body), "python3", "-c", "pass")
    assert time.monotonic() - begin < 20
    assert done.returncode != 0
    assert re.search(sentence, done.stderr), done.stderr


def test_a_host_that_does_not_answer_is_named_in_time(poseidon, tmp_path):
    begin = time.monotonic()
    done = run(poseidon, tmp_path, "-H", "far", "-o", "out", "--ssh", fake_ssh(tmp_path, "exec sleep 100"), "python3", "-c", "pass")
    assert 15 < time.monotonic() - begin < 40
    assert done.returncode == 4
    assert "waits for host far to answer" in done.stderr
    assert "host far took longer than 20 s to answer" in done.stderr


def test_another_host_through_ssh(poseidon, tmp_path):
    """ssh is played by a program that runs the remote command here."""
    name = script(tmp_path, "import os; print(os.environ['RANK'], os.environ['LOCAL_RANK'], os.environ['MASTER_ADDR'] != '127.0.0.1')")
    ssh = fake_ssh(tmp_path, 'for word in "$@"; do last="$word"; done; echo Welcome to this host; exec sh -c "$last"')
    if len(pathlib.Path("/proc/net/route").read_text().splitlines()) < 2:
        pytest.skip("this machine has no address but the loopback")
    done = run(poseidon, tmp_path, "-H", "far:2,localhost", "-o", "out", "--ssh", ssh, PYTHON, name)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"out/rank-0{rank}.log").read_text() for rank in range(3)] == ["0 0 True\n", "1 1 True\n", "2 0 True\n"]


@pytest.mark.parametrize("arguments, code, sentence", [
    ([], 2, "there is no command"),
    (["-n", "0", "python3"], 2, "--workers"),
    (["--worker", "2", "python3"], 2, "there is no flag --worker; did you mean --workers\\? --help shows the flags"),
    (["--gpu", "0", "python3"], 2, "there is no --gpu: leave it away. The workers of a host take its GPUs in turn"),
    (["-H", "a:x", "python3"], 3, "-H: "),
    (["--hostfile", "none", "python3"], 3, "--hostfile: .*none"),
    (["-c", "none.json", "python3"], 3, "-c: .*none.json"),
    (["-H", "a", "-n", "3", "python3"], 3, "-n 3: the hosts given have room for 1 workers"),
    (["--env", "=1", "python3"], 3, "--env =1: it must be NAME=VALUE"),
    (["--env", "NOT_THERE_AT_ALL", "python3"], 3, "there is no such variable here"),
    (["--scheme", "magic", "python3"], 3, "magic"),
    (["--bandwidth", "fast", "python3"], 3, "fast"),
    (["--network", "10.0.0.0/77", "python3"], 3, "10.0.0.0/77"),
    (["--interface", "nosuch0", "python3"], 3, "this host has no address on interface nosuch0"),
    (["python3", "missing.py"], 3, "this host: there is no missing.py in "),
    (["no-such-program-at-all", "train.py"], 5, "this host: cannot run no-such-program-at-all: No such file or directory"),
])
def test_wrong_usage_is_a_sentence(poseidon, tmp_path, arguments, code, sentence):
    done = run(poseidon, tmp_path, "-o", "out", *arguments)
    assert done.returncode == code, done.stderr
    assert re.search(sentence, done.stderr), done.stderr
