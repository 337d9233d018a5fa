"""Where a script that knows nothing of Poseidon is entered: its optimisers, its forward passes, its data loaders, its losses."""
import atexit
import functools
import os
import sys

import torch

from .. import _overlay
from . import _closures, _data, _losses
from ._gradients import Gradients
from ._worker import rank, size

_gradients = None


def attach():
    """Makes this process a worker of the job. Nothing changes where there is only one."""
    global _gradients
    if _gradients is not None or size() == 1:
        return
    _gradients = Gradients()
    _watch_optimisers(_gradients)
    _data.attach(_gradients)
    _losses.attach()
    _closures.attach(_gradients)
    if rank() != 0 and "POSEIDON_ALL_RANKS_WRITE" not in os.environ:
        _write_elsewhere()
    _watch_the_end(_gradients)


def _write_elsewhere():
    """torch.save and torch.load hand paths to C++."""
    overlay = _overlay.install()
    save, load = torch.save, torch.load

    @functools.wraps(save)
    def saved(obj, f, *arguments, **options):
        return save(obj, overlay.writing(f, keeps=False), *arguments, **options)

    @functools.wraps(load)
    def loaded(f, *arguments, **options):
        return load(overlay.reading(f), *arguments, **options)

    torch.save, torch.load = saved, loaded


def _watch_optimisers(gradients):
    add_param_group = torch.optim.Optimizer.add_param_group

    @functools.wraps(add_param_group)
    def add(self, param_group):
        result = add_param_group(self, param_group)
        gradients.add(self.param_groups[-1]["params"])
        return result

    torch.optim.Optimizer.add_param_group = add
    # Optimisers may be made before values are loaded into the parameters: what counts is what they are when something is computed with them.
    torch.nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: gradients.before_forward())


def _watch_the_end(gradients):
    """A script that ends well leaves the job in order, one that raises ends it for all."""
    excepthook = sys.excepthook

    def on_exception(kind, value, traceback):
        gradients.failed = f"{kind.__name__}: {value}"
        excepthook(kind, value, traceback)

    sys.excepthook = on_exception
    atexit.register(gradients.close)
