#!/usr/bin/env python3
"""Push-pull of a large tensor between processes of this host, over TCP without shaping, against gloo's all-reduce.

    bench/throughput.py [--workers 2,4] [--megabytes 100] [--rounds N] [--iterations I] [--tls | --shared-memory]
                        [--against POSEIDON] [--json FILE]

A round lets Poseidon's workers (`poseidon replay` of a net of one dense layer that computes nothing) and PyTorch's gloo synchronise
the same float32 tensor I times, one after the other and in turn the first, so that a noisy machine disturbs both alike; each round
gives ratios.
--against measures another build of Poseidon instead of gloo. --shared-memory has Poseidon's workers combine through the memory of
their host (`--per-host on`, gradients in memory of Session::allocate), while gloo goes on using TCP; a ratio of throughputs below 3 is
a bad result then.

    MB/s       bytes of the tensor per second of one iteration: one all-reduce, or one push-pull
    CPU s/GB   user and system time of all workers, per 10^9 bytes that all of them together send

Poseidon counts what it sends, frames with their headers; through shared memory it sends nothing, and is charged what a ring would
send. gloo's bytes are what its ring needs, 2 (P-1) tensors in all. A ratio of
throughputs below 1.00, or of CPU seconds above 0.95, is a bad result. Throughput means something on an idle machine only; CPU
seconds suffer less.
"""
import argparse
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
WARM_UP = 2
SECONDS_MAX = 600


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def gloo_worker(rank, workers, port, elements, iterations):
    """What one process of the peer does; prints its seconds and CPU seconds."""
    import torch
    import torch.distributed
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    tensor = torch.zeros(elements)
    for _ in range(WARM_UP):
        torch.distributed.all_reduce(tensor)
    start, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(iterations):
        torch.distributed.all_reduce(tensor)
    print(json.dumps([time.perf_counter() - start, cpu_seconds() - cpu]), flush=True)
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gloo(workers, elements, iterations):
    port = free_port()
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, __file__, "--gloo-worker", f"{rank},{workers},{port},{elements},{iterations}"],
                                  stdout=subprocess.PIPE, text=True, env=environment) for rank in range(workers)]
    try:
        told = [json.loads(process.communicate(timeout=SECONDS_MAX)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    seconds = statistics.mean(t[0] for t in told) / iterations
    return figures(seconds, sum(t[1] for t in told), ring_bytes(workers, elements, iterations), elements)


def ring_bytes(workers, elements, iterations):
    return 2 * (workers - 1) * 4 * elements * iterations


def poseidon(command, workers, elements, iterations, flags):
    rows = 1000
    layer = {"name": "dense", "kind": "fc", "params": [[rows, elements // rows]], "fc": None, "tied_to": None, "rows_per_sample": 0,
             "forward_flops_per_sample": 1, "backward_flops_per_sample": 1}
    with tempfile.TemporaryDirectory() as folder:
        model, report = pathlib.Path(folder) / "dense.json", pathlib.Path(folder) / "report.json"
        model.write_text(json.dumps({"name": "dense", "source": "bench/throughput.py", "input_kind": "image", "input": [1], "classes": 1,
                                     "total_params": elements, "forward_flops_per_sample": 1, "backward_flops_per_sample": 1,
                                     "layers": [layer]}))
        subprocess.run([command, "replay", "--model", model, "--images-per-second", "1e9", "--batch", "1", "--workers", str(workers),
                        "--scheme", "ps", "--bandwidth", "20Gbit", "--iterations", str(iterations), "--warm-up", str(WARM_UP),
                        "--report", report, "--run-folder", folder, *flags], check=True, stdout=subprocess.DEVNULL, timeout=SECONDS_MAX)
        told = json.loads(report.read_text())
    # One more iteration than is measured and warmed up with ends the run; its bytes are counted, its time is not.
    sent = sum(told["bytes_sent"]) * iterations / (iterations + WARM_UP + 1)
    if "--per-host" in flags:
        sent = ring_bytes(workers, elements, iterations)
    return figures(statistics.mean(told["iteration_seconds"]), sum(told["cpu_seconds"]), sent, elements)


def figures(seconds, cpu, sent, elements):
    return {"megabytes_per_second": 4e-6 * elements / seconds, "cpu_seconds_per_gb": 1e9 * cpu / sent}


def spread(values):
    values = sorted(values)
    return f"{statistics.median(values):8.3f} ({values[0]:.3f} to {values[-1]:.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2,4", help="numbers of processes, separated by commas")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=10)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--tls", action="store_true", help="Poseidon's links are encrypted; gloo's never are")
    way.add_argument("--shared-memory", action="store_true", help="Poseidon's workers combine in the memory of their host")
    parser.add_argument("--poseidon", type=pathlib.Path, default=ROOT / "build/bin/poseidon")
    parser.add_argument("--against", type=pathlib.Path, help="another build's command, instead of gloo")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    parser.add_argument("--gloo-worker", help=argparse.SUPPRESS)  # one process of the peer
    options = parser.parse_args()
    if options.gloo_worker:
        return gloo_worker(*map(int, options.gloo_worker.split(",")))
    elements = options.megabytes * 250_000
    flags = ["--tls"] if options.tls else ["--per-host", "on"] if options.shared_memory else []
    peer = "gloo" if options.against is None else str(options.against)
    print(f"{options.megabytes} MB float32, {options.iterations} iterations a round, {os.cpu_count()} cores; against {peer}")
    print(f"{'workers':>7} {'round':>5} {'MB/s':>8} {'peer':>8} {'ratio':>7} {'CPU s/GB':>9} {'peer':>7} {'ratio':>7}")
    rows = []
    for workers in map(int, options.workers.split(",")):
        for number in range(options.rounds):
            def our_turn():
                return poseidon(options.poseidon, workers, elements, options.iterations, flags)

            def their_turn():
                if options.against is None:
                    return gloo(workers, elements, options.iterations)
                return poseidon(options.against, workers, elements, options.iterations, flags)

            # Who goes first changes: on a busy machine the second was faster.
            if number % 2 == 0:
                ours, theirs = our_turn(), their_turn()
            else:
                theirs, ours = their_turn(), our_turn()
            ratio = {name: ours[name] / theirs[name] for name in ours}
            rows.append({"workers": workers, "poseidon": ours, "peer": theirs, "ratio": ratio})
            print(f"{workers:>7} {number + 1:>5} {ours['megabytes_per_second']:>8.1f} {theirs['megabytes_per_second']:>8.1f} "
                  f"{ratio['megabytes_per_second']:>7.3f} {ours['cpu_seconds_per_gb']:>9.3f} {theirs['cpu_seconds_per_gb']:>7.3f} "
                  f"{ratio['cpu_seconds_per_gb']:>7.3f}", flush=True)
        ratios = [row["ratio"] for row in rows if row["workers"] == workers]
        print(f"{workers:>7} median of the ratios (least to most): throughput {spread([r['megabytes_per_second'] for r in ratios])}, "
              f"CPU s/GB {spread([r['cpu_seconds_per_gb'] for r in ratios])}")
    if options.json:
        settings = {name: getattr(options, name) for name in ("megabytes", "iterations", "tls", "shared_memory")}
        options.json.write_text(json.dumps({**settings, "peer": peer, "cores": os.cpu_count(), "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
