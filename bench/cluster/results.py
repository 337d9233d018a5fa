"""The rows of a matrix in one JSON file, which an interrupted run takes up again."""
import datetime
import json
import os
import pathlib
import platform
import subprocess

from . import units

# Measured once, these need no second time; the others may go better after a repair, or when nothing else runs.
_DONE = ("measured", "invalid", "does not fit")
# The rows of one file are comparable where these agree with what is asked; a row is found again by them.
_KEY = ("model", "nodes", "system", "equivalent", "dilation", "batch", "samples_per_second", "iterations", "warm_up",
        "congestion_control")


def is_done(row):
    """Whether a row that was found needs not be measured again."""
    return row is not None and row["status"] in _DONE


class Results:
    """A JSON file {environment, rows}, written after every row."""

    def __init__(self, path):
        self._path = path
        self.rows = []
        if path and path.exists():
            self.rows = json.loads(path.read_text())["rows"]

    def find(self, key):
        """The row of `key`, whatever became of it, or None."""
        return next((row for row in self.rows if _key_of(row) == _key_of(key)), None)

    def put(self, row):
        self.rows = [other for other in self.rows if _key_of(other) != _key_of(row)] + [row]
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".part")
            fresh.write_text(json.dumps({"rows": self.rows}, indent=1) + "\n")
            fresh.replace(self._path)  # whoever is interrupted here has the old file or the new one


def _key_of(row):
    return tuple(row[name] for name in _KEY)


def key(task, system):
    """The fields that say what a row measures."""
    return {"model": task.model["name"], "nodes": task.nodes, "system": system, "equivalent": units.format_rate(task.equivalent),
            "dilation": task.dilation, "batch": task.batch, "samples_per_second": task.samples_per_second,
            "iterations": task.iterations, "warm_up": task.warm_up, "congestion_control": task.congestion_control}


def reference(task):
    """What every system's row is compared with, dilated; and the line it ran on."""
    bounds = task.bounds
    scale = task.dilation
    return {"line": units.format_rate(task.line), "one_node_seconds": bounds.one_node * scale, "bound_seconds": bounds.best * scale,
            "bound_dense_seconds": bounds.dense * scale, "bound_dense_barrier_seconds": bounds.dense_barrier * scale}


def environment(program):
    """Where and when a row was measured."""
    import torch
    with open("/proc/cpuinfo") as lines:
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "processor": processor,
            "cores": os.cpu_count(), "kernel": platform.release(), "torch": torch.__version__,
            "commit": _output("git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "--short", "HEAD"),
            "poseidon": _output(str(program), "--version") if program.is_file() else None}


def _output(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
