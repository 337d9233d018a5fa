"""The examples whose data does not ship: with small files of the same formats, from a folder instead of the network."""
import gzip
import hashlib
import io
import os
import pathlib
import shutil
import struct
import subprocess
import tarfile

import lmdb
import pytest
from support import caffe_files, job

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the examples fetch their data with curl, which is not installed")

@pytest.fixture
def examples(tmp_path):
    """A copy of the examples, so that lists of checksums can be others."""
    folder = tmp_path / "examples"
    shutil.copytree(job.ROOT / "examples", folder, ignore=shutil.ignore_patterns("*_lmdb", "images", "snapshots", "files"))
    return folder


def publish(folder, list_of_files, files):
    """Writes the files, and the list with their checksums; returns the mirror's address."""
    folder.mkdir()
    lines = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        lines.append(f"{hashlib.md5(content).hexdigest()} {name} https://nowhere.invalid/data\n")
    list_of_files.write_text("# A comment.\n" + "".join(lines))
    return f"file://{folder}"


def create(examples, name, poseidon, mirror):
    return subprocess.run([examples / name / "create_lmdb.sh"], env=job.environment(POSEIDON=str(poseidon), POSEIDON_MIRROR=mirror), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as data_base, data_base.begin() as transaction:
        return [caffe_files.datum(value) for _, value in transaction.cursor()]


def mnist_files():
    files = {}
    for part, count in (("train", 5), ("t10k", 3)):
        images = struct.pack(">4I", 2051, count, 28, 28) + bytes(i % 251 for i in range(count * 784))
        labels = struct.pack(">2I", 2049, count) + bytes(range(count))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(images)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return files


def test_mnist_is_fetched_checked_and_converted(examples, poseidon, tmp_path):
    mirror = publish(tmp_path / "mirror", examples / "mnist/files.md5", mnist_files())
    done = create(examples, "mnist", poseidon, mirror)
    assert done.returncode == 0, done.stderr
    train = records(examples / "mnist/mnist_train_lmdb")
    assert [record.label for record in train] == [0, 1, 2, 3, 4]
    assert (train[0].channels, train[0].height, train[0].width) == (1, 28, 28)
    assert train[1].pixels == bytes(i % 251 for i in range(784, 2 * 784))
    assert len(records(examples / "mnist/mnist_test_lmdb")) == 3
    # Again, without the network: the files are there.
    again = create(examples, "mnist", poseidon, "file:///nowhere")
    assert again.returncode == 0 and "fetching" not in again.stdout, again.stderr


def test_cifar10_is_fetched_and_converted(examples, poseidon, tmp_path):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for number, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]):
            content = b"".join(bytes([i]) + bytes([10 * number + i]) * 3072 for i in range(10))
            about = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    mirror = publish(tmp_path / "mirror", examples / "cifar10/files.md5", {"cifar-10-binary.tar.gz": memory.getvalue()})
    done = create(examples, "cifar10", poseidon, mirror)
    assert done.returncode == 0, done.stderr
    train = records(examples / "cifar10/cifar10_train_lmdb")
    assert len(train) == 50 and {record.label for record in train} == set(range(10))
    assert len(records(examples / "cifar10/cifar10_test_lmdb")) == 10
    # The mean of 0 ... 49.
    mean = caffe_files.blob((examples / "cifar10/mean.binaryproto").read_bytes())
    assert mean.size == 3072 and mean.min() == mean.max() == 24.5


def test_what_is_damaged_or_missing_is_told(examples, poseidon, tmp_path):
    mirror = publish(tmp_path / "mirror", examples / "mnist/files.md5", mnist_files())
    (tmp_path / "mirror/train-labels-idx1-ubyte.gz").write_bytes(b"something else")
    done = create(examples, "mnist", poseidon, mirror)
    assert done.returncode == 1 and "another MD5" in done.stderr and "train-labels-idx1-ubyte.gz" in done.stderr
    assert not list((examples / "mnist").glob("*_lmdb")) and not list((examples / "mnist/files").glob("*.part"))
    os.remove(tmp_path / "mirror/train-labels-idx1-ubyte.gz")
    done = create(examples, "mnist", poseidon, mirror)
    assert done.returncode == 1 and "cannot be fetched" in done.stderr and "POSEIDON_MIRROR" in done.stderr


@pytest.mark.parametrize("net", sorted(path.relative_to(job.ROOT) for path in pathlib.Path(job.ROOT / "examples").glob("*/*solver.prototxt")), ids=str)
def test_solvers_name_files_that_are_there(net):
    text = (job.ROOT / net).read_text()
    named = [line.split('"')[1] for line in text.splitlines() if line.startswith("net:")]
    assert named and all((job.ROOT / name).exists() for name in named)


def write_photographs(folder, count):
    """Images of one colour each. The decoder goes by what is in a file, not by its name."""
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i}.JPEG").write_bytes(b"P6\n40 30\n255\n" + bytes([10 * i, 100, 200]) * 1200)


def imagenet(examples, poseidon, *arguments):
    return subprocess.run([examples / "imagenet/run.sh", *map(str, arguments)], env=job.environment(POSEIDON=str(poseidon)), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=job.SECONDS_MAX)


def test_imagenet_is_converted_and_trained_on(examples, poseidon, tmp_path):
    images = tmp_path / "ilsvrc"
    for part in ("train", "val"):
        for number, name in enumerate(("n02", "n01")):
            write_photographs(images / part / name, 2 + number)
    command = ("squeezenet", images, "--files", tmp_path / "files", "--batch", 2, "--", "--iterations", 1, "--run-folder", tmp_path / "run")
    done = imagenet(examples, poseidon, *command)
    assert done.returncode == 0, done.stderr
    # Classes are numbered in the order of their names.
    assert (tmp_path / "files/val.txt").read_text() == "n01/0.JPEG 0\nn01/1.JPEG 0\nn01/2.JPEG 0\nn02/0.JPEG 1\nn02/1.JPEG 1\n"
    train = records(tmp_path / "files/train_lmdb")
    assert sorted(record.label for record in train) == [0, 0, 0, 1, 1] and all(record.pixels.startswith(b"\xff\xd8") for record in train)
    assert "1 iterations, 2 samples" in done.stdout
    # What is there is not made again.
    again = imagenet(examples, poseidon, *command)
    assert again.returncode == 0 and "images encoded" not in again.stdout, again.stderr


def test_imagenet_says_what_is_missing(examples, poseidon, tmp_path):
    done = imagenet(examples, poseidon, "alexnet", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"run.sh: there is no folder {tmp_path}/train; {tmp_path} must have train/ and val/\n"
    write_photographs(tmp_path / "train/a", 1)
    write_photographs(tmp_path / "val/b", 1)
    done = imagenet(examples, poseidon, "alexnet", tmp_path, "--files", tmp_path / "files")
    assert done.returncode == 1
    assert done.stderr == "run.sh: b/0.JPEG is of a class that train/ does not have\n"
    assert imagenet(examples, poseidon, "alexnet", tmp_path, "--nonsense").returncode == 2
