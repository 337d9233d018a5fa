#!/usr/bin/env python3
"""One worker of PyTorch's DistributedDataParallel over gloo that computes nothing: it waits for each layer as long as a GPU would.

Started by ddp.py on every host. Gradients have the right sizes and really travel; there is no optimiser, since its time would be
the same for all systems.
"""
import argparse
import json
import math
import os
import pathlib
import resource
import time

import numpy
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel


class Device:
    """Stands in for a GPU's queue: layers follow each other without gaps, whatever the processor does meanwhile.

    Waits to absolute moments, so that neither a sleep's lateness nor DDP's own work adds up, and without the processor: time.sleep
    releases the interpreter's lock to gloo's threads.
    """

    def __init__(self):
        self._free_at = 0.0

    def begin(self):
        self._free_at = time.monotonic()

    def compute(self, seconds):
        self._free_at += seconds
        left = self._free_at - time.monotonic()
        if left > 0:
            time.sleep(left)


class Layer(torch.autograd.Function):
    """One group of layers: passes its input on, and returns gradients that lie in memory already."""

    @staticmethod
    def forward(context, module, x, *parameters):
        context.module = module
        context.shapes = [p.shape for p in parameters]
        module.device.compute(module.forward_seconds)
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        module = context.module
        module.device.compute(module.backward_seconds)
        gradients = (module.scratch[: math.prod(shape)].view(shape) for shape in context.shapes)
        return None, gradient, *gradients


class Group(torch.nn.Module):
    def __init__(self, description, device, scratch):
        super().__init__()
        self.device, self.scratch = device, scratch
        self.forward_seconds = description["forward_seconds"]
        self.backward_seconds = description["backward_seconds"]
        for index, shape in enumerate(description["shapes"]):
            # calloc's pages take no memory until somebody writes, and nobody does: there is no optimiser and no first broadcast.
            values = torch.from_numpy(numpy.zeros(shape, dtype=numpy.float32))
            self.register_parameter(f"p{index}", torch.nn.Parameter(values))

    def forward(self, x):
        return Layer.apply(self, x, *self.parameters(recurse=False))


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeline", type=pathlib.Path, required=True, help="JSON list of groups of layers")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--store", required=True, help="address:port of rank 0's store")
    parser.add_argument("--bucket-mb", type=float, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--report", type=pathlib.Path, required=True)
    options = parser.parse_args()

    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://{options.store}", rank=options.rank, world_size=options.nodes)
    timeline = json.loads(options.timeline.read_text())
    device = Device()
    # All gradients are views of one array: what the framework reads them from is not measured. Written once, so that it is memory.
    scratch = torch.full((max(math.prod(shape) for group in timeline for shape in group["shapes"]),), 1e-3)
    model = torch.nn.Sequential(*(Group(group, device, scratch) for group in timeline))
    model = DistributedDataParallel(model, bucket_cap_mb=options.bucket_mb, static_graph=True, gradient_as_bucket_view=True,
                                    broadcast_buffers=False, init_sync=False)
    seconds = []
    for iteration in range(options.warm_up + options.iterations):
        if iteration == options.warm_up:
            begin, cpu_begin = time.monotonic(), cpu_seconds()
        start = time.monotonic()
        device.begin()
        # Its gradient is nobody's parameter; it makes the backward pass reach groups without parameters too.
        model(torch.zeros(1, requires_grad=True)).sum().backward()
        model.zero_grad(set_to_none=True)
        seconds.append(time.monotonic() - start)
    report = {"iteration_seconds": seconds[options.warm_up:], "warm_up_seconds": seconds[: options.warm_up], "begin": begin,
              "end": time.monotonic(), "cpu_seconds": cpu_seconds() - cpu_begin,
              "memory_bytes_max": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    options.report.write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
