"""Decisions that an optimiser takes by the value of a loss are the same on all workers: they get the mean over the workers' parts."""
import functools

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from . import _data
from ._worker import size


def attach(gradients):
    def before_step(optimizer, arguments, options):
        if "closure" in options and callable(options["closure"]):
            return arguments, options | {"closure": _averaged(options["closure"], gradients)}
        if len(arguments) > 1 and callable(arguments[1]):  # the first is the optimiser
            return (arguments[0], _averaged(arguments[1], gradients), *arguments[2:]), options
        return None

    register_optimizer_step_pre_hook(before_step)


def _averaged(closure, gradients):
    @functools.wraps(closure)
    def averaged():
        value = closure()
        if value is None or gradients.job is None:
            return value
        mine, everybodys = _data.present_for() or (1, size())
        own = float(value) * mine / everybodys
        mean = sum(gradients.gather("tells the value of a closure", own))
        return torch.full_like(value.detach(), mean) if isinstance(value, torch.Tensor) else mean

    return averaged
