"""Keeps the parameters of all workers equal: every backward pass ends with the same gradients everywhere.

Each parameter's gradient is handed to the engine the moment that autograd has finished it, while the rest of the backward pass is
still computed; when the pass ends, `p.grad` holds the average over the workers. What was in `p.grad` before (gradients are being
accumulated) is put aside and added to it, so that it is not averaged twice.
"""
import weakref

import torch

from . import _engine
from ._worker import size


class Gradients:
    """All that is synchronised in this process. The script's threads, one at a time."""

    def __init__(self):
        self.job = None
        self.on_pass = []             # called when a backward pass begins, before anything is handed in
        self.digest = lambda: 1       # of what must be alike on all workers, 1 to DIGEST_MAX
        self.on_difference = None     # called when the digests of a pass were not all alike
        self._is_off = False          # somebody else synchronises, or this is a child of the worker's process
        self.parameters = []          # in the order in which optimisers got them: equal on all workers
        self._known = {}              # by id: the place there
        self._in_job = 0              # of them, those that the engine knows
        self._seen = []               # what their values were when the job got to know them: address and version
        self._iteration = 0           # of the engine: one for each backward pass
        self._passing = False         # a backward pass has called a hook
        self._own_digest = 1          # in this pass
        self._handed_in = set()       # places, in this pass
        self._aside = {}              # by place: the gradient from before this pass
        self._spare = {}              # by place: memory for the sum of those who had a gradient where this worker had none

    # ---- What there is to synchronise ----

    def add(self, parameters):
        for parameter in parameters:
            if id(parameter) in self._known:
                continue
            place = len(self.parameters)
            self._known[id(parameter)] = place
            self.parameters.append(parameter)
            weak = weakref.ref(self)
            parameter.register_hook(lambda gradient, place=place: weak()._before_accumulation(place))
            parameter.register_post_accumulate_grad_hook(lambda p, place=place: weak()._after_accumulation(place, p))

    @property
    def is_on(self):
        return not self._is_off

    @property
    def has_begun(self):
        """A backward pass has been made."""
        return self._passing or self._iteration > 0

    def switch_off(self):
        """From now on every worker trains for itself, as far as Poseidon is concerned."""
        self._is_off = True

    def forsake(self):
        """In a process that has been forked: the engine is the parent's alone, its threads are not here, and its links must not stay open."""
        self._is_off = True
        if self.job is not None:
            self.job.forsake()
            self.job = None

    def knows(self, parameter):
        return id(parameter) in self._known

    def before_forward(self):
        """Rank 0's values are those of all, whatever has been loaded into them since."""
        if self._is_off or not self.parameters or self._passing:
            return
        if self._in_job < len(self.parameters) or (self._iteration == 0 and self._seen != self._look()):
            self._join()

    def _look(self):
        return [(p.data_ptr(), p._version) for p in self.parameters]

    def _join(self):
        tensors = [(f"{place}", p.detach()) for place, p in enumerate(self.parameters)]
        layers = [(f"{place}", [place], 0) for place in range(len(tensors))]
        if self.job is None:
            self.job = _engine.Job.join(tensors, layers)
        else:
            self.job.renew(tensors, layers, self._iteration)
        self._in_job = len(self.parameters)
        self._seen = self._look()

    # ---- A backward pass ----

    def _begin_pass(self):
        if self._passing:
            return
        if self._in_job < len(self.parameters):
            self._join()
        self._passing = True
        torch.autograd.Variable._execution_engine.queue_callback(self._end_pass)
        for told in list(self.on_pass):
            told()
        self._own_digest = self.digest()
        self.job.begin(self._iteration)

    def _before_accumulation(self, place):
        if self._is_off:
            return
        parameter = self.parameters[place]
        if parameter.grad is not None and place not in self._aside and place not in self._handed_in:
            self._begin_pass()
            self._aside[place] = parameter.grad
            parameter.grad = None

    def _after_accumulation(self, place, parameter):
        if self._is_off:
            return
        self._begin_pass()
        if parameter.grad is None or place in self._handed_in:
            return
        self._handed_in.add(place)
        gradient = parameter.grad
        if gradient.is_sparse:
            gradient = parameter.grad = gradient.to_dense()
        self.job.submit(place, self._iteration, _dense(gradient, parameter), self._own_digest)

    def _end_pass(self):
        absent = [place for place in range(self._in_job) if place not in self._handed_in]
        for place in absent:
            if place not in self._spare:
                self._spare[place] = torch.empty_like(self.parameters[place].detach())
            self.job.submit_absent(place, self._iteration, self._spare[place])
        is_alike = True
        with torch.no_grad():
            for place in range(self._in_job):
                is_alike &= self._take(place)
        self._handed_in.clear()
        self._aside.clear()
        self._iteration += 1
        self._passing = False
        if not is_alike and self.on_difference is not None:
            self.on_difference()

    def _take(self, place):
        """The average, where anybody had a gradient, on top of what was there before. False: the digests that came with it were not alike."""
        summed = self.job.wait(place)
        parameter = self.parameters[place]
        before = self._aside.get(place)
        if summed.contributors == 0:
            if before is not None:
                parameter.grad = before
            return True
        if place not in self._handed_in:
            before = parameter.grad if before is None else before
            parameter.grad = self._spare.pop(place)
        parameter.grad.div_(size())
        if before is not None:
            parameter.grad = before.add_(parameter.grad)
        return summed.samples == self._own_digest * summed.contributors


def _dense(gradient, parameter):
    """The gradient itself, where its memory has no gaps; its elements lie alike on all workers, since its parameter's do."""
    if gradient.stride() == parameter.stride() and _has_no_gaps(gradient):
        return gradient
    parameter.grad = torch.empty_like(parameter.detach()).copy_(gradient)
    return parameter.grad


def _has_no_gaps(tensor):
    extents = sorted((stride, extent) for stride, extent in zip(tensor.stride(), tensor.shape) if extent > 1)
    expected = 1
    for stride, extent in extents:
        if stride != expected:
            return False
        expected *= extent
    return True
