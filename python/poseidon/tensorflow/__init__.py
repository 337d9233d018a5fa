"""TensorFlow on many machines. `poseidon run` attaches this to a script by itself."""
from .._worker import is_the_scripts_process, local_rank, rank, size
from ._attach import attach
from ._data import shard

__all__ = ["attach", "local_rank", "rank", "shard", "size"]

if is_the_scripts_process():
    attach()  # whether the script has imported this, or tensorflow
