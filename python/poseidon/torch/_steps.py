"""An optimiser's step is taken for each parameter when its gradient is there, and no sooner than somebody needs it: so the next forward pass begins
while gradients of layers further up are still on their way.

Only optimisers of PyTorch's own whose step treats each parameter by itself are put off, and only for parameters that nobody has touched
since the backward pass (who clips by a norm has touched them all), whose memory nobody else sees, and where no hook wants to be called. Everything
else steps at once, which waits for the gradients that it reads.
"""
import functools

import torch

from . import _awaited

_ONE_BY_ONE = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")


class Steps:
    def __init__(self, gradients, told):
        """told(optimizer) is called when the script calls an optimiser's step."""
        self._gradients = gradients
        self._told = told
        self._is_stepping = False  # a class's step may call that of the class before
        self._classes = {getattr(torch.optim, name) for name in _ONE_BY_ONE if hasattr(torch.optim, name)}
        self._patched = set()
        optimizer = torch.optim.Optimizer
        for name in ("state_dict", "load_state_dict", "add_param_group"):
            setattr(optimizer, name, self._after_settling(getattr(optimizer, name)))
        optimizer.zero_grad = self._zeroing(optimizer.zero_grad, lambda self: [p for group in self.param_groups for p in group["params"]])
        torch.nn.Module.zero_grad = self._zeroing(torch.nn.Module.zero_grad, lambda self: list(self.parameters()))

    def watch(self, optimizer):
        """An optimiser has been made."""
        kind = type(optimizer)
        if kind not in self._patched:
            self._patched.add(kind)
            hooked = getattr(kind.step, "hooked", None)
            kind.step = self._telling(self._putting_off(kind.step) if kind in self._classes else kind.step)
            if hooked is not None:
                kind.step.hooked = hooked  # by which PyTorch knows that it need not wrap it

    def _after_settling(self, function):
        @functools.wraps(function)
        def settled(optimizer, *arguments, **options):
            self._gradients.settle_all()
            return function(optimizer, *arguments, **options)

        return settled

    def _telling(self, step):
        @functools.wraps(step)
        def stepped(optimizer, *arguments, **options):
            if self._is_stepping:
                return step(optimizer, *arguments, **options)
            self._told(optimizer)
            self._is_stepping = True
            try:
                return step(optimizer, *arguments, **options)
            finally:
                self._is_stepping = False

        return stepped

    def _putting_off(self, step):
        @functools.wraps(step)
        def stepped(optimizer, *arguments, **options):
            if arguments or options or not self._may_be_put_off(optimizer):
                return step(optimizer, *arguments, **options)
            ready = []
            for group in optimizer.param_groups:
                later = functools.partial(_step_group, step, optimizer, {name: value for name, value in group.items() if name != "params"})
                now = []
                for parameter in group["params"]:
                    flight = self._gradients.flight(parameter)
                    if flight is None or _awaited.shares_memory(parameter):
                        now.append(parameter)
                    else:
                        flight.then.append(later)
                ready.append(group | {"params": now})
            if any(group["params"] for group in ready):
                _step_of(step, optimizer, ready)
            return None

        return stepped

    def _may_be_put_off(self, optimizer):
        has_hooks = getattr(optimizer, "_optimizer_step_pre_hooks", None) or getattr(optimizer, "_optimizer_step_post_hooks", None)
        has_changing = any(isinstance(value, torch.Tensor) for group in optimizer.param_groups for value in group.values())
        is_scaled = getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None
        return self._gradients.is_on and not (has_hooks or has_changing or is_scaled)

    def _zeroing(self, zero, parameters_of):
        @functools.wraps(zero)
        def zeroed(target, set_to_none=True):
            waiting = []
            for parameter in parameters_of(target):
                flight = self._gradients.flight(parameter)
                if flight is not None and set_to_none:
                    waiting.append((parameter, flight))
                elif flight is not None:
                    self._gradients.settle(parameter)
            if not waiting:
                return zero(target, set_to_none)
            put_off = {id(parameter) for parameter, _ in waiting}
            for parameter, flight in waiting:
                flight.then.append(_forget_gradients)
            for parameter in parameters_of(target):
                if id(parameter) not in put_off:
                    parameter.grad = None
            return None

        return zeroed


def _forget_gradients(parameters):
    for parameter in parameters:
        parameter.grad = None


def _step_group(step, optimizer, settings, parameters):
    _step_of(step, optimizer, [settings | {"params": parameters}])


def _step_of(step, optimizer, groups):
    """The optimiser's step, of these groups alone: its state is the same, its settings are those of the groups."""
    part = object.__new__(type(optimizer))
    part.__dict__.update(optimizer.__dict__)
    part.param_groups = groups
    with torch.no_grad():
        step(part)
