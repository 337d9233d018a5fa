"""Eager execution: a gradient leaves while the backward pass goes on, as in a graph.

A program that is run eagerly computes one operation after the other, and a gradient that leaves when the script asks for all of them leaves last.
So reading a variable is recorded on the tapes with a function of ours, which is called in the backward pass with the gradient of what was read.
That is the variable's whole gradient where it is read once. Whether it is, the pass before has shown; if it turns out otherwise, the rest is summed
as well when the pass has ended.
"""
import functools

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.ops import resource_variable_ops


class Begun:
    """A gradient that has been handed in before the pass had ended, and what gives its sum; `is_all`: nothing was added to it afterwards."""

    def __init__(self, gradient, total):
        self.gradient, self.total, self.is_all = gradient, total, True


class EagerPasses:
    """The script's thread only."""

    def __init__(self):
        self._reads = {}    # by variable's id: how many of its gradients came in the latest pass that had any
        self._begin = None  # of the present pass: what begins the sum of a variable's gradient; None between passes
        self._came = {}     # in the present pass, by variable's id: how many have come
        self._begun = {}    # likewise
        self._watch_reads()

    def _watch_reads(self):
        read = resource_variable_ops.BaseResourceVariable._read_variable_op

        @functools.wraps(read)
        def watched(variable, *arguments, **options):
            if not tf.executing_eagerly() or not variable.trainable or not record.could_possibly_record():
                return read(variable, *arguments, **options)
            resource_variable_ops.variable_accessed(variable)  # tapes watch it from now on
            with record.stop_recording():
                value = read(variable, *arguments, **options)
            record.record_operation("ReadVariableOp", [value], [variable.handle], lambda gradient: [self._come(variable, gradient)])
            return value

        resource_variable_ops.BaseResourceVariable._read_variable_op = watched

    def _come(self, variable, gradient):
        if self._begin is not None and isinstance(gradient, tf.Tensor):
            key = id(variable)
            self._came[key] = self._came.get(key, 0) + 1
            if self._reads.get(key) == 1 and self._came[key] == 1:
                total = self._begin(variable, gradient)
                if total is not None:
                    self._begun[key] = Begun(gradient, total)
        return gradient

    def run(self, differentiate, begin):
        """What `differentiate` gives. Meanwhile `begin(variable, gradient)` is called with gradients that are complete; it gives what gives their sum, or
        None where it begins nothing."""
        self._begin, self._came, self._begun = begin, {}, {}
        try:
            return differentiate()
        finally:
            self._begin = None
            self._reads.update(self._came)

    def taken(self, variable, gradient):
        """What was begun of this gradient of the variable in the latest pass, once; None where nothing was."""
        begun = self._begun.pop(id(variable), None)
        if begun is not None:
            begun.is_all = gradient is begun.gradient
        return begun
