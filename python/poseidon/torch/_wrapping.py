"""Functions of PyTorch's that are replaced: what stands in their place looks like them."""
import functools

import torch


def wraps(function):
    """Like functools.wraps. TorchScript, which compiles from sources, gets the original: its code knows nothing of the wrapper's names."""
    def around(wrapper):
        wrapper = functools.wraps(function)(wrapper)
        operator = torch.jit._builtins._find_builtin(function)
        if operator is not None:
            torch.jit._builtins._register_builtin(wrapper, operator)
        else:
            # As torch.jit.script_if_tracing marks what it wraps.
            setattr(wrapper, "__script_if_tracing_wrapper", True)
            setattr(wrapper, "__original_fn", function)
        return wrapper

    return around
