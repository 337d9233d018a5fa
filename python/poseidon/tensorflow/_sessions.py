"""Graphs and sessions of TensorFlow 1: the first training step gives all workers rank 0's values, and batches that are fed are cut where
POSEIDON_SPLIT_FEEDS asks for it.

A session runs anything: what initialises, what restores, what evaluates. A training step is a run that needs a sum over the workers.
"""
import functools
import os
import weakref

import numpy
import tensorflow as tf
from tensorflow.python.client import session
from tensorflow.python.framework import ops

from .._worker import rank, size
from . import _data, _operators

_OURS = {"PoseidonSum"}


def attach(gradients):
    run = session.BaseSession.run
    training = weakref.WeakKeyDictionary()  # by graph: what has been fetched so far, and whether it trains
    splits = "POSEIDON_SPLIT_FEEDS" in os.environ

    def trains(graph, fetches):
        operations = [graph.as_graph_element(fetch) for fetch in _fetched(fetches)]
        operations = frozenset(getattr(operation, "op", operation) for operation in operations)
        known = training.setdefault(graph, {})
        if operations not in known:
            known[operations] = _reaches(operations)
        return known[operations]

    @functools.wraps(run)
    def watched(self, fetches, feed_dict=None, *arguments, **options):
        if gradients.is_on and gradients.knows(self.graph) and trains(self.graph, fetches):
            gradients.share_from(lambda variables: run(self, variables),
                                 lambda variables, values: run(self, [variable.initializer for variable in variables],
                                                               {variable.initializer.inputs[1]: value for variable, value in zip(variables, values)}))
            if splits and feed_dict:
                feed_dict = _split(feed_dict)
            _data.warn_where_nothing_is_cut("--split-feeds")
        return run(self, fetches, feed_dict, *arguments, **options)

    session.BaseSession.run = watched
    _leave_out_when_saved()


def _fetched(fetches):
    if isinstance(fetches, dict):
        fetches = list(fetches.values())
    if isinstance(fetches, (list, tuple)):
        return [fetch for part in fetches for fetch in _fetched(part)]
    if isinstance(fetches, tf.IndexedSlices):
        return [fetches.values, fetches.indices]
    if isinstance(fetches, tf.SparseTensor):
        return [fetches.values, fetches.indices]
    return [] if fetches is None else [fetches]


def _reaches(operations):
    """One of ours is needed for these."""
    seen, to_see = set(operations), list(operations)
    while to_see:
        operation = to_see.pop()
        if operation.type in _OURS:
            return True
        for needed in (*(tensor.op for tensor in operation.inputs), *operation.control_inputs):
            if needed not in seen:
                seen.add(needed)
                to_see.append(needed)
    return False


def _split(feed_dict):
    """This worker's part of what is fed for any number of samples; all of it where that is not plain."""
    _operators.take(0, 0)
    arrays = {key: numpy.asarray(value) for key, value in feed_dict.items() if _is_of_samples(key)}
    rows = {array.shape[0] for array in arrays.values() if array.ndim > 0}
    if len(rows) != 1:
        return feed_dict
    count = rows.pop()
    begin, end = count * rank() // size(), count * (rank() + 1) // size()
    _data.took(end - begin, count)
    taken = slice(begin, end) if end > begin else slice(0, 1)
    return {key: arrays[key][taken] if key in arrays and arrays[key].ndim > 0 else value for key, value in feed_dict.items()}


def _is_of_samples(key):
    """A placeholder for any number of rows."""
    shape = getattr(key, "shape", None)
    return shape is not None and (shape.rank is None or (shape.rank > 0 and shape.as_list()[0] is None))


def _leave_out_when_saved():
    """A graph that is written down must load where there is no Poseidon: there a sum over all workers is the gradient itself."""
    as_graph_def = ops.Graph._as_graph_def

    @functools.wraps(as_graph_def)
    def without(self, *arguments, **options):
        definition, version = as_graph_def(self, *arguments, **options)
        for nodes in (definition.node, *(function.node_def for function in definition.library.function)):
            for node in nodes:
                _leave_out(node)
        return definition, version

    ops.Graph._as_graph_def = without


def _leave_out(node):
    if node.op == "PoseidonSum":
        node.op = "Identity"
        del node.input[1:]
        del node.attr["tensor"]
    elif node.op == "PoseidonPart":
        node.op = "Const"
        node.attr["dtype"].type = tf.int64.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([0, 0], tf.int64))
