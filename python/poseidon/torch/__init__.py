"""PyTorch on many machines. `poseidon run` attaches this to a script by itself; the functions here are for those who want more.

    import poseidon.torch as ps
    ps.init()                                # under `poseidon run` this has been done already
    model, optimizer = ps.distribute(model, optimizer)
    x, y = ps.shard((x, y))                  # this worker's part of a batch that was made by hand
    loss = ps.scale_loss(my_loss(model(x), y), reduction="mean")

Without a launcher every function does what it means for one worker.
"""
from .._worker import is_the_scripts_process, local_rank, rank, size
from ._attach import attach
from ._explicit import all_gather_object, barrier, distribute, init, offer_factors, scale_loss, shard
from ._groups import all_reduce, broadcast, register

__all__ = ["all_gather_object", "all_reduce", "attach", "barrier", "broadcast", "distribute", "init", "local_rank", "offer_factors", "rank",
           "scale_loss", "shard", "size"]

register()
if is_the_scripts_process():
    attach()  # whether the script has imported this, or torch
