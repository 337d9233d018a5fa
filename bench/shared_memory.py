#!/usr/bin/env python3
"""What shared memory is worth: one gradient summed over the workers of a host, by Poseidon and by gloo over loopback, in turn.

    bench/shared_memory.py [--workers 2,4] [--megabytes 100] [--iterations I] [--rounds N] [--json FILE]

Each round runs `poseidon replay --per-host on` with a model of one tensor and no computing, and then gloo's all-reduce of the same
size from PyTorch; the figure is the median iteration of each, and the ratio of the two, which is the figure to trust on a machine
that does other things as well. The gradient lies in memory of Session::allocate. Less than 3 is a bad result.
"""
import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

GLOO = """
import json, sys, time
import torch, torch.distributed as dist
rank, workers, port, elements, iterations = map(int, sys.argv[1:6])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
gradient = torch.zeros(elements)
times = []
for i in range(iterations + 2):
    dist.barrier()
    begin = time.perf_counter()
    dist.all_reduce(gradient)
    times.append(time.perf_counter() - begin)
if rank == 0:
    print(json.dumps(times[2:]), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def model(elements):
    """A description of one layer whose only parameter has so many numbers."""
    layer = {"name": "w", "kind": "conv", "inputs": ["data"], "output": [1], "params": [[elements]], "fc": None, "tied_to": None,
             "aux": False, "forward_flops_per_sample": 1, "backward_flops_per_sample": 1, "rows_per_sample": 0}
    return {"name": "one-tensor", "source": "bench/shared_memory.py", "input_kind": "image", "input": [1], "classes": 1,
            "total_params": elements, "forward_flops_per_sample": 1, "backward_flops_per_sample": 1, "layers": [layer]}


def poseidon_seconds(scratch, workers, elements, iterations, per_host):
    description, report = scratch / "model.json", scratch / "report.json"
    description.write_text(json.dumps(model(elements)))
    subprocess.run([ROOT / "build/bin/poseidon", "replay", "--model", description, "--images-per-second", "1e9", "--batch", "1",
                    "--workers", str(workers), "--per-host", per_host, "--iterations", str(iterations), "--warm-up", "2",
                    "--run-folder", scratch / "run", "--report", report], check=True, stdout=subprocess.DEVNULL)
    return statistics.median(json.loads(report.read_text())["iteration_seconds"])


def gloo_seconds(workers, elements, iterations):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    crew = [subprocess.Popen([sys.executable, "-c", GLOO, *map(str, (rank, workers, port, elements, iterations))],
                             stdout=subprocess.PIPE, text=True) for rank in range(workers)]
    outputs = [process.communicate()[0] for process in crew]
    if any(process.returncode for process in crew):
        sys.exit("a process of gloo's all-reduce failed")
    return statistics.median(json.loads(outputs[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2,4", help="numbers of processes, separated by commas")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    options = parser.parse_args()
    elements = options.megabytes * 1_000_000 // 4
    rows = []
    print(f"{options.megabytes} MB of float32 on {os.cpu_count()} cores; ms for each sum over all workers")
    print(f"{'workers':>7} {'round':>5} {'shared memory':>14} {'sockets':>9} {'gloo':>9} {'gloo / shared memory':>21}")
    for workers in map(int, options.workers.split(",")):
        for number in range(options.rounds):
            row = {"workers": workers, "round": number + 1}
            for name, per_host in (("shared_memory", "on"), ("sockets", "off")):
                with tempfile.TemporaryDirectory() as scratch:
                    row[name] = poseidon_seconds(pathlib.Path(scratch), workers, elements, options.iterations, per_host)
            row["gloo"] = gloo_seconds(workers, elements, options.iterations)
            row["ratio"] = row["gloo"] / row["shared_memory"]
            rows.append(row)
            print(f"{workers:>7} {row['round']:>5} {1e3 * row['shared_memory']:>14.1f} {1e3 * row['sockets']:>9.1f} "
                  f"{1e3 * row['gloo']:>9.1f} {row['ratio']:>21.2f}", flush=True)
        print(f"{workers:>7}       median ratio {statistics.median(r['ratio'] for r in rows if r['workers'] == workers):.2f}", flush=True)
    if options.json:
        settings = {name: getattr(options, name) for name in ("workers", "megabytes", "iterations")}
        options.json.write_text(json.dumps({**settings, "cores": os.cpu_count(), "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
