"""Caffe's tools around data, nets and logs, as a user calls them; and training straight from image files."""
import os
import stat
import struct

import pytest
from support import caffe_files, job

WRONG_USAGE, WRONG_INPUT, SYSTEM = 2, 3, 5


def write_idx(folder, count=50, side=6):
    """An MNIST data set of `count` images; image i is gray of the value i, and its label is i mod 10."""
    images, labels = folder / "images-idx3-ubyte", folder / "labels-idx1-ubyte"
    images.write_bytes(struct.pack(">4I", 2051, count, side, side) + b"".join(bytes([i]) * side * side for i in range(count)))
    labels.write_bytes(struct.pack(">2I", 2049, count) + bytes(i % 10 for i in range(count)))
    return images, labels


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_mnist_is_converted_cut_and_averaged_by_caffes_flags(poseidon, tmp_path, backend):
    images, labels = write_idx(tmp_path)
    done = job.run(poseidon, "convert-mnist", images, labels, tmp_path / "db", f"-backend={backend}").expect()
    assert done.out.startswith(f"{tmp_path}/db: 50 images [1, 6, 6] with 10 labels, in ")

    mean = tmp_path / "mean.binaryproto"
    done = job.run(poseidon, "image-mean", "-backend", backend, tmp_path / "db", mean).expect()
    assert done.out.splitlines()[1] == "mean_value channel [0]: 24.5"
    values = caffe_files.blob(mean.read_bytes())
    assert values.shape == (1, 1, 6, 6) and (values == 24.5).all()

    done = job.run(poseidon, "partition-data", "--turn", tmp_path / "db", 3).expect()
    assert done.out.splitlines() == [f"{tmp_path}/db_0: 17 records", f"{tmp_path}/db_1: 17 records", f"{tmp_path}/db_2: 16 records"]
    done = job.run(poseidon, "image-mean", tmp_path / "db_2").expect()
    assert done.out.splitlines()[1] == "mean_value channel [0]: 24.5"  # of 2, 5, ..., 47
    assert job.run(poseidon, "partition-data", "-noturn", tmp_path / "db", 3).expect(WRONG_INPUT).err == (
        f"poseidon partition-data: {tmp_path}/db_0 exists already; remove it, choose another name, or give --overwrite\n")


def test_cifar_is_converted(poseidon, tmp_path):
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        (tmp_path / f"{name}.bin").write_bytes(b"".join(bytes([label]) + bytes(3072) for label in range(10)))
    done = job.run(poseidon, "convert-cifar", tmp_path, tmp_path, "lmdb").expect()
    assert done.out.splitlines()[0] == f"{tmp_path}/cifar10_train_lmdb: 50 images [3, 32, 32]"
    assert job.run(poseidon, "image-mean", tmp_path / "cifar10_test_lmdb").expect().out.startswith(
        f"{tmp_path}/cifar10_test_lmdb: 10 images of 3 channels")
    job.run(poseidon, "convert-cifar", tmp_path, tmp_path, "leveldb").expect()
    assert (tmp_path / "cifar10_train_leveldb" / "CURRENT").exists()
    done = job.run(poseidon, "image-mean", "--backend", "lmdb", tmp_path / "cifar10_test_leveldb").expect(WRONG_INPUT)
    assert "is a LevelDB and was to be read as an LMDB" in done.err
    (tmp_path / "data_batch_5.bin").unlink()
    done = job.run(poseidon, "convert-cifar", "--overwrite", tmp_path, tmp_path).expect(WRONG_INPUT)
    assert f"{tmp_path}/data_batch_5.bin" in done.err and done.err.count("\n") == 1


def test_a_damaged_data_base_is_reported(poseidon, tmp_path):
    images, labels = write_idx(tmp_path, count=200, side=60)
    job.run(poseidon, "convert-mnist", images, labels, tmp_path / "db").expect()
    data = tmp_path / "db" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    for command in (["image-mean"], ["partition-data"]):
        done = job.run(poseidon, *command, tmp_path / "db", *(["2"] if command == ["partition-data"] else [])).expect(WRONG_INPUT)
        assert f"{tmp_path}/db is truncated" in done.err, done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", images.name, labels.name]


def test_a_net_is_drawn(poseidon, tmp_path):
    dot = tmp_path / "net.dot"
    job.run(poseidon, "draw-net", job.EXAMPLE_NET, dot, "--rankdir", "TB", "--phase", "TEST").expect()
    text = dot.read_text()
    assert text.startswith('digraph "LeNet" {') and "rankdir=TB" in text and "(Accuracy)" in text

    # A program of a few lines stands in for Graphviz's.
    fake = tmp_path / "bin" / "dot"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = -Tpng ] || exit 1\n(echo picture; cat "$4") > "$3"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    path = f"{fake.parent}:{os.environ['PATH']}"
    job.run(poseidon, "draw-net", job.EXAMPLE_NET, tmp_path / "net.PNG", "--rankdir", "TB", "--phase", "TEST", PATH=path).expect()
    assert (tmp_path / "net.PNG").read_text() == "picture\n" + text
    done = job.run(poseidon, "draw-net", job.EXAMPLE_NET, tmp_path / "net.svg", PATH=path).expect(WRONG_INPUT)
    assert done.err == "poseidon draw-net: Graphviz's program dot made no .svg file\n"
    done = job.run(poseidon, "draw-net", job.EXAMPLE_NET, tmp_path / "net.png", PATH=str(tmp_path)).expect(SYSTEM)
    assert "install Graphviz, or write a .dot file" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "net.PNG", "net.dot"]


def test_a_log_becomes_tables(lenet):
    done = lenet.train(lenet.solver(lenet.net(32), test=True, display=10, test_interval=20, test_iter=2), 2, "--iterations", 40)
    log = lenet.folder / "train.log"
    log.write_text(done.out)
    job.run(lenet.poseidon, "parse-log", log, lenet.folder).expect()

    def table(name):
        return [line.split(",") for line in (lenet.folder / name).read_text().splitlines()]
    head, *rows = table("train.log.train")
    assert head == ["NumIters", "Seconds", "LearningRate", "loss"]
    assert [int(row[0]) for row in rows if int(row[0]) % 10 == 0] == [0, 10, 20, 30]
    seconds = [float(row[1]) for row in rows]
    assert seconds == sorted(seconds) and 0 < seconds[-1] < 2 * done.report["training_seconds"] + 1
    head, *rows = table("train.log.test")
    assert head == ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"]
    assert [int(row[0]) for row in rows] == [test["iteration"] for test in done.report["test"]]
    assert [float(row[3]) for row in rows] == pytest.approx([test["accuracy"] for test in done.report["test"]], rel=1e-4)


def from_images(folder, list_file, batch):
    """Makes the training data of the example's net come from image files."""
    def edit(text):
        begin = text.index("layer {")
        end = text.index("layer {", begin + 1)
        data = text[begin:end]
        assert "phase: TRAIN" in data
        layer = (f'layer {{ name: "digits" type: "ImageData" top: "data" top: "label" include {{ phase: TRAIN }}\n'
                 f'  transform_param {{ scale: 0.00390625 }}\n'
                 f'  image_data_param {{ source: "{list_file}" root_folder: "{folder}/" batch_size: {batch} shuffle: true\n'
                 f'    is_color: false new_height: 28 new_width: 28 }} }}\n')
        return text[:begin] + layer + text[end:]
    return edit


def test_workers_share_out_image_files(lenet, digits):
    images = digits / "images"
    curves = []
    for workers, batch, flags in ((1, 32, []), (4, 8, ["--data-threads", 3])):
        net = lenet.net(64, f"net{workers}.prototxt", edit=from_images(images, images / "train.txt", batch))
        done = lenet.train(lenet.solver(net, max_iter=60), workers, "--dtype", "float64", *flags)
        curves.append(job.losses(done))
    assert max(abs(a - b) / abs(b) for a, b in zip(*curves)) < 1e-9
    assert curves[0][-1] < 0.5 * curves[0][0]


def test_an_image_that_is_missing_ends_the_training_with_its_line(lenet, digits):
    images = digits / "images"
    lines = (images / "train.txt").read_text().splitlines()
    lines[40] = "none.pgm 3"
    (lenet.folder / "list.txt").write_text("\n".join(lines[:64]) + "\n")
    net = lenet.net(64, edit=from_images(images, lenet.folder / "list.txt", 16))
    done = lenet.train(lenet.solver(net, max_iter=20), 2, code=WRONG_INPUT)
    assert f"{lenet.folder}/list.txt:41: " in done.err and f"{images}/none.pgm" in done.err


def test_curves_of_logs_are_drawn(poseidon, tmp_path):
    log = tmp_path / "a.log"
    log.write_text(" iteration       loss       rate  samples/s  waiting\n"
                   "         0      2.345       0.01       1280    0.0 %\n"
                   "        10        nan       0.01       2560   12.5 %\n"
                   "        20        1.5       0.01       2560   12.5 %\n")
    for chart in (4, 6):
        job.run(poseidon, "plot-log", chart, tmp_path / f"{chart}.png", log, log).expect()
        assert (tmp_path / f"{chart}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for chart, words in ((0, "tells no accuracy of tests"), (7, "tells no loss of training with its time")):
        done = job.run(poseidon, "plot-log", chart, tmp_path / "none.png", log).expect(WRONG_INPUT)
        assert done.err == f"poseidon plot-log: {log}: {words}\n"
    job.run(poseidon, "plot-log", 8, tmp_path / "none.png", log).expect(WRONG_USAGE)
    assert not (tmp_path / "none.png").exists()
