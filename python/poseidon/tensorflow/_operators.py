"""The operators of engines/tensorflow, loaded into this TensorFlow."""
import ctypes
import glob
import os

import tensorflow as tf
from tensorflow.python.framework import auto_control_deps

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_NAMES = ("PoseidonPart", "PoseidonSum", "PoseidonStart", "PoseidonWait")


def _path():
    path = os.path.join(_FOLDER, f"_operators-{tf.__version__}.so")
    if os.path.exists(path):
        return path
    others = sorted(os.path.basename(other)[len("_operators-"):-len(".so")] for other in glob.glob(os.path.join(_FOLDER, "_operators-*.so")))
    raise ImportError(f"this is TensorFlow {tf.__version__}, and Poseidon was built for {', '.join(others) or 'none'}: build it anew where this "
                      "TensorFlow is installed (docs/tensorflow.md)")


_module = tf.load_op_library(_path())
_library = ctypes.CDLL(_path())  # the same once more: TensorFlow keeps its handle to itself
_library.poseidon_tensorflow_next_iteration.restype = ctypes.c_uint64
# Stateful operators of a tf.function run one after the other, in the order in which the script made them: the gradient that is ready first
# would wait for the last.
auto_control_deps.ASYNC_STATEFUL_OPS |= set(_NAMES)
for _name in _NAMES:
    tf.no_gradient(_name)


def use(job, tensors, first):
    """Sums are made in this job from now on; all of its `tensors` tensors take part in iteration `first` next."""
    _library.poseidon_tensorflow_use(None if job is None else job.handle, ctypes.c_size_t(tensors), ctypes.c_uint64(first))


def next_iteration():
    """The largest that a tensor will take part in next."""
    return _library.poseidon_tensorflow_next_iteration()


def sum_of_all(gradient, tensor, present=True):
    """The sum over all workers; a worker whose `present` is false adds nothing."""
    return _module.poseidon_sum(gradient=gradient, present=present, tensor=tensor)


def start(gradient, tensor, present=True):
    """Begins the same at once, and gives a ticket."""
    return _module.poseidon_start(gradient=gradient, present=present, tensor=tensor)


def wait(ticket, dtype):
    """The sum for a ticket."""
    return _module.poseidon_wait(ticket=ticket, T=dtype)


def take(own, all):
    """The script computes with a batch that is cut: with `own` samples of `all`. Noughts: with one that is whole on every worker."""
    _library.poseidon_tensorflow_take(ctypes.c_int64(own), ctypes.c_int64(all))


def part():
    """What take() was told last, when the graph is run: two numbers."""
    return _module.poseidon_part()
