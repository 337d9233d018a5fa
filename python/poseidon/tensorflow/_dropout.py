"""Dropout draws other masks on each worker: with equal ones all workers would drop the same units for their parts of a batch."""
import functools

import tensorflow as tf

from .._worker import rank


def attach():
    dropout = tf.nn.experimental.stateless_dropout

    @functools.wraps(dropout)
    def apart(x, rate, seed, *arguments, **options):
        return dropout(x, rate, tf.random.experimental.stateless_fold_in(seed, rank()), *arguments, **options)

    tf.nn.experimental.stateless_dropout = apart
