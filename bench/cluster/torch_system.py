"""Poseidon's plug-in for PyTorch: `poseidon run` trains a script whose layers wait as long as a device would compute."""
import dataclasses
import json
import os
import pathlib
import shutil
import sys

from . import models, units
from .measurement import Run
from .meter import Meter, wait_for_idle
from .netns import Cluster
from .processes import Children


def measure(task, program, scratch):
    """A row for the table."""
    if not program.is_file():
        return {"status": "not built", "note": f"{program} is not there"}
    scratch = pathlib.Path(scratch)
    timeline, folder, ssh = scratch / "timeline.json", scratch / "run", scratch / "enter"
    shutil.rmtree(folder, ignore_errors=True)
    groups = models.timeline(task.model, task.samples_per_second, task.batch, task.dilation)
    timeline.write_text(json.dumps([dataclasses.asdict(group) for group in groups]))
    worker = pathlib.Path(__file__).with_name("torch_worker.py")
    flops = models.flops_per_second(task.model, task.samples_per_second, task.dilation)
    before = wait_for_idle(task.idle_wait_seconds)
    with Cluster(task.nodes, task.line, task.congestion_control) as cluster:
        _write_entrance(ssh, cluster)
        command = [program, "run", "-H", ",".join(host.address for host in cluster.hosts), "--ssh", ssh, "--network", cluster.network,
                   "--bandwidth", units.format_rate(task.line), "--dilation", f"{task.dilation:g}", "--all-ranks-write", "-o", folder,
                   "--env", "OMP_NUM_THREADS=1", "--",
                   sys.executable, worker, "--timeline", timeline, "--flops-per-second", f"{flops:.6g}", "--iterations", task.iterations, "--warm-up", task.warm_up,
                   "--report", scratch / "report-{rank}.json"]
        with Meter(cluster) as meter, Children() as children:
            children.start(command, scratch / "run.log", {**os.environ, "OMP_NUM_THREADS": "1"})
            children.wait(task.patience_seconds)
        dropped = cluster.dropped_packets()
    found = [json.loads((scratch / f"report-{rank}.json").read_text()) for rank in range(task.nodes)]
    slowest = max(found, key=lambda report: sum(report["iteration_seconds"]))
    window = meter.window(min(report["begin"] for report in found), max(report["end"] for report in found))
    schemes = {}
    for layer in json.loads((folder / "plan.json").read_text())["layers"]:
        schemes.setdefault(layer["scheme"], []).append(layer["name"])
    return Run(slowest["iteration_seconds"], [report["cpu_seconds"] for report in found], window, meter.received_in_all(), dropped,
               {"cpu_share_before": before, "warm_up_seconds": slowest["warm_up_seconds"],
                "schemes": {scheme: names if scheme != "ps" else len(names) for scheme, names in schemes.items()},
                "memory_bytes_max": max(report["memory_bytes_max"] for report in found)}).row(task)


def _write_entrance(path, cluster):
    """What `poseidon run` takes for ssh: enters the host of that address."""
    cases = "".join(f'{host.address}) exec {" ".join(host.prefix)} sh -c "$command" ;;\n' for host in cluster.hosts)
    path.write_text('#!/bin/sh\nfor word in "$@"; do host="$command"; command="$word"; done\ncase "$host" in\n' + cases + '*) exit 255 ;;\nesac\n')
    path.chmod(0o755)
