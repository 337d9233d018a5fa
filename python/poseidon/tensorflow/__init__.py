"""TensorFlow on many machines. `poseidon run` attaches this to a script by itself."""
from .._worker import local_rank, rank, size
from ._attach import attach

__all__ = ["attach", "local_rank", "rank", "size"]
