#!/usr/bin/env python3
"""How fast one worker computes, against the same net as an eager PyTorch program with the same number of threads.

    bench/single_worker.py [--threads T] [--rounds N] [--iterations I] [--batch B] [--json FILE]

Both train LeNet on the digits in float32. PyTorch has its data in memory before its clock starts; Poseidon reads records from
LMDB while it trains, and its clock runs over whole iterations. They take turns, so that a noisy machine disturbs both alike;
each round gives one ratio of Poseidon's time to PyTorch's. A median above 1.05 is a bad result.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/system"))


def eager(data, threads, batch, iterations):
    """Seconds per iteration of an ordinary PyTorch program."""
    import torch
    from support import reference
    torch.set_num_threads(threads)
    images, labels = reference.load(pathlib.Path(data) / "digits_train_lmdb", torch.float32)
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(800, 500), nn.ReLU(inplace=True), nn.Linear(500, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    loss_of = nn.CrossEntropyLoss()
    seconds = []
    for iteration in range(iterations):
        start = time.perf_counter()
        rows = torch.arange(iteration * batch, (iteration + 1) * batch) % len(labels)
        optimizer.zero_grad()
        loss = loss_of(net(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return sum(seconds) / len(seconds)


def poseidon(lenet, threads, batch, iterations):
    solver = lenet.solver(lenet.net(batch), max_iter=iterations)
    report = lenet.train(solver, 1, "--threads", threads).report
    return report["training_seconds"] / report["iterations"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    parser.add_argument("--eager", metavar="FOLDER", help=argparse.SUPPRESS)  # the PyTorch side, in a process of its own
    options = parser.parse_args()
    if options.eager:
        print(eager(options.eager, options.threads, options.batch, options.iterations))
        return
    from support import job
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        command = ROOT / "build/bin/poseidon"
        subprocess.run([ROOT / "examples/digits/create_lmdb.sh", scratch], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "POSEIDON": str(command), "PYTHON": sys.executable})
        lenet = job.Workbench(command, scratch, scratch)
        theirs_command = [sys.executable, __file__, "--eager", scratch, "--threads", str(options.threads), "--batch",
                          str(options.batch), "--iterations", str(options.iterations)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        rounds = []
        print(f"LeNet, batch {options.batch}, {options.threads} thread(s), {options.iterations} iterations a round; ms per iteration")
        print(f"{'round':>5} {'Poseidon':>10} {'PyTorch':>10} {'ratio':>7}")
        for number in range(options.rounds):
            ours = poseidon(lenet, options.threads, options.batch, options.iterations)
            theirs = float(subprocess.run(theirs_command, check=True, text=True, stdout=subprocess.PIPE, env=environment).stdout)
            rounds.append({"poseidon": ours, "pytorch": theirs, "ratio": ours / theirs})
            print(f"{number + 1:>5} {1e3 * ours:>10.3f} {1e3 * theirs:>10.3f} {ours / theirs:>7.3f}", flush=True)
    ratios = sorted(r["ratio"] for r in rounds)
    print(f"ratio, least, median and most: {ratios[0]:.3f} {statistics.median(ratios):.3f} {ratios[-1]:.3f}")
    if options.json:
        settings = {name: getattr(options, name) for name in ("threads", "iterations", "batch")}
        options.json.write_text(json.dumps({**settings, "cores": os.cpu_count(), "rounds": rounds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
