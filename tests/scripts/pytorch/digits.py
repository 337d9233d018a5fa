"""The handwritten digits of examples/digits: 8x8 pixels from 0 to 1, and what they show."""
import csv
import gzip
import os

import torch

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../examples/digits/digits.csv.gz")


def load(dtype=torch.float32):
    """(images [n, 64], labels [n]) to train with, and to test with."""
    with gzip.open(_FILE, "rt") as file:
        rows = [[float(cell) for cell in row] for row in csv.reader(file) if row and row[0][0].isdigit()]
    table = torch.tensor(rows, dtype=torch.float64)
    labels, images = table[:, 0].long(), (table[:, 1:65] / 16).to(dtype)
    return (images[:1280], labels[:1280]), (images[1280:], labels[1280:])
