"""The log in Caffe's words (train.log), and Caffe's command lines, with the patterns by which people's scripts read Caffe's log."""
import os
import re
import signal

import pytest
from support import job
from support.processes import LiveJob

# As Caffe 1.0 prints, glog's prefix in front.
PREFIX = r"^[IWEF]\d{4} \d{2}:\d{2}:\d{2}\.\d{6} +\d+ [a-z_]+\.cpp:\d+\] "
NUMBER = r"([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf|nan))"
TRAINED = re.compile(PREFIX + rf"Iteration (\d+) \({NUMBER} iter/s, {NUMBER}s/(\d+) iters\), loss = {NUMBER}$")
OUTPUT = re.compile(PREFIX + rf"    (Train|Test) net output #(\d+): (\S+) = {NUMBER}(?: \(\* {NUMBER} = {NUMBER} loss\))?$")
RATE = re.compile(PREFIX + rf"Iteration (\d+), lr = {NUMBER}$")
TESTED = re.compile(PREFIX + r"Iteration (\d+), Testing net \(#(\d+)\)$")


def found(pattern, log):
    return [match.groups() for match in map(pattern.search, log) if match]


def test_a_training_is_told_in_caffes_lines(lenet):
    solver = lenet.solver(lenet.net(8), max_iter=7, display=3, test=True, test_interval=5, test_iter=2, snapshot=4, average_loss=2)
    done = lenet.train(solver, 2)
    log = (lenet.run_folder / "train.log").read_text().splitlines()
    assert all(re.search(PREFIX, line) for line in log)
    assert re.search(PREFIX + "Solving LeNet$", log[0]) and "Learning Rate Policy: inv" in log[1]
    loss = [value for _, value in done.report["train_loss"]]
    told = found(TRAINED, log)
    assert [int(iteration) for iteration, *_ in told] == [0, 3, 6]
    assert [int(count) for _, _, _, count, _ in told] == [0, 3, 3]
    # The smoothed loss, over two iterations, of both workers.
    assert [float(value) for *_, value in told] == pytest.approx([loss[0], (loss[2] + loss[3]) / 2, (loss[5] + loss[6]) / 2], rel=1e-5)
    outputs = found(OUTPUT, log)
    trained = [(name, float(value), float(weight), float(weighted)) for phase, _, name, value, weight, weighted in outputs if phase == "Train"]
    assert [value for _, value, _, _ in trained] == pytest.approx([loss[0], loss[3], loss[6]], rel=1e-5)
    assert all(name == "loss" and weight == 1 and value == weighted for name, value, weight, weighted in trained)
    assert [(int(iteration), float(rate)) for iteration, rate in found(RATE, log)] == [
        (i, pytest.approx(0.01 * (1 + 0.0001 * i) ** -0.75, rel=1e-5)) for i in (0, 3, 6)]
    assert found(TESTED, log) == [("0", "0"), ("5", "0")]
    tested = [(name, float(value)) for phase, _, name, value, *_ in outputs if phase == "Test"]
    assert tested == [(score["name"], pytest.approx(score["value"], rel=1e-5)) for test in done.report["test"] for score in test["scores"]]
    assert sum("Snapshotting to binary proto file" in line for line in log) == 1
    assert sum("Snapshotting solver state to binary proto file" in line for line in log) == 1
    assert log[-1].endswith("Optimization Done.")


@pytest.fixture
def caffe(poseidon, tmp_path):
    """A link by which Caffe's command lines are taken. The program finds its own files beside itself, wherever the link lies."""
    link = tmp_path / "caffe"
    os.symlink(poseidon, link)
    return link


def test_caffes_command_lines_work(caffe, lenet):
    solver = lenet.solver(lenet.net(8), max_iter=4, display=2, snapshot_after_train="true")
    done = job.run(caffe, "train", f"--solver={solver}", "-sigint_effect", "snapshot", "-workers", 2, cwd=lenet.folder).expect()
    assert [int(iteration) for iteration, *_ in found(TRAINED, done.err.splitlines())] == [0, 2]
    weights = lenet.folder / "snapshots/lenet_iter_4.caffemodel"
    done = job.run(caffe, "test", "-model", lenet.folder / "net.prototxt", "-weights", f"{weights},{weights}", "-iterations", 2, cwd=lenet.folder).expect()
    assert "accuracy" in done.out
    done = job.run(caffe, "time", "-model", lenet.folder / "net.prototxt", "-iterations", 2, "-phase", "TEST", cwd=lenet.folder).expect()
    assert "conv1" in done.out
    assert "cores" in job.run(caffe, "device_query", "-gpu", "all").expect().out
    done = job.run(caffe, "train", f"--solver={solver}", f"--weights={weights}", "--gpu=none", "-stage", "none", cwd=lenet.folder).expect()


@pytest.mark.parametrize("flags", [[], ["-log_format", "table"]], ids=["as caffe does", "as asked for"])
def test_run_tells_caffes_command_lines_as_caffe_does(lenet, flags):
    """On as many workers as run is told, which no program called caffe need be there for."""
    solver = lenet.solver(lenet.net(8), max_iter=4, display=2)
    for command in (["caffe", "train", f"--solver={solver}", *flags], [f"caffe -solver={solver} train {' '.join(flags)}"]):
        done = job.run(lenet.poseidon, "run", "-n", 2, "--", *command, cwd=lenet.folder).expect()
        assert [int(iteration) for iteration, *_ in found(TRAINED, done.err.splitlines())] == ([] if flags else [0, 2]), done.err
        assert "2 workers" in done.out


@pytest.mark.parametrize("arguments, code, words", [
    ([], 2, "caffe ACTION"),
    (["--solver=x"], 2, "which action?"),
    (["trian", "--solver=x"], 2, "train"),
    (["train", "-solver", "none.prototxt"], 3, "none.prototxt"),
    (["test", "-model", "x", "-weights", "y", "-gpu", "0"], 3, "computed on the CPU in this version; leave --gpu away, and say with --threads"),
    (["train", "-solver", "x", "-gpu", "all"], 2, "computed on the CPU in this version; leave --gpu away, and say with --workers"),
])
def test_mistakes_in_caffes_command_lines_are_told(caffe, tmp_path, arguments, code, words):
    done = job.run(caffe, *arguments, cwd=tmp_path).expect(code)
    assert words in done.err + done.out


@pytest.mark.parametrize("where", [[], ["--hosts", "localhost:2"]], ids=["here", "by agents"])
def test_a_signal_may_ask_for_a_snapshot_and_another_be_ignored(lenet, where):
    solver = lenet.solver(lenet.net(8), max_iter=100_000, display=1)
    with LiveJob(lenet, solver, 2, *where, "--sigint-effect", "none", "--sighup-effect", "snapshot") as training:
        training.wait_for_iteration(3)
        training.signal(signal.SIGINT)
        training.signal(signal.SIGHUP)
        snapshots = lenet.folder / "snapshots"
        training.wait_for(lambda: any(snapshots.glob("*.solverstate")), "a snapshot")
        now = int(found(TRAINED, (training.run_folder / "train.log").read_text().splitlines())[-1][0])
        training.wait_for_iteration(now + 3)
        training.signal(signal.SIGTERM)
        training.end(60).expect(143)
    states = list(snapshots.glob("*.solverstate"))
    assert len(states) == 1
    # It is a whole one.
    iteration = int(re.search(r"iter_(\d+)", states[0].name)[1])
    done = lenet.train(solver, 1, "--snapshot", states[0], "--iterations", iteration + 1)
    assert done.report["train_loss"][0][0] == iteration
