#!/usr/bin/env python3
"""Runs the microbenchmarks and says how each compares with the stored baseline.

    bench/micro/compare.py [--filter REGEX] [--repetitions N] [--against FILE | PROGRAM] [--save MACHINE]

    --filter REGEX     only these benchmarks
    --repetitions N    how often each is run; in turn, so that a slow minute of the machine meets all of them (default: 5)
    --against FILE     another baseline than bench/results/micro-baseline.json; or an older build of poseidon-micro, which is
                       then run in turn with this one: the comparison to trust on a machine that others use too
    --save MACHINE     stores the result as the baseline, with these words for the machine, instead of comparing

A ratio is time now to time then: above 1 is slower. A median ratio above 1.25 is a bad result, and the exit code is 1: noise
of a shared machine stays below that when the medians of several repetitions are compared, and a hot path that has grown a copy
or a look-up does not. Baselines compare within one machine only.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build-bench/bin/poseidon-micro"
BASELINE = ROOT / "bench/results/micro-baseline.json"
BAD_RATIO = 1.25
# Long enough for some hundred calls of the slowest benchmark's body or some million of the quickest.
SECONDS_EACH = 0.1


def run_once(program, pattern):
    """CPU nanoseconds per call of each benchmark."""
    command = [program, f"--benchmark_filter={pattern}", f"--benchmark_min_time={SECONDS_EACH}", "--benchmark_format=json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    to_ns = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
    return {entry["name"]: entry["cpu_time"] * to_ns[entry["time_unit"]] for entry in json.loads(done.stdout)["benchmarks"]}


def run(programs, pattern, repetitions):
    """For each program: each benchmark's times, one for each repetition."""
    times = [{} for _ in programs]
    for repetition in range(repetitions):
        print(f"repetition {repetition + 1} of {repetitions}", file=sys.stderr)
        for program, found in zip(programs, times):
            for name, ns in run_once(program, pattern).items():
                found.setdefault(name, []).append(ns)
    return times


def readable(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def compare(now, then):
    """Prints a line for each benchmark; the names of those that are worse than they may be."""
    bad = []
    print(f"{'benchmark':<34} {'then':>9} {'now':>9}   ratio: min  median  max")
    for name in now:
        if name not in then:
            print(f"{name:<34} {'-':>9} {readable(statistics.median(now[name])):>9}   new")
            continue
        base = statistics.median(then[name])
        ratios = sorted(ns / base for ns in now[name])
        median = statistics.median(ratios)
        word = ""
        if median > BAD_RATIO:
            bad.append(name)
            word = "  slower: a bad result"
        elif median < 1 / BAD_RATIO:
            word = "  faster"
        print(f"{name:<34} {readable(base):>9} {readable(statistics.median(now[name])):>9}   "
              f"{ratios[0]:>10.2f} {median:>7.2f} {ratios[-1]:>5.2f}{word}")
    return bad


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--filter", default=".", metavar="REGEX")
    words.add_argument("--repetitions", type=int, default=5, metavar="N")
    words.add_argument("--against", type=pathlib.Path, default=BASELINE, metavar="FILE|PROGRAM")
    words.add_argument("--save", metavar="MACHINE")
    flags = words.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"compare: there is no {PROGRAM}; build it: cmake --preset bench && cmake --build --preset bench")
    if flags.save:
        [now] = run([PROGRAM], flags.filter, flags.repetitions)
        BASELINE.parent.mkdir(exist_ok=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        result = {"machine": flags.save, "commit": commit, "command": f"bench/micro/compare.py --repetitions {flags.repetitions}",
                  "unit": "CPU nanoseconds per call, one number for each repetition",
                  "times": {name: [round(ns, 1) for ns in times] for name, times in now.items()}}
        # One line for each benchmark, so that a difference between two baselines can be read.
        text = json.dumps(result, indent=1)
        BASELINE.write_text(re.sub(r"\[[^\]]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n")
        return
    if flags.against.suffix == ".json":
        baseline = json.loads(flags.against.read_text())
        print(f"Against {baseline['commit']} on: {baseline['machine']}")
        [now] = run([PROGRAM], flags.filter, flags.repetitions)
        bad = compare(now, baseline["times"])
    elif os.access(flags.against, os.X_OK):
        then, now = run([flags.against.resolve(), PROGRAM], flags.filter, flags.repetitions)
        bad = compare(now, then)
    else:
        sys.exit(f"compare: {flags.against} is neither a baseline nor a program")
    if bad:
        print(f"\nA bad result: {len(bad)} of {len(now)} take more than {BAD_RATIO} times as long: {', '.join(bad)}")
        sys.exit(1)
    print(f"\nA good result: none of {len(now)} takes more than {BAD_RATIO} times as long.")


if __name__ == "__main__":
    main()
