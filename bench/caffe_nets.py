#!/usr/bin/env python3
"""How fast prototxts of large nets are computed, and what they take of memory, against the same nets as eager PyTorch programs.

    bench/caffe_nets.py [--nets alexnet,googlenet,resnet-50] [--batch B] [--threads T] [--rounds N] [--json FILE]
    bench/caffe_nets.py --memory [--nets alexnet] [--batch 128]

Time is that of a forward and a backward pass in float32: `poseidon time` of what examples/nets/nets.py writes, with a constant batch in
place of a data base, against bench/eager_nets.py. The two take turns, a process each, so that a noisy machine disturbs both alike; each
round gives the ratio of their medians. A median of the ratios above 1.05 is a bad result.

Memory is the most that the largest process ever held (its resident set): `poseidon train` of some iterations with momentum on one
worker, against the same with torch.optim.SGD. A ratio above 1.15 is a bad result.
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
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "examples/nets")]
sys.dont_write_bytecode = True
PIXELS = {"alexnet": 227, "googlenet": 224, "resnet-50": 224}
TIME_MAX, MEMORY_MAX = 1.05, 1.15
SECONDS_MAX = 1800
SOLVER = 'net: "{}"\nbase_lr: 0.0001\nlr_policy: "fixed"\nmomentum: 0.9\nweight_decay: 0.0005\nmax_iter: {}\nsnapshot_after_train: false\n'


def prototxt(name, batch):
    """The net with a constant batch for data: nothing is read or drawn while the clock runs."""
    import nets

    class Constant(nets.Net):
        def data(self, crop=None, **_):
            self.add("data", "DummyData", (), ("data", "label"), dummy_data_param={
                "shape": [{"dim": [batch, 3, crop, crop]}, {"dim": [batch]}], "data_filler": [nets.constant(0.5), nets.constant(1)]})
            return "data"

    net = Constant(name, argparse.Namespace(batch=batch, classes=None, mean=None))
    nets.NETS[name](net)
    return net.text()


def eager(name, batch, iterations, is_training):
    """Median milliseconds of a forward and a backward pass."""
    import torch

    import eager_nets
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    net = eager_nets.NETS[name]()
    images = torch.full((batch, 3, net.pixels, net.pixels), 0.5)
    labels = torch.ones(batch, dtype=torch.long)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0001, momentum=0.9, weight_decay=0.0005)
    times = []
    for _ in range(iterations + 1):
        start = time.perf_counter()
        net(images, labels).backward()
        times.append(1e3 * (time.perf_counter() - start))
        if is_training:
            optimizer.step()
        optimizer.zero_grad()
    return statistics.median(times[1:])  # the first warms up


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = pathlib.Path(folder)
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}

    def model(self, name):
        file = self.folder / f"{name}.prototxt"
        file.write_text(prototxt(name, self.options.batch))
        return file

    def theirs(self, name, is_training):
        told = json.dumps([name, self.options.batch, self.options.iterations, is_training])
        return [sys.executable, __file__, "--eager", told]

    def output(self, command):
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=self.environment, timeout=SECONDS_MAX).stdout

    def time_ours(self, name):
        whole = json.loads(self.output([self.options.poseidon, "time", "--model", self.model(name), "--threads", str(self.options.threads),
                                        "--iterations", str(self.options.iterations), "--json"]))
        return whole["forward"]["median_ms"] + whole["backward"]["median_ms"]

    def time_theirs(self, name):
        return float(self.output(self.theirs(name, is_training=False)))

    def peak(self, command):
        """Bytes of the largest process of a command's tree. The program says nothing of use, so its output is dropped."""
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return 1024 * usage.ru_maxrss

    def peak_ours(self, name):
        solver = self.folder / "solver.prototxt"
        solver.write_text(SOLVER.format(self.model(name), self.options.iterations))
        return self.peak([self.options.poseidon, "train", "--solver", solver, "--threads", str(self.options.threads),
                          "--run-folder", self.folder / "run"])

    def peak_theirs(self, name):
        return self.peak(self.theirs(name, is_training=True))


def compare(title, unit, scale, rounds, ours_of, theirs_of):
    print(f"{title}; {unit}\n{'round':>5} {'Poseidon':>10} {'PyTorch':>10} {'ratio':>7}")
    rows = []
    for number in range(rounds):
        ours, theirs = ours_of(), theirs_of()
        rows.append({"poseidon": ours, "pytorch": theirs, "ratio": ours / theirs})
        print(f"{number + 1:>5} {ours * scale:>10.1f} {theirs * scale:>10.1f} {ours / theirs:>7.3f}", flush=True)
    ratios = [row["ratio"] for row in rows]
    print(f"ratio, least, median and most: {min(ratios):.3f} {statistics.median(ratios):.3f} {max(ratios):.3f}\n", flush=True)
    return {"rounds": rows, "median": statistics.median(ratios)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", help="some of " + ",".join(PIXELS))
    parser.add_argument("--memory", action="store_true", help="compare memory, not time")
    parser.add_argument("--batch", type=int, help="default 16, and 128 with --memory")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--iterations", type=int, help="of a round; default 5, and 3 with --memory")
    parser.add_argument("--rounds", type=int, help="default 5, and 1 with --memory")
    parser.add_argument("--poseidon", type=pathlib.Path, default=ROOT / "build/bin/poseidon")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    parser.add_argument("--eager", help=argparse.SUPPRESS)  # the PyTorch side, in a process of its own
    options = parser.parse_args()
    if options.eager:
        print(eager(*json.loads(options.eager)))
        return
    options.nets = (options.nets or ("alexnet" if options.memory else ",".join(PIXELS))).split(",")
    for name in options.nets:
        if name not in PIXELS:
            parser.error(f"--nets: there is no {name}; there are {', '.join(PIXELS)}")
    options.batch = options.batch or (128 if options.memory else 16)
    options.iterations = options.iterations or (3 if options.memory else 5)
    options.rounds = options.rounds or (1 if options.memory else 5)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        for name in options.nets:
            title = f"{name}, batch {options.batch}, {options.threads} thread(s), {options.iterations} iterations a round"
            if options.memory:
                results[name] = compare(title, "most memory in MB", 1e-6, options.rounds, lambda: bench.peak_ours(name), lambda: bench.peak_theirs(name))
            else:
                results[name] = compare(title, "median ms of forward and backward", 1, options.rounds, lambda: bench.time_ours(name),
                                        lambda: bench.time_theirs(name))
    most = MEMORY_MAX if options.memory else TIME_MAX
    for name, result in results.items():
        if result["median"] > most:
            print(f"{name}: the median ratio {result['median']:.3f} is above {most}")
    if options.json:
        settings = {name: getattr(options, name) for name in ("memory", "batch", "threads", "iterations")}
        options.json.write_text(json.dumps({**settings, "cores": os.cpu_count(), "nets": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
