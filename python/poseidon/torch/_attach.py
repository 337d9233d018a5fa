"""Where a script that knows nothing of Poseidon is entered: its optimisers, its forward passes, its data loaders, its losses."""
import functools
import json
import os
import platform
import sys
import weakref

import torch

from .. import _downloads, _overlay
from .._ending import Ending
from .._metrics import Metrics
from .._worker import local_rank, rank, size
from . import _batch_norm, _closures, _data, _dropout, _engine, _groups, _losses
from ._agreement import Agreement
from ._buffers import Buffers
from ._factors import Factors
from ._gradients import Gradients
from ._staging import choose_device
from ._steps import Steps

_gradients = None


def gradients():
    """What is synchronised in this process; None where it is no worker among several."""
    return _gradients


def attach():
    """Makes this process a worker of the job. Nothing changes where there is only one."""
    global _gradients
    if _gradients is not None or size() == 1:
        return
    choose_device()
    _gradients = Gradients()
    _groups.attach(_gradients)
    factors = Factors(_gradients)
    agreement = Agreement(_gradients)
    steps = Steps(_gradients, agreement.stepped)
    _watch_optimisers(_gradients, agreement, steps)
    _watch_forward_passes(_gradients, Buffers(_gradients))
    _data.attach(_gradients)
    _data.warn_where_nothing_is_cut(_gradients)
    _losses.attach(_gradients)
    _dropout.attach()
    if "POSEIDON_SYNC_BATCH_NORM" in os.environ:
        _batch_norm.attach(_gradients)
    _closures.attach(_gradients)
    _leave_to_the_script(_gradients)
    _watch_compilers(_gradients, factors)
    _tell_versions(_gradients)
    if "POSEIDON_RUN_FOLDER" in os.environ:
        torch.hub.urlopen = _downloads.install(rank(), local_rank(), os.path.join(os.environ["POSEIDON_RUN_FOLDER"], "downloads"))
    if rank() != 0 and "POSEIDON_ALL_RANKS_WRITE" not in os.environ:
        _write_elsewhere()
    # Children: workers of a DataLoader, programs that the script starts by forking.
    os.register_at_fork(after_in_child=_gradients.forsake)
    metrics = Metrics(_gradients)

    def last():
        metrics.tell()
        _groups.close()

    Ending(_gradients, _engine.JobError, last)


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


def _watch_optimisers(gradients, agreement, steps):
    add_param_group = torch.optim.Optimizer.add_param_group

    @functools.wraps(add_param_group)
    def add(self, param_group):
        result = add_param_group(self, param_group)
        gradients.add(self.param_groups[-1]["params"])
        agreement.add(self)
        steps.watch(self)
        return result

    torch.optim.Optimizer.add_param_group = add


def _watch_forward_passes(gradients, buffers):
    # Optimisers may be made before values are loaded into the parameters: what counts is what they are when something is computed with them.
    known = weakref.WeakSet()

    def before(module, inputs):
        if torch.compiler.is_compiling():
            return  # what is compiled has been called as a module, before which this was called
        if torch._C._are_functorch_transforms_active():
            return  # parameters are not what they seem there
        gradients.before_forward()
        # An extension that takes parameters from Python would not wait for them.
        # One that has been scripted computes with all that is below it, and calls none of it from here.
        for parameter in module.parameters() if isinstance(module, torch.jit.ScriptModule) else module._parameters.values():
            gradients.settle(parameter)
        # Hooks run outermost first, so one that is not known yet is no part of another whose buffers are.
        if gradients.has_begun or gradients.job is None or module in known:
            return
        known.update(module.modules())
        gradients.models.add(module)
        gradients.name(module)
        if module.training:
            buffers.make_equal(module)

    torch.nn.modules.module.register_module_forward_pre_hook(before)


def _leave_to_the_script(gradients):
    """A script, or a library that it uses, which is data-parallel by itself must not be averaged, or have its data cut, twice."""
    if not torch.distributed.is_available():
        return
    init = torch.distributed.init_process_group

    @functools.wraps(init)
    def initialised(backend=None, *arguments, **options):
        over = "poseidon" if backend is None or any(name in str(backend) for name in ("gloo", "nccl")) else backend
        if gradients.is_on:
            gradients.switch_off()
            if rank() == 0:
                instead = f", over the back end {over}" + (f" instead of {backend}" if backend not in (None, over) else "")
                print("poseidon: this script is data-parallel by itself (it calls init_process_group): Poseidon neither cuts its data nor averages "
                      f"its gradients, but moves them{instead}", file=sys.stderr, flush=True)
        return init(over, *arguments, **options)

    torch.distributed.init_process_group = initialised


def _watch_compilers(gradients, factors):
    """What has been compiled computes with parameters without looking at what they are."""
    compile = torch.compile

    @functools.wraps(compile)
    def compiled(*arguments, **options):
        if gradients.may_put_off:
            gradients.settle_all()
            gradients.may_put_off = False
            factors.switch_off()
            if rank() == 0:
                print("poseidon: torch.compile: gradients leave together when a compiled part has computed all of its own, travel densely, and are waited "
                      "for at the end of each backward pass", file=sys.stderr, flush=True)
        return compile(*arguments, **options)

    torch.compile = compiled


def _tell_versions(gradients):
    def tell():
        gradients.on_pass.remove(tell)
        gradients.job.note(json.dumps({"python": platform.python_version(), "torch": torch.__version__, "parameters": len(gradients.parameters),
                                       "elements": sum(p.numel() for p in gradients.parameters)}))

    gradients.on_pass.append(tell)
