"""Python layers: the class that users derive theirs from, and what the engine asks of Python to make and to describe one."""
import contextlib
import importlib
import os
import sys
import traceback

from ._engine import Blob


class BlobList(list):
    """The trained arrays of a layer."""

    def __init__(self, dtype):
        super().__init__()
        self._dtype = dtype

    def add_blob(self, *shape):
        """Declares one more array, of zeros until the class writes something else into its `data`. In `setup` only."""
        self.append(Blob(list(shape), self._dtype))


class Layer:
    """A layer written in Python: derive from this and name the class in `python_param { module: ... layer: ... }`.

    setup(bottom, top) runs once, reshape(bottom, top) before each forward pass, forward(bottom, top) computes, and
    backward(top, propagate_down, bottom) writes into `bottom[i].diff` wherever propagate_down[i] is true, and into the `diff`
    of its own `blobs`. bottom and top are lists of blobs.

    What an instance knows of itself: `param_str`, `name`, `phase` (TRAIN or TEST) and `blobs`; of the job: `rank` and `size`;
    and in `forward`: `iteration`, and that its batch is records first_record to first_record + records - 1 of those that all
    workers see together.
    """
    type = "Python"
    param_str = ""
    name = ""
    phase = 0
    iteration = 0
    first_record = 0
    records = 1

    def __init__(self, *_arguments):
        """Caffe's classes are called with a message; whatever a class passes on is not looked at."""

    # The contract between a launcher and its workers (docs/architecture.md).
    @property
    def rank(self):
        return int(os.environ.get("POSEIDON_RANK", 0))

    @property
    def size(self):
        return int(os.environ.get("POSEIDON_WORLD_SIZE", 1))

    def setup(self, bottom, top):
        """Once, before everything else."""

    def reshape(self, bottom, top):
        raise NotImplementedError(f"class {type(self).__name__} has no method reshape(self, bottom, top)")

    def forward(self, bottom, top):
        raise NotImplementedError(f"class {type(self).__name__} has no method forward(self, bottom, top)")

    def backward(self, top, propagate_down, bottom):
        raise NotImplementedError(f"class {type(self).__name__} has no method backward(self, top, propagate_down, bottom)")


_collections = []


@contextlib.contextmanager
def collected():
    """The instances that are made meanwhile, in the order of the layers."""
    made = []
    _collections.append(made)
    try:
        yield made
    finally:
        _collections.remove(made)


def make(module, name, folder, param_str, layer_name, phase, dtype):
    """An instance of the class `name` of a module that is looked for in the prototxt's folder and the working folder first."""
    for place in (os.getcwd(), os.path.abspath(folder)):
        if place not in sys.path:
            sys.path.insert(0, place)
    found = importlib.import_module(module)
    if not hasattr(found, name):
        raise AttributeError(f"module {module} ({found.__file__}) has no class {name}")
    cls = getattr(found, name)
    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise TypeError(f"{module}.{name} is not derived from caffe.Layer")
    layer = cls.__new__(cls)
    layer.param_str, layer.name, layer.phase, layer.blobs = param_str, layer_name, phase, BlobList(dtype)
    layer.__init__()
    if _collections:
        _collections[-1].append(layer)
    return layer


def describe(error, trace):
    """One sentence: where the exception was raised, and what it says."""
    if isinstance(error, SyntaxError):
        return f"cannot be loaded: {error.filename}:{error.lineno}: {error.msg}"
    what = "".join(traceback.format_exception_only(type(error), error)).strip()
    # The user's last line, and not one of this file, of the import system or of a library that it calls.
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename != __file__ and not frame.filename.startswith("<frozen")]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    if not own:
        return f"failed: {what}"
    return f"failed at {own[-1].filename}:{own[-1].lineno} in {own[-1].name}: {what}"
