"""Each worker takes its part of every batch, so that the sequence of global batches is that of one process.

Rank 0 draws the script's own sampler's batches of indices and tells the others. (If each went by what it draws itself they would part
ways as soon as something else draws from the same generator, for a part of its own size. They draw all the same: what the script draws
next shall be alike.) A batch of K samples is cut into equal parts, to within one, in the order of ranks. Of a data set that is a stream
every worker reads all samples of a batch, and keeps its part.

A worker whose part of a batch is empty computes with one sample that is another's, which counts for nothing.

Only loaders that are iterated for training are cut: those of evaluation are the script's own business on each worker. Evaluation is where no
gradients are recorded, or the model is in evaluation mode, the data come in order, and no backward pass follows.
A script that makes its batches by hand is told so, and what to do.
"""
import collections
import functools
import itertools
import operator
import os
import sys
import weakref

import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from .._worker import rank, size

# So many batches are drawn at a time, and no more when they have so many samples: they travel in one message.
_BATCHES = 256
_SAMPLES = 1 << 17

# How many batches this worker has taken, of all sources.
taken = 0

# (samples that are this worker's, all workers' together) of the latest batch of each source, the most recent source last.
_presents = {}


def _scale():
    """How many of the script's batches are one of all workers together."""
    return size() if os.environ.get("POSEIDON_BATCH") == "per-worker" else 1


def part_of(count):
    """Begin and end of this worker's part of so many."""
    return count * rank() // size(), count * (rank() + 1) // size()


def present_for(rows=None):
    """(mine, all) of the batch that a tensor of so many rows was made of: the latest that fits, or else the latest; None before there is one."""
    latest = None
    for present in reversed(_presents.values()):
        if rows is None or rows % max(present[0], 1) == 0:  # an empty part computes with one
            return present
        latest = latest or present
    return latest


def _come(source, sizes):
    global taken
    taken += 1
    _presents.pop(source, None)
    _presents[source] = sizes


def taken_part(count):
    """Slice of this worker's part of so many samples that a script has made by hand; what it computes with them counts for as much."""
    begin, end = part_of(count)
    _come("by hand", (end - begin, count))
    return slice(begin, end) if end > begin else slice(0, 1)


def warn_where_nothing_is_cut(gradients):
    def check():
        gradients.on_pass.remove(check)
        if not _presents and rank() == 0:
            print("poseidon: this script makes its batches by hand, so every worker trains on ALL of each batch: the result is right and nothing is "
                  "gained. Cut them with `import poseidon.torch; x, y = poseidon.torch.shard((x, y))`, or use a DataLoader.", file=sys.stderr, flush=True)

    gradients.on_pass.append(check)


def attach(gradients):
    index_sampler = DataLoader._index_sampler
    make_iterator = DataLoader.__iter__

    trains = weakref.WeakSet()  # loaders during whose iteration backward passes have been made
    uncut = weakref.WeakSet()   # the latest that was left alone, though gradients were recorded

    def notice():
        trains.update(uncut)
        uncut.clear()

    gradients.on_pass.append(notice)

    @functools.wraps(make_iterator)
    def iterate(self):
        uncut.clear()
        is_cut = gradients.is_on and torch.is_grad_enabled() and bool(gradients.parameters) and self._auto_collation
        if is_cut and self not in trains and _is_for_evaluation(self, gradients):
            uncut.add(self)
            _presents.clear()  # if this is training after all, every worker's part is all
            is_cut = False
        if not is_cut:
            self._poseidon_cut = None
            return make_iterator(self)
        cut = self.__dict__.setdefault("_poseidon_cuts", None)
        if cut is None:
            kind = _Stream if isinstance(self.dataset, IterableDataset) else _Parts
            cut = self._poseidon_cuts = kind(index_sampler.fget(self), gradients)
            self.collate_fn = cut.collate(self.collate_fn)
        self._poseidon_cut = cut
        cut.begin()
        return _Told(make_iterator(self), cut)

    DataLoader.__iter__ = iterate

    def sampler(self):
        cut = getattr(self, "_poseidon_cut", None)
        return index_sampler.fget(self) if cut is None else cut

    DataLoader._index_sampler = property(sampler)


def _is_for_evaluation(loader, gradients):
    """Probably; and if not, all workers see the same batches, since none are drawn."""
    is_in_order = isinstance(getattr(loader, "sampler", None), SequentialSampler)
    return is_in_order and len(gradients.models) > 0 and not any(model.training for model in gradients.models)


class _Cut:
    def __init__(self, sampler, gradients):
        self._sampler = sampler
        self._gradients = gradients

    def __len__(self):
        return -(-len(self._sampler) // _scale())

    def begin(self):
        """A pass over the data begins."""

    def _batches(self):
        """Those of all workers together: the script's, or as many of the script's as there are workers."""
        drawn = iter(self._sampler)
        while group := list(itertools.islice(drawn, _scale())):
            yield [sample for batch in group for sample in batch]


class _Parts(_Cut):
    """This worker's part of each batch of indices."""

    def __init__(self, sampler, gradients):
        super().__init__(sampler, gradients)
        self._sizes = collections.deque()  # (mine, all), of batches that have been drawn and not come yet

    def begin(self):
        self._sizes.clear()

    def __iter__(self):
        self._gradients.before_forward()
        drawn = self._batches()
        has_more = True
        while has_more:
            own = _draw(drawn)
            batches, has_more = self._gradients.gather("asks for the next batches", own if rank() == 0 else None)[0]
            for batch in batches:
                begin, end = part_of(len(batch))
                self._sizes.append((end - begin, len(batch)))
                yield [_index_of(plain) for plain in batch[begin:end] or batch[:1]]

    def collate(self, function):
        return function

    def take(self, batch):
        return self._sizes.popleft(), batch


def _draw(batches):
    """Some of the batches that are left, and whether there may be more."""
    drawn, samples = [], 0
    for batch in batches:
        drawn.append([_plain(index) for index in batch])
        samples += len(batch)
        if len(drawn) == _BATCHES or samples >= _SAMPLES:
            return drawn, True
    return drawn, False


def _plain(index):
    """An index of a data set, as JSON can write it: mostly a number, but a sampler of the script's own may draw others."""
    if isinstance(index, (str, float)):
        return index
    if isinstance(index, tuple):
        return {"tuple": [_plain(part) for part in index]}
    try:
        return operator.index(index)
    except TypeError:
        raise TypeError(f"a sampler draws {index!r}, of {type(index).__name__}: rank 0 cannot tell that to the other workers, only numbers, "
                        "strings and tuples of such") from None


def _index_of(plain):
    return tuple(_index_of(part) for part in plain["tuple"]) if isinstance(plain, dict) else plain


class _Stream(_Cut):
    """This worker's part of each batch that a stream gives."""

    def __iter__(self):
        return self._batches()

    def collate(self, function):
        return _CollatePart(function)

    def take(self, batch):
        return batch.sizes, batch.content


class _CollatePart:
    """Collates a part, in whatever process; says how large it was."""

    def __init__(self, function):
        self._function = function

    def __call__(self, samples):
        begin, end = part_of(len(samples))
        return _Sized(self._function(samples[begin:end] or samples[:1]), (end - begin, len(samples)))


class _Sized:
    def __init__(self, content, sizes):
        self.content, self.sizes = content, sizes

    def pin_memory(self):
        content = self.content.pin_memory() if hasattr(self.content, "pin_memory") else self.content
        return _Sized(content, self.sizes)


class _Told:
    """An iterator over batches that says how large the present one is."""

    def __init__(self, iterator, cut):
        self._iterator = iterator
        self._cut = cut

    def __iter__(self):
        return self

    def __next__(self):
        sizes, batch = self._cut.take(next(self._iterator))
        _come(id(self._cut), sizes)
        return batch

    def __getattr__(self, name):
        return getattr(self._iterator, name)
