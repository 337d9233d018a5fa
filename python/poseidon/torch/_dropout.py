"""Dropout draws other masks on each worker: with equal seeds all would drop the same units for their parts of a batch.

Rank 0 draws as the script's one process would. The others draw from generators of their own, so that what else they draw (a permutation of the
data, made by the script itself) stays alike.
"""
import functools

import torch

from ._worker import rank

_generators = {}  # by device


def attach():
    if rank() == 0:
        return
    functional = torch.nn.functional
    dropout = functional.dropout

    @functools.wraps(dropout)
    def drawn_here(input, p=0.5, training=True, inplace=False):
        if not training or not 0 < p < 1 or torch.compiler.is_compiling() or not isinstance(input, torch.Tensor):
            return dropout(input, p, training, inplace)
        mask = torch.empty_like(input, requires_grad=False).bernoulli_(1 - p, generator=_generator(input.device)).div_(1 - p)
        return input.mul_(mask) if inplace else input * mask

    functional.dropout = drawn_here


def _generator(device):
    if device not in _generators:
        # As reproducible as the script is.
        _generators[device] = torch.Generator(device).manual_seed(torch.initial_seed() + rank())
    return _generators[device]
