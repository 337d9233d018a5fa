#!/usr/bin/env python3
"""What `poseidon run` costs a script with one worker: a ResNet-50's training step on the CPU, plain and under the launcher, in turn.

    bench/plugin_overhead.py [--rounds 5] [--steps 6] [--batch 8] [--poseidon build/bin/poseidon]

Prints the ratio of the medians of each round's steps, least, median and most over the rounds.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = pathlib.Path(__file__).with_name("plugin_overhead_script.py")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of a round, after two that warm up")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--poseidon", type=pathlib.Path, default=ROOT / "build/bin/poseidon")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(options.rounds):
            seconds = {}
            # Who goes first alternates, so that a machine that warms up favours neither.
            for way in ("plain", "run") if round_number % 2 == 0 else ("run", "plain"):
                report = pathlib.Path(folder, "seconds.json")
                script = [sys.executable, SCRIPT, "--steps", str(options.steps), "--batch", str(options.batch), "--report", report]
                launcher = [options.poseidon, "run", "-n", "1", "-o", pathlib.Path(folder, f"run-{round_number}"), "--"] if way == "run" else []
                subprocess.run([*launcher, *script], check=True, stdout=subprocess.DEVNULL)
                seconds[way] = statistics.median(json.loads(report.read_text()))
            ratios.append(seconds["run"] / seconds["plain"])
            if not options.json:
                print(f"round {round_number + 1}: plain {seconds['plain']:.3f} s, under poseidon run {seconds['run']:.3f} s a step, ratio {ratios[-1]:.4f}",
                      flush=True)
    result = {"least": min(ratios), "median": statistics.median(ratios), "most": max(ratios)}
    print(json.dumps(result | {"ratios": ratios}) if options.json
          else f"ratio, least {result['least']:.4f}, median {result['median']:.4f}, most {result['most']:.4f}")


if __name__ == "__main__":
    main()
