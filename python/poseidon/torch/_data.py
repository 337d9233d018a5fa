"""Each worker takes its part of every batch, so that the sequence of global batches is that of one process.

Rank 0 draws the script's own sampler's batches of indices and tells the others. (If each drew for itself they would part ways as soon
as dropout draws from the same generator.) A batch of K indices is cut into equal parts, to within one, in the order of ranks.
"""
import base64
import collections
import functools
import json

import torch
from torch.utils.data import DataLoader

from ._worker import rank, size

# So many batches are drawn at a time.
_BATCHES = 256

# How many samples of the present batch are this worker's, and how many all workers' together; None before there is one.
present = None


def attach(gradients):
    index_sampler = DataLoader._index_sampler
    make_iterator = DataLoader.__iter__

    @functools.wraps(make_iterator)
    def iterate(self):
        self._poseidon_parts = _is_training(self, gradients)
        iterator = make_iterator(self)
        return _Told(iterator, self._poseidon_parts.sizes) if self._poseidon_parts else iterator

    def sampler(self):
        return getattr(self, "_poseidon_parts", None) or index_sampler.fget(self)

    DataLoader.__iter__ = iterate
    DataLoader._index_sampler = property(sampler)

    def _is_training(loader, gradients):
        if not torch.is_grad_enabled() or not gradients.parameters or isinstance(loader.dataset, torch.utils.data.IterableDataset):
            return None
        if loader.batch_sampler is None:
            return None
        return _Parts(index_sampler.fget(loader), gradients)


class _Parts:
    """This worker's part of each batch of a sampler."""

    def __init__(self, sampler, gradients):
        self._sampler = sampler
        self._gradients = gradients
        self.sizes = collections.deque()  # (mine, all), of batches that have been drawn

    def __len__(self):
        return len(self._sampler)

    def __iter__(self):
        self._gradients.before_forward()
        drawn = iter(self._sampler) if rank() == 0 else None
        while True:
            batches = [list(map(int, batch)) for batch, _ in zip(drawn, range(_BATCHES))] if drawn is not None else None
            for batch in self._share(batches):
                begin, end = (len(batch) * r // size() for r in (rank(), rank() + 1))
                self.sizes.append((end - begin, len(batch)))
                yield batch[begin:end]
            if self._ended:
                return

    def _share(self, batches):
        own = json.dumps(batches) if batches is not None else ""
        told = self._gradients.job.gather(own)[0]
        all_batches = json.loads(told)
        self._ended = len(all_batches) < _BATCHES
        return all_batches


class _Told:
    """An iterator over batches that says how large the present one is."""

    def __init__(self, iterator, sizes):
        self._iterator = iterator
        self._sizes = sizes

    def __iter__(self):
        return self

    def __next__(self):
        global present
        batch = next(self._iterator)
        present = self._sizes.popleft()
        return batch

    def __getattr__(self, name):
        return getattr(self._iterator, name)
