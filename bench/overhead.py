#!/usr/bin/env python3
"""What Poseidon adds to a lone worker's iteration: `poseidon replay --workers 1` of the models in examples/models.

    bench/overhead.py [--models alexnet,lenet] [--iterations N] [--seconds S] [--json FILE]

A model computes at the rate that was published for one GPU (bench/cluster/models.py); where none was, an iteration takes S
seconds.

    added    the median iteration beyond the time that computing takes, in percent of that
    CPU      user and system time of the worker for one iteration, in percent of the same: what its lane does, whoever waits for it.
             The replay's own timers are in it, one for each layer and pass, and are the most of it where layers are many and short

More than 1 % added is a bad result.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench/cluster"))
import models  # noqa: E402  (beside the harness of the cluster)

BATCH = 32
PERCENT_MAX = 1.0


def measure(command, name, iterations, seconds):
    published = models.PUBLISHED.get(name, models.Published(BATCH / seconds, BATCH))
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        subprocess.run([command, "replay", "--model", ROOT / f"examples/models/{name}.json", "--workers", "1", "--batch",
                        str(published.batch), "--images-per-second", str(published.samples_per_second), "--iterations",
                        str(iterations), "--warm-up", "2", "--report", report, "--run-folder", folder],
                       check=True, stdout=subprocess.DEVNULL, timeout=600)
        told = json.loads(report.read_text())
    alone = told["alone_seconds"]
    return {"model": name, "iteration_seconds": alone,
            "added_percent": 100 * (statistics.median(told["iteration_seconds"]) / alone - 1),
            "cpu_percent": 100 * told["cpu_seconds"][0] / iterations / alone}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(sorted(path.stem for path in (ROOT / "examples/models").glob("*.json"))))
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--poseidon", type=pathlib.Path, default=ROOT / "build/bin/poseidon")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    options = parser.parse_args()
    print(f"{'model':<16} {'iteration':>10} {'added':>8} {'CPU':>8}")
    rows = []
    for name in options.models.split(","):
        row = measure(options.poseidon, name, options.iterations, options.seconds)
        rows.append(row)
        is_bad = row["added_percent"] > PERCENT_MAX
        print(f"{name:<16} {row['iteration_seconds']:>8.3f} s {row['added_percent']:>6.2f} % {row['cpu_percent']:>6.2f} %"
              f"{'   above 1 %' if is_bad else ''}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
