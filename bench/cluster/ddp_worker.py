#!/usr/bin/env python3
"""One worker of PyTorch's DistributedDataParallel over gloo that computes nothing: it waits for each layer as long as a GPU would.

Started by ddp.py on every host. Gradients have the right sizes and really travel; there is no optimiser, since its time would be
the same for all systems.
"""
import argparse
import os
import pathlib

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from waiting import Device, Iterations, network


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
        return None, gradient, *(module.gradient(shape) for shape in context.shapes)


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
    device = Device()
    model = network(options.timeline, Layer, device)
    model = DistributedDataParallel(model, bucket_cap_mb=options.bucket_mb, static_graph=True, gradient_as_bucket_view=True,
                                    broadcast_buffers=False, init_sync=False)
    iterations = Iterations(options.warm_up, options.iterations)
    for _ in iterations:
        device.begin()
        # Its gradient is nobody's parameter; it makes the backward pass reach groups without parameters too.
        model(torch.zeros(1, requires_grad=True)).sum().backward()
        model.zero_grad(set_to_none=True)
    iterations.report(options.report)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
