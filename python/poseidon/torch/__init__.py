"""PyTorch on many machines. `poseidon run` attaches this to a script by itself; the functions here are for those who want more."""
from ._attach import attach
from ._worker import rank, size

__all__ = ["attach", "rank", "size"]
