"""pycaffe on Poseidon's engine: what Caffe's notebooks use, under Caffe's names (docs/pycaffe.md).

    import poseidon.caffe as caffe
    net = caffe.Net("deploy.prototxt", caffe.TEST, weights="model.caffemodel")
    net.blobs["data"].data[...] = image
    print(net.forward()["prob"])

`install()` lets `import caffe` mean this package in the whole process.
"""
import importlib

from . import _engine, _programs, _settings
from ._alias import install
from ._engine import Blob, ConfigError
from ._layer import Layer
from ._net import TEST, TRAIN, Net
from ._solver import (AdaDeltaSolver, AdaGradSolver, AdamSolver, NesterovSolver, RMSPropSolver, SGDSolver, Solver,
                      get_solver)

__version__ = "1.0.0"  # of the Caffe whose interface this is

# What needs more than NumPy (protobuf's package) comes when it is asked for.
_LAZY_MODULES = ("classifier", "detector", "draw", "io", "net_spec", "proto")
_LAZY_NAMES = {"Classifier": "classifier", "Detector": "detector", "NetSpec": "net_spec", "layers": "net_spec", "params": "net_spec",
               "to_proto": "net_spec"}

__all__ = ["AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Blob", "Classifier", "ConfigError", "Detector", "Layer", "Net", "NetSpec",
           "NesterovSolver", "RMSPropSolver", "SGDSolver", "Solver", "TEST", "TRAIN", "draw", "get_solver", "init_log", "install", "io",
           "layer_type_list", "layers", "log", "net_spec", "params", "proto", "set_device", "set_mode_cpu", "set_mode_gpu",
           "set_random_seed", "to_proto"]


def __getattr__(name):
    if name in _LAZY_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def set_mode_cpu():
    """Nets compute on the CPU, always."""


def set_mode_gpu():
    raise RuntimeError("Caffe nets compute on the CPU in this version of Poseidon: leave set_mode_gpu() away, or call set_mode_cpu()")


def set_device(device):
    """Which GPU set_mode_gpu() would use; kept for scripts that call it first."""
    if int(device) < 0:
        raise ValueError(f"there is no device {device}")


def set_random_seed(seed):
    """Of first values, dropout and other draws of nets that are made from now on, and of solvers without a random_seed."""
    if not 0 <= int(seed) < 2**64:
        raise ValueError(f"a seed is at least 0 and below 2^64, not {seed}")
    _settings.seed = int(seed)


def layer_type_list():
    return _engine.layer_types()


def init_log(level=0, stderr=True):
    """Shows what the engine tells on standard error, from level 0 (progress of solvers) or 1 (warnings) on."""
    if stderr:
        _engine.configure_log(level <= 0)


def log(message):
    """A line among the engine's own."""
    _engine.log(str(message))


_programs.tell_engine()
