"""Parameters that are waited for when somebody touches them.

While a parameter's gradient is on its way its class is another one, whose every use by PyTorch first waits: reading it or its gradient, computing
with it, copying it, saving it. Then it is an ordinary parameter again. A use that goes around the object (a tensor that shares its memory) would
not be seen: shares_memory() tells whether there is one.
"""
import torch


class _Awaited(torch.nn.Parameter):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        options = options or {}
        _settle_in(arguments)
        _settle_in(options.values())
        return function(*arguments, **options)

    def __deepcopy__(self, memo):
        _settle_in((self,))
        return self.__deepcopy__(memo)

    def __reduce_ex__(self, protocol):
        _settle_in((self,))
        return self.__reduce_ex__(protocol)


_settle_by = {}  # by id: who settles it
_plain = {}      # by id: the class that it has otherwise


def _settle_in(values):
    for value in values:
        if type(value) is _Awaited:
            settle = _settle_by.get(id(value))
            if settle is not None:
                settle(value)
            else:  # made by somebody who asked an awaited parameter for its class
                value.__class__ = torch.nn.Parameter
        elif isinstance(value, (tuple, list)):
            _settle_in(value)
        elif isinstance(value, dict):
            _settle_in(value.values())


def guard(parameter, settle):
    """From now on any use of it first calls settle(parameter), which must restore it. False: that cannot be had for this one."""
    plain = type(parameter)
    if plain not in (torch.nn.Parameter, torch.Tensor):
        return False
    _plain[id(parameter)], _settle_by[id(parameter)] = plain, settle
    parameter.__class__ = _Awaited
    return True


def restore(parameter):
    plain = _plain.pop(id(parameter), None)
    if plain is not None:
        del _settle_by[id(parameter)]
        parameter.__class__ = plain


def shares_memory(parameter):
    """Whether another tensor that lives shares the parameter's memory: a view, its .data, what state_dict() gave."""
    with torch._C.DisableTorchFunctionSubclass():
        storage = parameter.untyped_storage()
        # The parameter itself, and `storage`.
        return torch._C._storage_Use_Count(storage._cdata) > 2
