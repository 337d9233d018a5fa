"""The handwritten digits of examples/digits: 8x8 pixels from 0 to 1, and what they show."""
import gzip
import os

import numpy

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../examples/digits/digits.csv.gz")


def load(dtype="float32"):
    """(images [n, 64], labels [n]) to train with, and to test with."""
    with gzip.open(_FILE, "rt") as file:
        lines = [line for line in file if line[0].isdigit()]
    table = numpy.loadtxt(lines, delimiter=",")
    images, labels = (table[:, 1:65] / 16).astype(dtype), table[:, 0].astype("int64")
    return (images[:1280], labels[:1280]), (images[1280:], labels[1280:])
