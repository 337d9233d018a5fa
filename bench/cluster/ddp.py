"""PyTorch DistributedDataParallel over gloo: each size of bucket is tried, and the best one measured in full."""
import dataclasses
import json
import os
import pathlib
import sys

from . import models
from .measurement import Run
from .meter import Meter, wait_for_idle
from .netns import Cluster
from .processes import Children

# PyTorch's default is 25. Small buckets overlap more and ask gloo for more operations.
BUCKETS_MB = (1, 25, 100)
# Enough to tell sizes apart that differ by more than a per cent or two: DDP settles its buckets in the first iteration.
_TRIAL_WARM_UP, _TRIAL_ITERATIONS = 1, 2
# What a process with torch has before any parameter.
_PROCESS_BYTES = 250 << 20
_STORE_PORT = 29500  # in a namespace of our own any port is free


def memory_bytes(model, nodes):
    """What all workers need at the most. When DDP rebuilds its buckets in the order of gradients it has them twice."""
    counts = models.parameter_counts(model)
    return nodes * (_PROCESS_BYTES + 4 * (2 * sum(counts) + max(counts)))


def available_bytes():
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def measure(task, scratch, earlier):
    """A row for the table. `earlier` is a disturbed row of the same task or None: what is good in it is not measured again."""
    known = {row["bucket_mb"]: row for row in (earlier or {}).get("attempts", []) if row["status"] != "disturbed"}
    needed, available = memory_bytes(task.model, task.nodes), available_bytes()
    if needed > available:
        return {"status": "does not fit", "note": f"needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} are free"}
    trial = dataclasses.replace(task, warm_up=min(task.warm_up, _TRIAL_WARM_UP), iterations=min(task.iterations, _TRIAL_ITERATIONS))
    attempts = []
    for bucket in BUCKETS_MB:
        row = known.get(bucket) or _run(trial, bucket, scratch).row(trial)
        print(f"    buckets of {bucket} MB: {row['median_seconds']:.3f} s, CPU {row['cpu_share']:.0%} {row['note']}", flush=True)
        attempts.append(row)
    best = min(attempts, key=lambda row: row["median_seconds"])
    row = _run(task, best["bucket_mb"], scratch).row(task)
    disturbed = [attempt for attempt in attempts if attempt["status"] == "disturbed"]
    if disturbed:  # the best of three is known only where all three had the machine for themselves
        row = {**row, "status": "disturbed", "note": disturbed[0]["note"]}
    return {**row, "attempts": attempts}


def _run(task, bucket, scratch):
    scratch = pathlib.Path(scratch)
    timeline = scratch / "timeline.json"
    groups = models.timeline(task.model, task.samples_per_second, task.batch, task.dilation)
    timeline.write_text(json.dumps([dataclasses.asdict(group) for group in groups]))
    reports = [scratch / f"report-{rank}.json" for rank in range(task.nodes)]
    worker = pathlib.Path(__file__).with_name("ddp_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = wait_for_idle(task.idle_wait_seconds)
    with Cluster(task.nodes, task.line, task.congestion_control) as cluster:
        with Meter(cluster) as meter, Children() as children:
            for host, report in zip(cluster.hosts, reports):
                children.start([*host.prefix, sys.executable, worker, "--timeline", timeline, "--rank", host.rank,
                                "--nodes", task.nodes, "--store", f"{cluster.hosts[0].address}:{_STORE_PORT}",
                                "--bucket-mb", bucket, "--iterations", task.iterations, "--warm-up", task.warm_up,
                                "--report", report],
                               scratch / f"worker-{host.rank}.log", environment)
            children.wait(task.patience_seconds)
        dropped = cluster.dropped_packets()
    found = [json.loads(report.read_text()) for report in reports]
    # A barrier ends each iteration, so all workers' times agree but for milliseconds; the slowest one's count.
    slowest = max(found, key=lambda report: sum(report["iteration_seconds"]))
    window = meter.window(min(report["begin"] for report in found), max(report["end"] for report in found))
    return Run(slowest["iteration_seconds"], [report["cpu_seconds"] for report in found], window, meter.received_in_all(), dropped,
               {"bucket_mb": bucket, "cpu_share_before": before, "warm_up_seconds": slowest["warm_up_seconds"],
                "memory_bytes_max": max(report["memory_bytes_max"] for report in found)})
