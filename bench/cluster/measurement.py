"""What is asked of a system, and what one run of it gives."""
import dataclasses
import functools
import math
import os
import pathlib
import statistics

from . import bound, models

# Above this share of all cores the processor, which is not slowed down, decides with the links.
CPU_SHARE_MAX = 0.80
# What an idle machine's daemons, and other machines of its host, may use beside the run; they use 2 % or so. Above this the row
# measured something else as well.
ELSEWHERE_SHARE_MAX = 0.08


# For the choice of a dilation. A GB through a shaper costs some 1.3 CPU seconds at both ends with interrupts, and some more in what
# sends and sums it; a dense all-reduce, which moves the most, shall not need more than this share of the cores for it.
_CPU_SECONDS_PER_GB = 1.6
_CPU_SHARE_AIM = 0.5
# What two cores carry for a while, over all hosts: where a model computes for most of its iteration the mean says too little.
_BITS_PER_SECOND_MAX = 16e9
_DILATIONS = (1, 2, 4, 5, 8, 10, 12.5, 16, 20, 25, 40, 50, 100)


@dataclasses.dataclass(frozen=True)
class Task:
    """One cell of the matrix, but for the system."""
    model: dict
    model_path: pathlib.Path
    batch: int
    samples_per_second: float
    nodes: int
    equivalent: int  # bits per second that the shaped links stand in for
    dilation: float
    iterations: int
    warm_up: int
    congestion_control: str
    idle_wait_seconds: float  # how long each run may wait for the machine to be idle

    @property
    def line(self):
        """Bits per second of the shaped links."""
        return round(self.equivalent / self.dilation)

    @functools.cached_property
    def bounds(self):
        return bound.bounds(self.model, self.samples_per_second, self.batch, self.nodes, self.equivalent)

    @property
    def patience_seconds(self):
        """How long a run may take before it counts as hanging: some times what it takes without any overlap."""
        serial = self.bounds.dense_serial * self.dilation
        return 120 + 4 * serial * (self.warm_up + self.iterations)


def dilated(task):
    """The task with the least dilation that the processor can carry, since what is not dilated weighs less the larger it is."""
    numbers = sum(models.parameter_counts(task.model))
    gigabytes = 2 * (task.nodes - 1) * 4 * numbers / 1e9  # that all hosts together receive
    needed = max(gigabytes * _CPU_SECONDS_PER_GB / (os.cpu_count() * _CPU_SHARE_AIM * task.bounds.dense_barrier),
                 task.equivalent * task.nodes / _BITS_PER_SECOND_MAX)
    return dataclasses.replace(task, dilation=next((d for d in _DILATIONS if d >= needed), math.ceil(needed)))


@dataclasses.dataclass
class Run:
    """One run of a system that ended well. Seconds are dilated."""
    iteration_seconds: list
    cpu_seconds: list  # per worker and server, user and system, during the measured iterations
    window: object     # meter.Window of the measured iterations
    wire_bytes_in_all: list  # per host, the whole run with its start and end, to check a system's own count against
    dropped_packets: int
    details: dict = dataclasses.field(default_factory=dict)

    def row(self, task):
        """The figures of this run, ready for JSON."""
        bounds = task.bounds
        median = statistics.median(self.iteration_seconds)
        wire_bytes = sum(self.window.received)
        elsewhere, stolen = self.window.cpu_share_elsewhere, self.window.cpu_share_stolen
        status, note = "measured", ""
        if elsewhere + stolen > ELSEWHERE_SHARE_MAX:
            status, note = "disturbed", f"something else used {elsewhere:.0%} of the CPU, other machines of this one's host {stolen:.0%}"
        elif self.window.cpu_share > CPU_SHARE_MAX:
            status, note = "invalid", f"the CPU was busy for more than {CPU_SHARE_MAX:.0%}"
        return {
            "status": status,
            "note": note,
            "iteration_seconds": self.iteration_seconds,
            "median_seconds": median,
            "least_seconds": min(self.iteration_seconds),
            "most_seconds": max(self.iteration_seconds),
            "bound_share": bounds.best * task.dilation / median,
            "dense_barrier_share": bounds.dense_barrier * task.dilation / median,
            "speed_up": task.nodes * bounds.one_node * task.dilation / median,
            "link_use": max(self.window.received) * 8 / self.window.seconds / task.line,
            "wire_bytes_per_iteration": wire_bytes / self.window.seconds * statistics.mean(self.iteration_seconds),
            "wire_bytes_in_all": self.wire_bytes_in_all,
            "cpu_seconds_per_gb": sum(self.cpu_seconds) / (wire_bytes / 1e9) if wire_bytes else None,
            "cpu_seconds": self.cpu_seconds,
            "cpu_share": self.window.cpu_share,
            "cpu_share_elsewhere": elsewhere,
            "cpu_share_stolen": stolen,
            "cpu_share_links": self.window.cpu_share_links,
            "cpu_share_peak": self.window.cpu_share_peak,
            "dropped_packets": self.dropped_packets,
            **self.details,
        }
