"""The engine's C interface (include/poseidon/poseidon.h) as Python sees it: a worker of a job, and arrays whose values all share.

Knows no framework: what travels is memory of NumPy arrays, or belongs to operators that submit by themselves.
"""
import ctypes
import glob
import os

import numpy

_FLOAT32, _FLOAT64 = 0, 1
_ABI_VERSION = 3
SCHEMES = ("ps", "sfb", "adam", "block")


class JobError(RuntimeError):
    """What has ended the job, or what this worker did wrong. `name` is the code's: "peer_lost"."""

    def __init__(self, name, message):
        super().__init__(message)
        self.name = name


class _Tensor(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_int64)), ("dimensions", ctypes.c_size_t),
                ("dtype", ctypes.c_int32), ("reserved", ctypes.c_int32), ("values", ctypes.c_void_p)]


class _Layer(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("tensors", ctypes.POINTER(ctypes.c_uint32)), ("tensor_count", ctypes.c_size_t),
                ("factor_rows", ctypes.c_size_t)]


class _JoinOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("tensors", ctypes.POINTER(_Tensor)), ("tensor_count", ctypes.c_size_t), ("layers", ctypes.POINTER(_Layer)),
                ("layer_count", ctypes.c_size_t), ("product", ctypes.c_void_p), ("product_user", ctypes.c_void_p), ("provisional", ctypes.c_int32),
                ("reserved", ctypes.c_int32)]


class _Part(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class _Traffic(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("bytes_sent", ctypes.c_uint64), ("bytes_received", ctypes.c_uint64)]


def _load():
    # By the name with a version where the package is installed.
    paths = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "libposeidon.so*")))
    if not paths:
        raise ImportError(f"there is no libposeidon.so in {os.path.dirname(os.path.abspath(__file__))}: build Poseidon where TensorFlow is installed")
    path = paths[0]
    library = ctypes.CDLL(path)
    for name in ("poseidon_last_error", "poseidon_version", "poseidon_code_name", "poseidon_plan"):
        getattr(library, name).restype = ctypes.c_char_p
    library.poseidon_plan.argtypes = [ctypes.c_void_p]
    library.poseidon_close.restype = None
    library.poseidon_close.argtypes = [ctypes.c_void_p]
    if library.poseidon_abi_version() < _ABI_VERSION:
        raise ImportError(f"{path} is of version {library.poseidon_version().decode()}, older than this package: build both anew")
    return library


_library = _load()


def _check(code):
    if code != 0:
        raise JobError(_library.poseidon_code_name(code).decode(), _library.poseidon_last_error().decode(errors="replace"))


def _sized(structure, **members):
    return structure(size=ctypes.sizeof(structure), **members)


class Values:
    """A tensor of the job: its name, shape and element type, and an array of its values, contiguous, which rank 0's replace. None: they do not
    travel."""

    def __init__(self, name, shape, dtype, array=None):
        self.name, self.shape, self.dtype, self.array = name, tuple(shape), numpy.dtype(dtype), array


class Layer:
    """Places of its tensors; with `factor_rows` the gradient of the first may travel as so many rows of factors."""

    def __init__(self, name, tensors, factor_rows=0):
        self.name, self.tensors, self.factor_rows = name, tuple(tensors), factor_rows


class _Options:
    """What poseidon_join takes, with all that it points to."""

    def __init__(self, tensors, layers, provisional):
        self._kept = []
        self._tensors = (_Tensor * len(tensors))(*map(self._tensor, tensors))
        self._layers = (_Layer * len(layers))(*map(self._layer, layers))
        self.whole = _sized(_JoinOptions, tensors=self._tensors, tensor_count=len(tensors), layers=self._layers, layer_count=len(layers),
                            provisional=provisional)

    def _tensor(self, tensor):
        shape = (ctypes.c_int64 * max(len(tensor.shape), 1))(*tensor.shape)
        self._kept.append(shape)
        if tensor.array is not None and not (tensor.array.flags.c_contiguous and tensor.array.flags.writeable and tensor.array.dtype == tensor.dtype):
            raise ValueError(f"the values of {tensor.name} are no contiguous array of {tensor.dtype} that can be written")
        return _sized(_Tensor, name=tensor.name.encode(), shape=shape, dimensions=len(tensor.shape),
                      dtype=_FLOAT64 if tensor.dtype == numpy.float64 else _FLOAT32,
                      values=None if tensor.array is None else tensor.array.ctypes.data)

    def _layer(self, layer):
        tensors = (ctypes.c_uint32 * max(len(layer.tensors), 1))(*layer.tensors)
        self._kept.append(tensors)
        return _sized(_Layer, name=layer.name.encode(), tensors=tensors, tensor_count=len(layer.tensors), factor_rows=layer.factor_rows)


class Job:
    """This worker's place in a job. One thread calls. Functions that wait do so for other workers, and end with JobError when the job does."""

    def __init__(self, tensors, layers, provisional=False):
        """Joins the job of the environment."""
        self._handle = ctypes.c_void_p()
        options = _Options(tensors, layers, provisional)
        _check(_library.poseidon_join(ctypes.byref(options.whole), ctypes.byref(self._handle)))

    @property
    def handle(self):
        """Of the C interface, for operators."""
        return self._handle

    def renew(self, tensors, layers, first):
        """Trains another model from iteration `first` on, as all workers do: its tensors are those of before, and perhaps more behind them."""
        options = _Options(tensors, layers, False)
        _check(_library.poseidon_renew(self._handle, ctypes.byref(options.whole), ctypes.c_uint64(first)))

    def scheme(self, layer):
        scheme = ctypes.c_int32()
        _check(_library.poseidon_scheme_of(self._handle, ctypes.c_uint32(layer), ctypes.byref(scheme)))
        return SCHEMES[scheme.value]

    def plan(self):
        return _library.poseidon_plan(self._handle).decode()

    def gather(self, own):
        """What all workers give, by rank: bytes, and not many."""
        workers = _library.poseidon_workers(self._handle)
        parts = (_Part * workers)(*(_sized(_Part) for _ in range(workers)))
        _check(_library.poseidon_gather(self._handle, own, ctypes.c_size_t(len(own)), parts, ctypes.c_size_t(workers)))
        return [ctypes.string_at(part.data, part.bytes) if part.bytes else b"" for part in parts]

    def note(self, text):
        _check(_library.poseidon_note(self._handle, text.encode()))

    def traffic(self):
        """Bytes sent and received."""
        traffic = _sized(_Traffic)
        _check(_library.poseidon_get_traffic(self._handle, ctypes.byref(traffic)))
        return traffic.bytes_sent, traffic.bytes_received

    def error(self):
        """The message of what has ended the job, or None."""
        return _library.poseidon_last_error().decode(errors="replace") if _library.poseidon_error(self._handle) != 0 else None

    def leave(self):
        """This worker has done its work. Waits until all have."""
        _check(_library.poseidon_leave(self._handle))

    def fail(self, message):
        """Ends the job for all, with this reason."""
        aborted = 8
        _library.poseidon_fail(self._handle, aborted, message.encode())

    def close(self):
        _library.poseidon_close(self._handle)
        self._handle = ctypes.c_void_p()

    def forsake(self):
        """In a process forked from the worker's."""
        _library.poseidon_forsake(self._handle)
        self._handle = ctypes.c_void_p()
