#!/usr/bin/env python3
"""The test accuracy of the shipped LeNet solver over several splits of the digits, for Poseidon and for plain PyTorch.

    bench/splits.py [--splits N] [--workers N] [--json FILE]

Split n is the shuffle with seed n (examples/digits/create_lmdb.sh --seed n): none is chosen by its result. The reference begins
with the same initial parameters and is a PyTorch program that shares no code with Poseidon (tests/system/support/reference.py).
A mean below 97 % is a bad result.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/system"))

from support import job, reference  # noqa: E402 (after the path that finds them)

GLOBAL_BATCH, ITERATIONS = 64, 600


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4, choices=[1, 2, 4], help="that share the global batch of 64")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    options = parser.parse_args()
    command = ROOT / "build/bin/poseidon"
    rows = []
    print(f"{'split':>5} {'Poseidon':>10} {'PyTorch':>10}")
    for seed in range(1, options.splits + 1):
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            subprocess.run([ROOT / "examples/digits/create_lmdb.sh", "--seed", str(seed), scratch], check=True,
                           stdout=subprocess.DEVNULL, env={**os.environ, "POSEIDON": str(command), "PYTHON": sys.executable})
            lenet = job.Workbench(command, scratch, scratch)
            net = lenet.net(GLOBAL_BATCH // options.workers)
            ours = lenet.train(lenet.solver(net, test=True, max_iter=ITERATIONS), options.workers).report["test"][-1]["accuracy"]
            initial = lenet.train(lenet.solver(net, snapshot_after_train="true"), 1, "--iterations", 0).report["snapshots"][0]["model"]
            model = reference.LeNet(pathlib.Path(initial), torch.float32)
            model.train(*reference.load(scratch / "digits_train_lmdb", torch.float32), GLOBAL_BATCH, ITERATIONS)
            theirs = model.accuracy(*reference.load(scratch / "digits_test_lmdb", torch.float32))
        rows.append({"split": seed, "poseidon": ours, "pytorch": theirs})
        print(f"{seed:>5} {100 * ours:>8.2f} % {100 * theirs:>8.2f} %", flush=True)
    means = [statistics.mean(row[side] for row in rows) for side in ("poseidon", "pytorch")]
    print(f"{'mean':>5} {100 * means[0]:>8.2f} % {100 * means[1]:>8.2f} %")
    if options.json:
        options.json.write_text(json.dumps({"workers": options.workers, "splits": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
