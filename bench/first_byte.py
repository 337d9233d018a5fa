#!/usr/bin/env python3
"""How soon a gradient is on its way: from its autograd hook to its first byte, read from timelines.

    bench/first_byte.py [--workers N] [--scheme S] [--iterations I] [--rounds N] [--json FILE]

Only gradients that find the link free count: all that their worker had ready before has been synchronised. The rest wait in the
send queue, by design. On a machine with fewer cores than workers and lanes together the lanes also wait for a core: the figures
include that. A median above 1 ms is a bad result, and so is less than 75 % of all gradients queued before the backward pass ends.
"""
import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/system"))

from support import job  # noqa: E402 (after the path that finds it)


def waits(events):
    """Milliseconds from hook to first byte, of the gradients that found the link free; and how many did not."""
    times = collections.defaultdict(dict)
    for event in events:
        if event.get("cat") in ("gradient ready", "first byte", "synced"):
            key = (event["pid"], event["args"]["iteration"], event["args"]["tensor"])
            times[key].setdefault(event["cat"], event["ts"])
    free, busy = [], 0
    for worker in {key[0] for key in times}:
        own = sorted((t for key, t in times.items() if key[0] == worker), key=lambda t: t["gradient ready"])
        synced_before = 0.0
        for t in own:
            if "first byte" in t:  # not where the worker's own shard takes all of it
                if synced_before <= t["gradient ready"]:
                    free.append((t["first byte"] - t["gradient ready"]) / 1e3)
                else:
                    busy += 1
            synced_before = max(synced_before, t["synced"])
    return free, busy


def queued_inside(events):
    """The share of all gradients that stood in the send queue before their worker's backward pass had ended."""
    ends, queued = {}, {}
    for event in events:
        key = (event["pid"], event.get("args", {}).get("iteration"))
        if event["ph"] == "E" and event["name"] == "backward":
            ends[key] = event["ts"]
        elif event.get("cat") == "queued":
            queued[(*key, event["args"]["tensor"])] = event["ts"]
    return sum(time < ends[key[:2]] for key, time in queued.items()) / len(queued)


def quantile(values, share):
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheme", default="auto")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        command = ROOT / "build/bin/poseidon"
        subprocess.run([ROOT / "examples/digits/create_lmdb.sh", scratch], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "POSEIDON": str(command), "PYTHON": sys.executable})
        lenet = job.Workbench(command, scratch, scratch)
        solver = lenet.solver(lenet.net(64), max_iter=options.iterations)
        print(f"LeNet, {options.workers} workers on {os.cpu_count()} cores, scheme {options.scheme}; ms from hook to first byte")
        print(f"{'round':>5} {'free':>6} {'busy':>6} {'least':>8} {'median':>8} {'90 %':>8} {'most':>8} {'within 1 ms':>12} {'queued early':>13}")
        for number in range(options.rounds):
            timeline = scratch / "timeline.json"
            lenet.train(solver, options.workers, "--scheme", options.scheme, "--timeline", timeline)
            events = json.loads(timeline.read_text())["traceEvents"]
            free, busy = waits(events)
            within = sum(wait <= 1 for wait in free) / len(free)
            row = {"free": len(free), "busy": busy, "least": min(free), "median": quantile(free, 0.5), "p90": quantile(free, 0.9),
                   "most": max(free), "within_1_ms": within, "queued_inside_backward": queued_inside(events)}
            results.append(row)
            print(f"{number + 1:>5} {row['free']:>6} {busy:>6} {row['least']:>8.3f} {row['median']:>8.3f} {row['p90']:>8.3f} "
                  f"{row['most']:>8.3f} {100 * within:>10.1f} % {100 * row['queued_inside_backward']:>11.1f} %", flush=True)
    if options.json:
        settings = {name: getattr(options, name) for name in ("workers", "scheme", "iterations")}
        options.json.write_text(json.dumps({**settings, "cores": os.cpu_count(), "rounds": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
