#!/usr/bin/env python3
"""How fast a data layer decodes JPEGs, against libjpeg-turbo in a bare loop on one core.

    bench/decoding.py [--images N] [--batches N] [--rounds N] [--crop PIXELS] [--json FILE]

A data base of 256 x 256 photographs (noise with a photograph's spectrum, 30 to 40 KB each at quality 95) is read by a net that does
nothing with them. The two sides take turns. Two figures for each round:

    rate    images per second of the layer, by those of the bare loop times the cores of this machine. Only an idle machine shows it
    work    processor time of the bare loop for an image, by that of the whole training for an image (reader, pipe, transform). What the
            rate would be on an idle machine with every core busy; other work on the machine disturbs it less

A rate below 0.9 is a bad result. Needs libturbojpeg (Debian: libturbojpeg0) for the bare loop.
"""
import argparse
import ctypes
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import lmdb
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDE, BATCH = 256, 50
NET = """name: "decoding"
layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "{data}" batch_size: {batch} backend: LMDB }}
  transform_param {{ crop_size: {crop} mirror: true mean_value: 104 mean_value: 117 mean_value: 123 }} }}
layer {{ name: "silence" type: "Silence" bottom: "data" bottom: "label" }}
layer {{ name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {{ shape {{ dim: 1 dim: 2 }} shape {{ dim: 1 dim: 1 }} }} }}
layer {{ name: "z" type: "InnerProduct" bottom: "x" top: "z" inner_product_param {{ num_output: 1 }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "z" bottom: "y" top: "loss" }}
"""
SOLVER = 'net: "{}"\nbase_lr: 0\nlr_policy: "fixed"\nsnapshot_after_train: false\nmax_iter: {}\n'


def photograph(random):
    """Amplitudes fall as the frequency rises: Field, Relations between the statistics of natural images and the response properties of
    cortical cells, 1987."""
    frequency = numpy.hypot(numpy.fft.fftfreq(SIDE)[:, None], numpy.fft.rfftfreq(SIDE)[None, :])
    frequency[0, 0] = 1
    gray, *tints = (numpy.fft.irfft2(numpy.fft.rfft2(random.normal(size=(SIDE, SIDE))) / frequency**1.2) for _ in range(4))
    channels = [gray / gray.std() + 0.3 * tint / tint.std() for tint in tints]
    return numpy.clip(128 + 50 * numpy.stack(channels, -1), 0, 255).astype(numpy.uint8)


def make_data_base(poseidon, folder, images):
    random = numpy.random.default_rng(1)
    for i in range(images):
        (folder / f"{i}.ppm").write_bytes(b"P6\n%d %d\n255\n" % (SIDE, SIDE) + photograph(random).tobytes())
    (folder / "list.txt").write_text("".join(f"{i}.ppm {i % 10}\n" for i in range(images)))
    subprocess.run([poseidon, "convert-images", "--encode-type", "jpg", folder, folder / "list.txt", folder / "jpeg_lmdb"],
                   check=True, stdout=subprocess.DEVNULL)


def bare_loop(folder):
    """Seconds of one core for an image."""
    try:
        library = ctypes.CDLL("libturbojpeg.so.0")
    except OSError:
        sys.exit("skipped: there is no libturbojpeg.so.0 here; install it (Debian: libturbojpeg0)")
    library.tjInitDecompress.restype = ctypes.c_void_p
    decoder = ctypes.c_void_p(library.tjInitDecompress())
    pixels = ctypes.create_string_buffer(3 * SIDE * SIDE)
    with lmdb.open(str(folder / "jpeg_lmdb"), readonly=True, lock=False) as data_base, data_base.begin() as transaction:
        files = [bytes(value[value.find(b"\xff\xd8\xff"):]) for _, value in transaction.cursor()]
    blue_first = 1
    start = time.process_time()
    for file in files:
        # What follows the file in its record is told as a warning.
        if library.tjDecompress2(decoder, file, ctypes.c_ulong(len(file)), pixels, SIDE, 0, SIDE, blue_first, 0) < -1:
            sys.exit("libturbojpeg cannot decode an image")
    return (time.process_time() - start) / len(files)


def train(options, folder, batches):
    """Seconds on the clock, and of all processors, of a run with so many batches."""
    (folder / "net.prototxt").write_text(NET.format(data=folder / "jpeg_lmdb", batch=BATCH, crop=options.crop))
    (folder / "solver.prototxt").write_text(SOLVER.format(folder / "net.prototxt", batches))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([options.poseidon, "train", "--solver", folder / "solver.prototxt", "--run-folder", folder / "run"], check=True,
                   stdout=subprocess.DEVNULL, timeout=1800)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="in the data base")
    parser.add_argument("--batches", type=int, default=150, help=f"of {BATCH} images in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crop", type=int, default=SIDE)
    parser.add_argument("--poseidon", type=pathlib.Path, default=ROOT / "build/bin/poseidon")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_data_base(options.poseidon, folder, options.images)
        few = max(1, options.batches // 10)  # what starting and ending take is in both, and cancels
        rows = []
        print(f"{cores} core(s), crop {options.crop}\n{'round':>5} {'layer':>12} {'one core':>12} {'rate':>6} {'work':>6}")
        for number in range(options.rounds):
            seconds_few, work_few = train(options, folder, few)
            bare = bare_loop(folder)
            seconds, work = train(options, folder, few + options.batches)
            images = BATCH * options.batches
            rate = images / (seconds - seconds_few)
            rows.append({"images_per_second": rate, "one_core": 1 / bare, "rate": rate * bare / cores, "work": bare * images / (work - work_few)})
            print(f"{number + 1:>5} {rate:>8.0f} 1/s {1 / bare:>8.0f} 1/s {rows[-1]['rate']:>6.3f} {rows[-1]['work']:>6.3f}", flush=True)
    for figure in ("rate", "work"):
        values = [row[figure] for row in rows]
        print(f"{figure}, least, median and most: {min(values):.3f} {statistics.median(values):.3f} {max(values):.3f}")
    if options.json:
        options.json.write_text(json.dumps({"cores": cores, "crop": options.crop, "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
