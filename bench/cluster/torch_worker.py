#!/usr/bin/env python3
"""An ordinary PyTorch script, but for layers that wait instead of computing: what `poseidon:torch` has `poseidon run` train.

It has real autograd, an optimiser (that never steps) and a loop; of Poseidon it only knows that a layer of one's own may offer its factors.
"""
import argparse
import os
import pathlib

import torch

import poseidon.torch as ps
from poseidon.torch._attach import gradients
from poseidon.torch._engine import WaitedDevice
from waiting import Iterations, network


class Layer(torch.autograd.Function):
    """One group of layers: passes its input on, and returns gradients that lie in memory already."""

    waited_seconds = 0.0  # by the script, for sums, until the layer before

    @staticmethod
    def forward(context, module, x, *parameters):
        context.module = module
        # A layer looks at its parameters first, which are waited for then.
        context.save_for_backward(*parameters)
        context.shapes = [p.shape for p in parameters]
        job = gradients().job
        if job is not None and job.waited_seconds != Layer.waited_seconds:
            # They were not there before now. (Otherwise the script is ahead of the device, whose work follows without a gap.)
            Layer.waited_seconds = job.waited_seconds
            module.device.catch_up()
        module.device.compute(module.forward_seconds)
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        module = context.module
        module.device.compute(module.backward_seconds)
        gradients = []
        for parameter, shape in zip(context.saved_tensors, context.shapes):
            rows = module.factor_rows if len(shape) == 2 else 0
            is_taken = rows and ps.offer_factors(parameter, module.gradient((rows, shape[0])), module.gradient((rows, shape[1])))
            gradients.append(None if is_taken else module.gradient(shape))
        return None, gradient, *gradients


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeline", type=pathlib.Path, required=True, help="JSON list of groups of layers")
    parser.add_argument("--flops-per-second", type=float, required=True, help="of the device that is waited for")
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--report", required=True, help="file; {rank} is replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Products of factors take turns with the layers on it.
    device = gradients().products_on = WaitedDevice(options.flops_per_second)
    model = network(options.timeline, Layer, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    iterations = Iterations(options.warm_up, options.iterations)
    # The device is never reset: an iteration begins when the one before has computed all.
    device.catch_up()
    for _ in iterations:
        # Its gradient is nobody's parameter; it makes the backward pass reach groups without parameters too.
        model(torch.zeros(1, requires_grad=True)).sum().backward()
        optimizer.zero_grad()
    iterations.report(pathlib.Path(options.report.format(rank=os.environ["RANK"])))


if __name__ == "__main__":
    main()
