"""What a script may call by itself."""

import torch

from .._worker import size
from . import _attach, _data, _losses


def init():
    """Attaches Poseidon to PyTorch, before optimisers are made. `poseidon run` has done it already; calling it again changes nothing."""
    _attach.attach()


def distribute(model, optimizer):
    """The two themselves: they are trained by all workers together from here on, with rank 0's values. Says so where there is no optimiser of
    PyTorch's, in which Poseidon would find the parameters."""
    gradients = _attach.gradients()
    if gradients is None:
        return model, optimizer
    gradients.add([parameter for group in optimizer.param_groups for parameter in group["params"]])
    missing = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.numel() > 0 and not gradients.knows(parameter)]
    if missing:
        raise ValueError(f"the optimiser does not have {missing[0]}" + (f" and {len(missing) - 1} more parameters" if len(missing) > 1 else "") +
                         " of the model: freeze what is not to be trained, or give it to an optimiser before")
    return model, optimizer


def shard(batch):
    """This worker's part of a batch: of a tensor, or of every tensor in tuples, lists and dicts, along the first dimension. What is computed
    with it counts for as many samples as it has."""
    if size() == 1:
        return batch
    rows = _rows(batch)
    if rows is None:
        raise ValueError("there is no tensor in this batch that could be cut")
    part = _data.taken_part(rows)
    return _cut(batch, part, rows)


def _rows(batch):
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.dim() > 0 else None
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else ()
    found = {rows for rows in map(_rows, parts) if rows is not None}
    if len(found) > 1:
        raise ValueError(f"the tensors of this batch have different numbers of samples: {sorted(found)}")
    return next(iter(found), None)


def _cut(batch, part, rows):
    if isinstance(batch, torch.Tensor):
        return batch[part] if batch.dim() > 0 and batch.shape[0] == rows else batch
    if isinstance(batch, dict):
        return type(batch)({key: _cut(value, part, rows) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(value, part, rows) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_cut(value, part, rows) for value in batch)
    return batch


def scale_loss(loss, reduction="mean"):
    """For a loss that is written by hand: a mean, or a sum, over this worker's part of the batch. Its value is unchanged; its gradient becomes
    what it must be for the average over workers to be that of the global batch. (PyTorch's own losses need no such call.)"""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}, and must be 'mean' or 'sum'")
    if size() == 1 or _attach.gradients() is None:
        return loss
    return _losses.of_hand_written(loss, reduction)


def offer_factors(weight, outputs, inputs):
    """For an autograd function of your own, in its backward: the gradient of `weight` [M, N] is outputsᵀ inputs, of [rows, M] and [rows, N], and
    of nothing else. True: they travel instead of the product, and the function returns None for the weight."""
    gradients = _attach.gradients()
    return gradients is not None and gradients.factors.offer(weight, outputs, inputs)


def all_gather_object(value):
    """What all workers have given, by rank: small things that JSON can write. Waits for all."""
    gradients = _attach.gradients()
    if gradients is None:
        return [value]
    gradients.before_forward()
    gradients.joined()
    return gradients.gather("calls for all workers", value)


def barrier():
    """Waits until all workers have come here."""
    all_gather_object(None)
