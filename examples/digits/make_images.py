#!/usr/bin/env python3
"""Write the digits of digits.csv.gz as image files, with a list for training and one for testing.

    make_images.py [--seed N] [FOLDER]

FOLDER (default: images, beside this script) gets 1,797 files 0000.pgm, 0001.pgm, ... (8 x 8 pixels, gray, 0 to 255), and
the lists train.txt (1,437 images) and test.txt (360), each line a file name and its digit, in random order.

The split is a shuffle by a fixed seed. It was not chosen by its result: 1 is simply the first. Other seeds give other
splits. The generator is written out below, because what Python's own `random` yields for a seed may change between versions.
"""
import argparse
import gzip
import pathlib
import sys

TEST_IMAGES = 360
SIDE = 8
LEVELS = 16  # pixels are 0 to 16


def random_words(seed):
    """SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014)."""
    mask = (1 << 64) - 1
    state = seed & mask
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        word = state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        yield word ^ (word >> 31)


def shuffled(count, seed):
    """0 to count - 1 in random order (Fisher and Yates)."""
    order = list(range(count))
    words = random_words(seed)
    for last in range(count - 1, 0, -1):
        other = (next(words) * (last + 1)) >> 64
        order[last], order[other] = order[other], order[last]
    return order


def read_digits(file):
    """[(digit, 64 pixels of 0 to 16), ...]"""
    digits = []
    with gzip.open(file, "rt", encoding="ascii") as lines:
        for number, line in enumerate(lines, start=1):
            values = [int(word) for word in line.split(",")]
            if len(values) != 1 + SIDE * SIDE or not 0 <= values[0] <= 9 or not all(0 <= v <= LEVELS for v in values[1:]):
                sys.exit(f"{file}:{number}: is not a digit and {SIDE * SIDE} pixels of 0 to {LEVELS}")
            digits.append((values[0], values[1:]))
    return digits


def pgm(pixels):
    return b"P5\n%d %d\n255\n" % (SIDE, SIDE) + bytes((v * 255 + LEVELS // 2) // LEVELS for v in pixels)


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Write the digits as image files, with lists for training and testing.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=pathlib.Path, default=here / "images")
    parser.add_argument("--seed", type=int, default=1, help="of the split into training and testing (default: 1)")
    arguments = parser.parse_args()

    digits = read_digits(here / "digits.csv.gz")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for index, (_, pixels) in enumerate(digits):
        (arguments.folder / f"{index:04}.pgm").write_bytes(pgm(pixels))
    order = shuffled(len(digits), arguments.seed)
    train = len(digits) - TEST_IMAGES
    for name, indices in (("train.txt", order[:train]), ("test.txt", order[train:])):
        lines = [f"{index:04}.pgm {digits[index][0]}\n" for index in indices]
        (arguments.folder / name).write_text("".join(lines), encoding="ascii")
    print(f"{arguments.folder}: {train} images to train with, {TEST_IMAGES} to test with (split by seed {arguments.seed})")


if __name__ == "__main__":
    main()
