#!/usr/bin/env python3
"""Classifies test images by their nearest training image, once in pixels and once in the numbers of a trained net's layer.

    examples/features/nearest.py FOLDER

FOLDER has train/ and test/, each with BLOB.npy of the blobs data, ip1 and label, as `poseidon features` writes them.
"""
import pathlib
import sys

import numpy


def accuracy(folder, blob):
    (train, train_labels), (test, test_labels) = (
        (numpy.load(folder / part / f"{blob}.npy"), numpy.load(folder / part / "label.npy").ravel()) for part in ("train", "test"))
    # |a - b|^2 = |a|^2 - 2 a b + |b|^2, and |a| is the same for all b.
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    nearest = numpy.argmin((train**2).sum(1) - 2 * test @ train.T, axis=1)
    return (train_labels[nearest] == test_labels).mean(), train.shape[1]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for blob in ("data", "ip1"):
        share, numbers = accuracy(pathlib.Path(sys.argv[1]), blob)
        print(f"nearest neighbour in {blob:5} ({numbers} numbers): {100 * share:.2f} % of the test images right")


if __name__ == "__main__":
    main()
