"""The known nets of examples/nets/nets.py train on one and on four workers, with equal losses in double precision.

The nets are whole; images, batches, fully connected layers and numbers of classes are small. Set POSEIDON_TEST_ALL for those that take
longer.
"""
import dataclasses
import math
import os
import random
import struct
import sys

import lmdb
import pytest
from support import caffe_files, job

sys.path.insert(0, str(job.ROOT / "examples/nets"))
import nets  # noqa: E402

ITERATIONS = 3
RECORDS = 12


@dataclasses.dataclass(frozen=True)
class Case:
    shape: tuple = (3, 32, 32)    # of an image in the data base
    classes: int | None = 10
    labels: int = 10              # values of labels, 0 to labels - 1
    rate: float = 0.001
    batch: int = 1                # of each of four workers
    tolerance: float = 1e-9       # relative, of the losses
    options: dict = dataclasses.field(default_factory=dict)
    flags: tuple = ()
    slow: bool = False


SYNC = ("--sync-batch-norm",)


def cropped(size, **more):
    """Of a net that sees crops: smaller ones than the paper's, of images that leave room for chance."""
    return Case((3, size + 5, size + 5), options={"crop": size, "hidden": 256}, **more)


CASES = {
    "lenet": Case((1, 28, 28), rate=0.01, batch=2),
    "cifar10-quick": Case(),
    "cifar10-full": Case(),
    "cifar10-full-sigmoid-bn": Case(batch=2, flags=SYNC),
    "alexnet": cropped(67),
    "caffenet": cropped(67, slow=True),
    "rcnn": cropped(67, slow=True),
    "finetune-style": cropped(67, slow=True),
    "googlenet": cropped(224),
    "autoencoder": Case((1, 28, 28), classes=None, options={"pixels": 784}),
    "siamese": Case((2, 28, 28), classes=None, labels=2, rate=0.01, batch=2),
    "vgg16": cropped(32, slow=True),
    "vgg19": cropped(32, slow=True),
    "resnet-50": cropped(64, flags=SYNC, slow=True),
    "resnet-152": cropped(64, flags=SYNC, slow=True, rate=1e-5),  # each BatchNorm enlarges what rounding leaves
    "squeezenet": cropped(67),
    "fcn32s": Case((3, 40, 40), classes=5, slow=True, rate=1e-9, options={"hidden": 64}),  # the loss is a sum over pixels
    "lrcn": Case(classes=50, batch=2),
}


def write_data_base(path, shape, labels, label_images=False):
    """Blurred noise, so that rectified units have something to see."""
    draw = random.Random(repr((shape, labels)))
    with lmdb.open(str(path), map_size=1 << 28) as data_base, data_base.begin(write=True) as transaction:
        for record in range(RECORDS):
            count = shape[0] * shape[1] * shape[2]
            pixels = bytes(draw.randrange(labels) for _ in range(count)) if label_images else draw.randbytes(count)
            transaction.put(struct.pack(">I", record).hex().encode(), caffe_files.encoded_datum(shape, pixels, draw.randrange(labels)))


def losses(lenet, name, case, workers, *flags):
    batch = case.batch * 4 // workers
    net = lenet.folder / f"{name}-{workers}.prototxt"
    sources = {key: str(lenet.folder / f"{key}_lmdb") for key in ("train", "test", "train_labels", "test_labels")}
    net.write_text(nets.prototxt(name, batch=batch, test_batch=batch, classes=case.classes, **sources, **case.options))
    solver = lenet.folder / f"{name}-{workers}-solver.prototxt"
    solver.write_text(f'net: "{net}"\nbase_lr: {case.rate}\nlr_policy: "fixed"\nmomentum: 0.9\nweight_decay: 0.0005\nmax_iter: {ITERATIONS}\n'
                      "snapshot_after_train: false\n")
    return job.losses(lenet.train(solver, workers, "--dtype", "float64", "--bandwidth", "1Gbit", "--no-replan", *flags))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.skipif(case.slow and "POSEIDON_TEST_ALL" not in os.environ, reason="takes long"))
                                  for name, case in CASES.items()])
def test_a_net_trains_alike_on_one_and_on_four_workers(lenet, name):
    case = CASES[name]
    for phase in ("train", "test"):
        write_data_base(lenet.folder / f"{phase}_lmdb", case.shape, case.labels)
        write_data_base(lenet.folder / f"{phase}_labels_lmdb", (1, *case.shape[1:]), case.classes or case.labels, label_images=True)
    one = losses(lenet, name, case, 1, *case.flags)
    four = losses(lenet, name, case, 4, *case.flags)
    assert len(set(one)) == ITERATIONS, "nothing is learned"
    assert four == pytest.approx(one, rel=case.tolerance)


def test_batches_of_their_own_are_normalised_unless_asked(lenet):
    """Without --sync-batch-norm workers learn other things than one with all records, and have one model in the end, which a test scores."""
    case = CASES["cifar10-full-sigmoid-bn"]
    for phase in ("train", "test"):
        write_data_base(lenet.folder / f"{phase}_lmdb", case.shape, case.labels)
    one = losses(lenet, "cifar10-full-sigmoid-bn", case, 1)
    four = losses(lenet, "cifar10-full-sigmoid-bn", case, 4)
    assert all(math.isfinite(loss) for loss in four)
    assert four != pytest.approx(one, rel=1e-6)


def test_all_nets_are_tried():
    assert set(CASES) | {"vgg19-22k"} == set(nets.NETS)  # which differs from vgg19 by the number of classes
