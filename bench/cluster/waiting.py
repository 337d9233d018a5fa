"""A network that computes nothing and waits as long as a device would: what workers of frameworks train here.

Gradients have the right sizes, lie in memory already, and really travel; there is no optimiser's arithmetic, since its time would be the
same for all systems.
"""
import json
import math
import resource
import time

import numpy
import torch


class Device:
    """Stands in for a GPU's queue: layers follow each other without gaps, whatever the processor does meanwhile.

    Waits to absolute moments, so that neither a sleep's lateness nor the framework's own work adds up, and without the processor: time.sleep
    releases the interpreter's lock to other threads.
    """

    def __init__(self):
        self._free_at = 0.0

    def begin(self):
        self._free_at = time.monotonic()

    def compute(self, seconds):
        # What a layer waits for (its parameters' last step) was not there before now.
        self._free_at += seconds
        left = self._free_at - time.monotonic()
        if left > 0:
            time.sleep(left)

    def catch_up(self):
        """The device has had nothing to do until now."""
        self._free_at = max(self._free_at, time.monotonic())


class Group(torch.nn.Module):
    """A layer with parameters, and those without that follow it."""

    def __init__(self, description, device, scratch, function):
        super().__init__()
        self.device, self.scratch, self.function = device, scratch, function
        self.forward_seconds = description["forward_seconds"]
        self.backward_seconds = description["backward_seconds"]
        self.factor_rows = description["factor_rows"]
        for index, shape in enumerate(description["shapes"]):
            # calloc's pages take no memory until somebody writes, and nobody does: there is no optimiser and no first broadcast.
            self.register_parameter(f"p{index}", torch.nn.Parameter(torch.from_numpy(numpy.zeros(shape, dtype=numpy.float32))))

    def forward(self, x):
        return self.function.apply(self, x, *self.parameters(recurse=False))

    def gradient(self, shape):
        return self.scratch[: math.prod(shape)].view(shape)


def network(timeline, function, device):
    """The groups of a timeline file, which compute on the device. All gradients are views of one array."""
    descriptions = json.loads(timeline.read_text())
    largest = max(max(math.prod(shape), group["factor_rows"] * sum(shape) if len(shape) == 2 else 0)
                  for group in descriptions for shape in group["shapes"])
    # Written once, so that it is memory.
    scratch = torch.full((largest,), 1e-3)
    return torch.nn.Sequential(*(Group(group, device, scratch, function) for group in descriptions))


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Iterations:
    """Times iterations, and reports."""

    def __init__(self, warm_up, iterations):
        self._warm_up, self._iterations = warm_up, iterations
        self._seconds = []

    def __iter__(self):
        for iteration in range(self._warm_up + self._iterations):
            if iteration == self._warm_up:
                self._begin, self._cpu = time.monotonic(), cpu_seconds()
            start = time.monotonic()
            yield iteration
            self._seconds.append(time.monotonic() - start)
        self._end, self._cpu = time.monotonic(), cpu_seconds() - self._cpu

    def report(self, path, **more):
        path.write_text(json.dumps({"iteration_seconds": self._seconds[self._warm_up:], "warm_up_seconds": self._seconds[: self._warm_up],
                                    "begin": self._begin, "end": self._end, "cpu_seconds": self._cpu,
                                    "memory_bytes_max": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, **more}))
