"""torch.distributed's back end `poseidon`: process groups over the links of the job, and what a script may do with tensors of all workers."""
import zlib

import torch
import torch.distributed

from .._worker import rank, size
from . import _engine

_EVERYBODY = 0   # the channel of the group of all workers that has no name of torch.distributed's
_names = {}      # by channel: whose it is
_everybody = None
_gradients = None  # what is synchronised in this process; None where it is no worker among several


def attach(gradients):
    """This process is a worker of a job."""
    global _gradients
    _gradients = gradients


def register():
    """From now on torch.distributed.init_process_group("poseidon") is possible."""
    if torch.distributed.is_available() and not hasattr(torch.distributed.Backend, "POSEIDON"):
        torch.distributed.Backend.register_backend("poseidon", _create, extended_api=True, devices=["cpu", "cuda"])


def _create(options, _back_end_options):
    # torch.distributed gives the group of all processes no list.
    ranks = list(options.global_ranks_in_group) or list(range(options.group_size))
    return _group(options.group_id, ranks, options.group_rank)


def _group(name, ranks, own):
    if len(ranks) == 1:
        return _engine.Collectives(None, _EVERYBODY, ranks, 0)
    if _gradients is None:
        raise RuntimeError(f"a process group of {len(ranks)} processes over the back end poseidon needs a job: start the script with `poseidon run`")
    if max(ranks) >= size():
        raise RuntimeError(f"a process group has rank {max(ranks)}, and the job has {size()} workers")
    channel = zlib.crc32(name.encode()) or 1
    if _names.setdefault(channel, name) != name:
        raise RuntimeError(f"the process groups {_names[channel]} and {name} cannot be told apart: give one of them another name")
    return _engine.Collectives(_gradients.joined(), channel, ranks, own)


def of_all():
    """The group of all workers; None where this process is none among several."""
    global _everybody
    if _everybody is None and _gradients is not None:
        _everybody = _engine.Collectives(_gradients.joined(), _EVERYBODY, list(range(size())), rank())
    return _everybody


def all_reduce(tensor, operation="sum"):
    """The sum ("mean", "min", "max", "product") of all workers' tensors, in its place: in the order of ranks, so of the same bits everywhere.
    Waits for all."""
    operations = {"sum": "SUM", "mean": "AVG", "min": "MIN", "max": "MAX", "product": "PRODUCT"}
    if operation not in operations:
        raise ValueError(f"operation is {operation!r}, and must be one of {', '.join(operations)}")
    group = of_all()
    if group is not None:
        options = torch.distributed.distributed_c10d.AllreduceOptions()
        options.reduceOp = getattr(torch.distributed.ReduceOp, operations[operation])
        group.allreduce([tensor], options).wait()
    return tensor


def broadcast(tensor, root=0):
    """One worker's tensor, in place of all others'. Waits for it."""
    if not 0 <= root < size():
        raise ValueError(f"root is {root}, and there are {size()} workers")
    group = of_all()
    if group is not None:
        options = torch.distributed.distributed_c10d.BroadcastOptions()
        options.rootRank = root
        group.broadcast([tensor], options).wait()
    return tensor


def close():
    """Before the worker leaves: groups refer to its links."""
    global _everybody
    _everybody = None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
