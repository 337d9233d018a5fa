"""Dropout draws other masks on each worker, and leaves what else a script draws alike on all.

With equal seeds all workers would drop the same units for their parts of a batch, and parts of unequal size would use up different numbers of the
one stream of random numbers that PyTorch has, from which the script draws other things too (a permutation of its data, noise for its weights).
So for each such operation one number is drawn from that stream, and the operation itself draws from another that begins with this number
and the rank. What is computed again (a checkpoint, which sets the stream back) draws the same again.
"""
import contextlib
import inspect

import torch

from .._worker import rank
from ._wrapping import wraps

_MIX = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: seeds of neighbours are far apart


def attach():
    functional = torch.nn.functional
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu"):
        setattr(functional, name, _apart(getattr(functional, name), lambda given: given["training"] and given.get("p", 1) > 0))
    functional.gumbel_softmax = _apart(functional.gumbel_softmax, lambda given: True)
    attention = functional.scaled_dot_product_attention

    @wraps(attention)
    def attend(query, key, value, attn_mask=None, dropout_p=0.0, *arguments, **options):
        with _stream_of(query) if dropout_p > 0 else contextlib.nullcontext():
            return attention(query, key, value, attn_mask, dropout_p, *arguments, **options)

    functional.scaled_dot_product_attention = attend
    torch.nn.RNNBase.__call__ = _recurrent(torch.nn.RNNBase.__call__)


def _apart(function, is_random):
    signature = inspect.signature(function)

    @wraps(function)
    def drawn(input, *arguments, **options):
        if torch.compiler.is_compiling():
            return function(input, *arguments, **options)
        given = signature.bind(input, *arguments, **options)
        given.apply_defaults()
        with _stream_of(input) if is_random(given.arguments) else contextlib.nullcontext():
            return function(input, *arguments, **options)

    return drawn


def _recurrent(call):
    """Between its layers a recurrent network drops by itself."""
    @wraps(call)
    def drawn(self, input, *arguments, **options):
        is_random = self.training and self.dropout > 0 and not torch.compiler.is_compiling()
        with _stream_of(input) if is_random else contextlib.nullcontext():
            return call(self, input, *arguments, **options)

    return drawn


@contextlib.contextmanager
def _stream_of(like):
    """Of this operation, on this worker. `like` lies on the device that draws (a packed sequence has its tensor in `data`)."""
    seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_())
    device = like.data.device
    if device.type == "cuda":
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    else:
        generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed((seed + rank() * _MIX) % (1 << 63))
    try:
        yield
    finally:
        generator.set_state(state)
