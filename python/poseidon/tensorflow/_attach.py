"""Where a script that knows nothing of Poseidon is entered."""
import os
import sys

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from .. import _imports, _overlay
from .._ending import Ending
from .._library import JobError
from .._seeds import seed_what_is_untouched
from .._worker import rank, size
from . import _data, _dropout, _files, _keras, _sessions
from ._gradients import Gradients

_gradients = None


def gradients():
    """What is synchronised in this process; None where it is no worker among several."""
    return _gradients


def attach():
    """Makes this process a worker of the job. Nothing changes where there is only one."""
    global _gradients
    if _gradients is not None or size() == 1:
        return
    _gradients = Gradients()
    _gradients.attach()
    seed_what_is_untouched()
    _watch_functions()
    _data.attach(_gradients)
    _dropout.attach()
    _sessions.attach(_gradients)
    _imports.after("keras.src.backend.tensorflow.trainer", lambda module: _keras.attach(module, _gradients))
    if rank() != 0 and "POSEIDON_ALL_RANKS_WRITE" not in os.environ:
        _files.attach(_overlay.install())
    os.register_at_fork(after_in_child=_gradients.forsake)
    Ending(_gradients, (JobError, tf.errors.AbortedError), lambda: None)


def _watch_functions():
    """XLA compiles a function into one: no operator of ours could be in it, and no gradient leave before the last one is there."""
    told = []
    initialise = polymorphic_function.Function.__init__

    def initialised(self, *arguments, jit_compile=None, **options):
        initialise(self, *arguments, jit_compile=None if jit_compile else jit_compile, **options)
        if jit_compile and rank() == 0 and not told:
            told.append(True)
            print("poseidon: jit_compile is left out: what XLA compiles into one would keep all gradients until the last is there", file=sys.stderr, flush=True)

    polymorphic_function.Function.__init__ = initialised
