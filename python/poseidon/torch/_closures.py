"""Decisions that an optimiser, or the schedule of its learning rate, takes by the value of a loss are the same on all workers: they get the
mean over the workers' parts."""
import functools

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from .._worker import size
from . import _data


def attach(gradients):
    def before_step(optimizer, arguments, options):
        if "closure" in options and callable(options["closure"]):
            return arguments, options | {"closure": _averaged(options["closure"], gradients)}
        if len(arguments) > 1 and callable(arguments[1]):  # the first is the optimiser
            return (arguments[0], _averaged(arguments[1], gradients), *arguments[2:]), options
        return None

    register_optimizer_step_pre_hook(before_step)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    step = plateau.step

    @functools.wraps(step)
    def stepped(scheduler, metrics, *arguments, **options):
        return step(scheduler, _agreed(metrics, gradients), *arguments, **options)

    plateau.step = stepped


def _agreed(metric, gradients):
    """A metric of the script's: all workers' own, where they have evaluated the same, and otherwise the mean."""
    if gradients.job is None or not gradients.is_on:
        return metric
    everybodys = gradients.gather("tells the metric of a ReduceLROnPlateau", float(metric))
    return everybodys[0] if len(set(everybodys)) == 1 else sum(everybodys) / len(everybodys)


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
