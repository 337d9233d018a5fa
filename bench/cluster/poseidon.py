"""Poseidon's own workers: `poseidon replay` sends what training would send and waits where it would compute."""
import dataclasses
import json
import pathlib
import re
import shutil
import statistics
import time

from . import units
from .measurement import Run
from .meter import Meter, wait_for_idle
from .netns import Cluster
from .processes import Children, Failed

SCHEMES = ("auto", "ps", "sfb", "adam", "block")
# wfbp is the published schedule: overlap with the backward pass, in the order of arrival.
_SCHEDULES = {
    "full": ["--overlap", "full"],
    "wfbp": ["--overlap", "backward", "--no-priorities"],
    "backward": ["--overlap", "backward"],
    "none": ["--overlap", "none", "--no-priorities"],
}
# Below this share of a link's rate nothing but the chatter of a cluster at rest is on it.
_REST_SHARE = 0.005


@dataclasses.dataclass(frozen=True)
class Variant:
    """'poseidon', 'poseidon:ps', 'poseidon:wfbp', 'poseidon:ps:none': a scheme and a schedule, in any order. 'poseidon:servers=2'
    adds hosts that serve and do not train, 'poseidon:servers=2:alone' lets only them serve."""
    scheme: str = "auto"
    schedule: str = "full"
    servers: int = 0
    alone: bool = False

    @staticmethod
    def parse(name):
        chosen = {}
        for word in name.split(":")[1:]:
            count = re.fullmatch(r"servers=([1-9]\d*)", word)
            kind, value = (("servers", int(count[1])) if count else ("alone", True) if word == "alone" else
                           ("scheme", word) if word in SCHEMES else ("schedule", word) if word in _SCHEDULES else (None, None))
            if kind is None or kind in chosen:
                raise ValueError(f"'{name}': after 'poseidon' comes, with colons, one of {', '.join(SCHEMES)}, one of "
                                 f"{', '.join(_SCHEDULES)}, servers=K, alone, or one of each")
            chosen[kind] = value
        if "alone" in chosen and "servers" not in chosen:
            raise ValueError(f"'{name}': only servers=K can be alone")
        return Variant(**chosen)

    @property
    def flags(self):
        """Of `poseidon replay`."""
        servers = ["--servers", self.servers] if self.servers else []
        return ["--scheme", self.scheme, *_SCHEDULES[self.schedule], *servers, *(["--no-colocated"] if self.alone else [])]


def measure(task, variant, program, scratch):
    """A row for the table."""
    if not program.is_file():
        return {"status": "not built", "note": f"{program} is not there"}
    scratch = pathlib.Path(scratch)
    report_path, log, folder = scratch / "report.json", scratch / "replay.log", scratch / "run"
    report_path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    before = wait_for_idle(task.idle_wait_seconds)
    with Cluster(task.nodes + variant.servers, task.line, task.congestion_control) as cluster:
        command = [program, "replay", "--model", task.model_path, "--batch", task.batch,
                   "--images-per-second", task.samples_per_second, "--workers", task.nodes, "--dilation", f"{task.dilation:g}",
                   "--iterations", task.iterations, "--warm-up", task.warm_up, *variant.flags, "--bandwidth", units.format_rate(task.line), "--report", report_path,
                   "--run-folder", folder, "--start", cluster.start_pattern, "--listen", cluster.bridge_address]
        with Meter(cluster) as meter, Children() as children:
            children.start(command, log)
            children.wait(task.patience_seconds)
            end = time.monotonic()
        dropped = cluster.dropped_packets()
    if not report_path.exists():
        raise Failed(f"'{' '.join(map(str, command))}' wrote no report")
    report = json.loads(report_path.read_text())
    window = _measured_window(meter, report, end, task.line)
    schemes = {}
    for layer in report["layers"]:
        schemes.setdefault(layer["scheme"], []).append(layer["name"])
    # A server's figure is of all iterations, and of the one more that ends the last.
    measured_share = task.iterations / (task.warm_up + task.iterations + 1)
    cpu_seconds = report["cpu_seconds"] + [seconds * measured_share for seconds in report.get("server_cpu_seconds", [])]
    return Run(report["iteration_seconds"], cpu_seconds, window, meter.received_in_all(), dropped,
               {"cpu_share_before": before,
                "schemes": {scheme: names if scheme != "ps" else len(names) for scheme, names in schemes.items()},
                "waited_seconds": report.get("waited_seconds"), "bytes_sent": report.get("bytes_sent"),
                "bytes_received": report.get("bytes_received"), "reported_bound_seconds": report.get("bound_seconds")}).row(task)


def _measured_window(meter, report, end, line):
    """When the measured iterations were: as the report says (by the monotonic clock), else as the traffic lets one guess."""
    if "measured_begin" in report:
        return meter.window(report["measured_begin"], report["measured_end"])
    # An iteration lasts from one forward pass's beginning to the next one's, so the workers run one more iteration than they count.
    # The guess is good to one sample of the meter.
    seconds = report["iteration_seconds"]
    end = min(end, meter.last_traffic(line / 8 * _REST_SHARE)) - statistics.median(seconds)
    return meter.window(end - sum(seconds), end)
