"""`poseidon features`: what a trained net computes on the way, in the order of the data, whatever the number of workers."""
import json
import pathlib
import subprocess
import time

import lmdb
import numpy
import pytest
from support import caffe_files, job


@pytest.fixture
def trained(lenet):
    """A net, and a model for it."""
    solver = lenet.solver(lenet.net(8), max_iter=3, snapshot_after_train="true")
    lenet.train(solver, 1)
    return lenet.folder / "net.prototxt", lenet.folder / "snapshots/lenet_iter_3.caffemodel"


def features(lenet, trained, *flags, code=0):
    net, model = trained
    return job.run(lenet.poseidon, "features", "--model", net, "--weights", model, "--out", "out", *flags, cwd=lenet.folder).expect(code)


def test_all_numbers_of_workers_give_one_result(lenet, trained):
    results = []
    for workers in (1, 3):
        done = features(lenet, trained, "--blobs", "pool2,ip2", "--iterations", 5, "--workers", workers, "--dtype", "float64", "--threads", 1)
        assert "ip2.npy" in done.out
        results.append([numpy.load(lenet.folder / f"out/{name}.npy") for name in ("pool2", "ip2")])
        assert sorted(path.name for path in (lenet.folder / "out").iterdir()) == ["ip2.npy", "pool2.npy"]
    for one, three in zip(*results):
        assert one.dtype == numpy.float64
        assert numpy.array_equal(one, three)
    pool2, ip2 = results[0]
    assert pool2.shape[0] == ip2.shape[0] and pool2.shape[1:] == (50, 4, 4) and ip2.shape[1:] == (10,)


def test_the_numbers_are_those_of_an_independent_program(lenet, trained):
    """The classes' scores give the accuracy that `poseidon test` finds, and the digits' own labels say so."""
    features(lenet, trained, "--blobs", "ip2", "--iterations", 2)
    scores = numpy.load(lenet.folder / "out/ip2.npy")
    with lmdb.open(str(lenet.digits / "digits_test_lmdb"), readonly=True, lock=False) as data_base, data_base.begin() as transaction:
        labels = [caffe_files.datum(value).label for _, value in transaction.cursor()][:len(scores)]
    right = numpy.mean(scores.argmax(axis=1) == numpy.array(labels))
    net, model = trained
    told = json.loads(job.run(lenet.poseidon, "test", "--model", net, "--weights", model, "--iterations", 2, "--json", cwd=lenet.folder).expect().out)
    assert [score["value"] for score in told["scores"] if score["name"] == "accuracy"] == [pytest.approx(right, abs=1e-6)]


def test_a_data_base_has_the_same_numbers(lenet, trained):
    features(lenet, trained, "--blobs", "ip1", "--iterations", 2)
    features(lenet, trained, "--blobs", "ip1", "--iterations", 2, "--format", "lmdb", "--workers", 2, "--threads", 1)
    rows = numpy.load(lenet.folder / "out/ip1.npy")
    with lmdb.open(str(lenet.folder / "out/ip1_lmdb"), readonly=True, lock=False) as data_base, data_base.begin() as transaction:
        records = list(transaction.cursor())
    assert [key.decode() for key, _ in records] == [f"{number:010}" for number in range(len(rows))]
    for (_, value), row in zip(records, rows):
        floats = [bytes(part) for number, kind, part in caffe_files.fields(value) if number == 6]
        assert numpy.allclose(numpy.frombuffer(b"".join(floats), "<f4"), row, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flags, words", [
    (["--blobs", "ip3"], ['no blob "ip3"', "ip1"]),
    (["--blobs", "loss"], ["no row for each"]),
    (["--blobs", "ip1", "--weights", "none.caffemodel"], ["none.caffemodel"]),
])
def test_mistakes_are_told(lenet, trained, flags, words):
    net, model = trained
    weights = [] if "--weights" in flags else ["--weights", model]
    done = job.run(lenet.poseidon, "features", "--model", net, *weights, "--out", "out", "--iterations", 1, *flags, cwd=lenet.folder).expect(3)
    assert all(word in done.err for word in words), done.err
    assert not list(lenet.folder.glob("out/*"))


def test_a_worker_that_dies_leaves_nothing_half_written(lenet, trained):
    net, model = trained
    text = net.read_text().replace(f"{lenet.digits}/digits_test_lmdb", str(lenet.folder / "gone_lmdb"))
    subprocess.run(["cp", "-r", lenet.digits / "digits_test_lmdb", lenet.folder / "gone_lmdb"], check=True)
    damaged = lenet.folder / "gone_lmdb/data.mdb"
    content = bytearray(damaged.read_bytes())
    half = len(content) // 8192 * 4096  # the first batches can be read
    content[half:] = b"\xff" * (len(content) - half)
    damaged.write_bytes(content)
    net.write_text(text)
    done = job.run(lenet.poseidon, "features", "--model", net, "--weights", model, "--blobs", "ip1", "--out", "out", "--iterations", 8, "--workers", 2,
                   cwd=lenet.folder)
    assert done.code not in (0, 1) and "gone_lmdb" in done.err, done.err
    assert not list((lenet.folder / "out").iterdir())


def test_an_end_while_results_are_written_leaves_only_whole_ones(lenet, trained):
    """A program in front of poseidon-data makes writing slow. What is being written is completed, and no more."""
    net, model = trained
    slow, writing = lenet.folder / "slow", lenet.folder / "writing"
    slow.write_text(f'#!/bin/sh\nif [ "$1" = write-rows ]; then touch {writing}; sleep 1; fi\n'
                    f'exec {pathlib.Path(lenet.poseidon).parent}/poseidon-data "$@"\n')
    slow.chmod(0o755)
    command = [lenet.poseidon, "features", "--model", net, "--weights", model, "--blobs", "ip1,ip2", "--out", "out", "--iterations", "2", "--format", "hdf5"]
    features = subprocess.Popen(command, cwd=lenet.folder, env=job.environment(POSEIDON_DATA_PROGRAM=str(slow)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + job.SECONDS_MAX
    while not writing.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    features.terminate()
    _, said = features.communicate(timeout=300)
    assert features.returncode == 143 and said.endswith("poseidon features: interrupted; some results were not written\n"), said
    assert [path.name for path in (lenet.folder / "out").iterdir()] == ["ip1.h5"]
