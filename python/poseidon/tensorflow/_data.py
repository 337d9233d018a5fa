"""Each worker takes its part of every batch, so that the sequence of global batches is that of one process.

A batch of K samples is cut into equal parts, to within one, in the order of ranks. A worker whose part is empty computes with one sample
that is another's, which counts for nothing.
"""
import collections
import functools
import itertools
import os
import sys
import weakref

import numpy
import tensorflow as tf
from tensorflow.python.eager import context

from .._seeds import seed_of_all
from .._worker import rank, size
from . import _operators

_has_cut = False   # batches have been cut outside of graphs
_has_said = False  # that they have not
_are_parts = weakref.WeakSet()  # data sets that are cut already

# Of a batch: this worker's samples, and how many they are.
Part = collections.namedtuple("Part", "content samples")


def attach(gradients):
    _shuffle_alike()
    if "POSEIDON_SHARD_DATASETS" in os.environ:
        _cut_where_it_trains(gradients)


def _cut_where_it_trains(gradients):
    """Of loops over a data set in the script. Whether one trains is seen when gradients are asked for meanwhile: from its second pass on, then, or
    at once where it is shuffled, as one would not for anything else."""
    iterate, shuffle = tf.data.Dataset.__iter__, tf.data.Dataset.shuffle
    shuffled, trains = weakref.WeakSet(), weakref.WeakSet()

    def is_shuffled(dataset):
        return dataset in shuffled or any(is_shuffled(source) for source in dataset._inputs())

    @functools.wraps(shuffle)
    def noticed(self, *arguments, **options):
        made = shuffle(self, *arguments, **options)
        shuffled.add(made)
        return made

    @functools.wraps(iterate)
    def cut(self):
        if self in _are_parts or not tf.executing_eagerly() or not gradients.is_on or gradients.is_in_keras():
            return iterate(self)
        if self in trains or is_shuffled(self):
            return iter(_Parts(self))
        _operators.take(0, 0)
        gradients.on_asked = functools.partial(trains.add, self)
        return iterate(self)

    tf.data.Dataset.shuffle, tf.data.Dataset.__iter__ = noticed, cut


def _shuffle_alike():
    """What the script shuffles without a seed is shuffled alike on all workers."""
    shuffle_dataset, shuffle = tf.data.Dataset.shuffle, tf.random.shuffle
    numbers = itertools.count()

    @functools.wraps(shuffle_dataset)
    def shuffled_dataset(self, buffer_size, seed=None, *arguments, **options):
        if seed is None and _has_no_seed():
            seed = seed_of_all() + next(numbers)
        return shuffle_dataset(self, buffer_size, seed, *arguments, **options)

    @functools.wraps(shuffle)
    def shuffled(value, seed=None, name=None):
        if seed is not None or not _has_no_seed() or not _is_in_dataset():
            return shuffle(value, seed, name)
        # An operator with a seed would draw the same permutation in each pass over the data.
        number, drawn = next(numbers), itertools.count()
        count = tf.numpy_function(lambda: numpy.int64(next(drawn)), [], tf.int64)
        return tf.random.experimental.stateless_shuffle(value, seed=[seed_of_all() + number, count])

    tf.data.Dataset.shuffle, tf.random.shuffle = shuffled_dataset, shuffled


def _has_no_seed():
    """Asking TensorFlow for the seeds that an operator would get gives the next one others."""
    return context.global_seed() is None and tf.compat.v1.get_default_graph().seed is None


def _is_in_dataset():
    """A function of tf.data's is being traced."""
    graph = tf.compat.v1.get_default_graph()
    return not tf.executing_eagerly() and getattr(graph, "name", "").startswith("Dataset")


def rows_of(batch):
    """How many samples a batch has: an integer, or a scalar in a graph."""
    for part in tf.nest.flatten(batch, expand_composites=False):
        if isinstance(part, tf.RaggedTensor):
            return part.nrows()
        if isinstance(part, tf.SparseTensor):
            return part.dense_shape[0]
        if isinstance(part, (tf.Tensor, numpy.ndarray)) and len(part.shape) > 0:
            return tf.shape(part, out_type=tf.int64)[0]
    return None


def part_of(batch):
    """This worker's."""
    rows = tf.cast(rows_of(batch), tf.int64)
    begin, end = rows * rank() // size(), rows * (rank() + 1) // size()
    samples = end - begin
    taken = tf.maximum(samples, 1)
    begin = tf.minimum(begin, rows - taken)

    def cut(part):
        if isinstance(part, tf.SparseTensor):
            others = part.dense_shape[1:]
            return tf.sparse.slice(part, tf.concat([[begin], tf.zeros_like(others)], 0), tf.concat([[taken], others], 0))
        if isinstance(part, (tf.Tensor, tf.RaggedTensor, numpy.ndarray)) and len(part.shape) > 0:
            return part[begin:begin + taken]
        return part

    return Part(tf.nest.map_structure(cut, batch), samples)


def parts(dataset):
    """Of a data set of batches: this worker's parts, as Part."""
    return dataset.map(lambda *batch: part_of(batch if len(batch) > 1 else batch[0]), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE)


def shard(batches):
    """What gives this worker's part of each batch: of a tf.data.Dataset of batches, to be iterated in Python, or of one batch (a tensor, an array,
    or such in tuples, lists and dicts). What is computed with a part counts for as many samples as it has."""
    if size() == 1:
        return batches
    if isinstance(batches, tf.data.Dataset):
        return _Parts(batches)
    rows = rows_of(batches)
    if rows is None:
        raise ValueError("there is no tensor in this batch that could be cut")
    if not tf.executing_eagerly():
        raise ValueError("poseidon.tensorflow.shard is called in a graph: cut the batch before it is handed to the function")
    return _taken(part_of(batches), int(rows))


class _Parts:
    """Of the batches of a data set. Each pass over the data begins anew, as with the data set itself."""

    def __init__(self, dataset):
        self._dataset = dataset
        self._parts = dataset.map(_with_rows).prefetch(tf.data.AUTOTUNE)
        _are_parts.add(self._parts)

    def __iter__(self):
        for part, rows in self._parts:
            yield _taken(part, int(rows))
        _operators.take(0, 0)

    def __len__(self):
        return len(self._dataset)

    @property
    def element_spec(self):
        return self._parts.element_spec[0].content


def _with_rows(*batch):
    batch = batch if len(batch) > 1 else batch[0]
    return part_of(batch), rows_of(batch)


def _taken(part, rows):
    took(int(part.samples), rows)
    return part.content


def took(samples, rows):
    """The script computes with so many samples of a batch of so many rows."""
    global _has_cut
    _has_cut = True
    _operators.take(samples, rows)


def warn_where_nothing_is_cut(flag):
    """Once, when the training begins; `flag` would have cut the batches."""
    global _has_said
    if _has_cut or _has_said or rank() != 0:
        return
    _has_said = True
    print("poseidon: this script takes its batches by itself, so every worker trains on ALL of each batch: the result is right and nothing is gained. "
          f"Start it with `poseidon run {flag}`, or cut them with `import poseidon.tensorflow; batches = poseidon.tensorflow.shard(batches)`",
          file=sys.stderr, flush=True)
