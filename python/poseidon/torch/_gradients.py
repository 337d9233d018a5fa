"""Keeps the parameters of all workers equal: every backward pass ends with the same gradients everywhere.

Each parameter's gradient is handed to the engine the moment that autograd has finished it, while the rest of the backward pass is
still computed. The average over the workers takes its place in `p.grad` as soon as somebody looks (_awaited), so that what the script does
next need not wait for what it does not touch. What was in `p.grad` before (gradients are being accumulated) is put aside and added to the
average, so that it is not averaged twice.
"""
import functools
import json
import weakref
import zlib

import torch

from .._call_site import call_site, written
from .._worker import size
from . import _awaited, _engine, _groups
from ._staging import Staging


# Passes between two comparisons of the parameters, at most.
_COMPARED_EVERY = 1024
# Numbers of a parameter that are compared, about.
_COMPARED_NUMBERS = 64


class OutOfStep(RuntimeError):
    """The workers' scripts have come to different places, where each must be at the same."""


class _Flight:
    """A gradient on its way: what this worker knows of it until its average is back."""

    def __init__(self, before, handed_in, destination, digest, divisor):
        self.before = before            # what was in p.grad before the pass; None: nothing
        self.handed_in = handed_in      # this worker had a gradient, which is in p.grad
        self.destination = destination  # where else the sum arrives
        self.digest = digest            # that travelled with it
        self.divisor = divisor          # of the sum
        self.rows = None                # the work of gathering them, where they travel instead
        # To do once the average is in p.grad (steps that were put off): what to call with a list of parameters. What several
        # parameters have in common is called once for those that are there.
        self.then = []


class Gradients:
    """All that is synchronised in this process. The script's threads, one at a time."""

    def __init__(self):
        self.job = None
        self.products_on = None  # a WaitedDevice, for measurements on machines without the device that is meant
        self._staging = Staging()
        self.on_pass = []             # called when a backward pass begins, before anything is handed in
        self.digest = lambda: 1       # of what must be alike on all workers, 1 to DIGEST_MAX
        self.on_difference = None     # called when the digests of a pass were not all alike
        self.factors = None           # _factors.Factors
        self.scale_of_root = lambda: 1  # of the gradient that a backward pass begins with
        self.may_put_off = True       # parameters may be waited for when they are used
        self.models = weakref.WeakSet()  # outermost modules that had computed something before the first backward pass
        self._is_off = False          # somebody else synchronises, or this is a child of the worker's process
        self.parameters = []          # in the order in which optimisers got them: equal on all workers
        self._known = {}              # by id: the place there
        self._frozen = []             # places of those that have needed no gradient so far
        self._names = {}              # by place
        self._in_job = 0              # of them, those that the engine knows
        self._seen = []               # what their values were when the job got to know them: address and version
        self._iteration = 0           # of the engine: one for each backward pass
        self.called_at = None         # where the latest backward pass was called
        self._calls = []              # of torch.autograd.backward and .grad, within each other: whether each accumulates into all leaves
        self._must_share = False      # parameters are no longer alike on all workers
        self._is_provisional = True   # the engine waits for the model that the first pass shows
        self._passing = False         # a backward pass has called a hook
        self._own_digest = 1          # in this pass
        self._divisor = 1             # of this pass's sums: what they have not been scaled by yet
        self._memory = {}             # by place: where the sum of factors arrives, kept while nobody else has it
        self._handed_in = set()       # places, in this pass
        self._watched = set()         # places of which is known whether their gradients are products
        self._shown = set()           # those of which it has become known in this pass
        self._aside = {}              # by place: the gradient from before this pass
        self._sparse = set()          # places whose gradients have rows where there is something
        self._by_rows = set()         # of these, the ones of which all workers know it: rows travel, where otherwise all does
        self._rows = {}               # by place: the sparse gradients of this pass
        self._spare = {}              # by place: memory for the sum of those who had a gradient where this worker had none
        self._destinations = {}       # by place: where the sum of factors arrives, in this pass
        self._irregular = {}          # by place: the whole gradient of this worker (or None) that its factors could not tell
        self._flights = {}            # by place
        self._watch_backward()

    # ---- What there is to synchronise ----

    def add(self, parameters):
        for parameter in parameters:
            if id(parameter) in self._known or parameter.numel() == 0:
                continue  # of nothing there is no gradient to wait for
            place = len(self.parameters)
            self._known[id(parameter)] = place
            self.parameters.append(parameter)
            self._frozen.append(place)
        self._watch_those_that_train()

    def _watch_those_that_train(self):
        """A parameter can only be watched from the time on when it has a gradient."""
        weak = weakref.ref(self)
        for place in list(self._frozen):
            parameter = self.parameters[place]
            if parameter.requires_grad:
                self._frozen.remove(place)
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
        self.settle_all()
        self._is_off = True

    def forsake(self):
        """In a process that has been forked: the engine is the parent's alone, its threads are not here, and its links must not stay open."""
        self._is_off = True
        for place in self._flights:
            _awaited.restore(self.parameters[place])
        self._flights.clear()
        if self.job is not None:
            self.job.forsake()
            self.job = None

    def knows(self, parameter):
        return id(parameter) in self._known

    def place(self, parameter):
        return self._known.get(id(parameter))

    def is_watching(self, place):
        """The first backward pass in which this parameter has a gradient has not ended: it shows whether that is a product."""
        return place not in self._watched

    def before_forward(self):
        """Rank 0's values are those of all, whatever has been loaded into them since."""
        if self._is_off or not self.parameters or self._passing:
            return
        if self._frozen:
            self._watch_those_that_train()
        if self._needs_another_model() or (self._iteration == 0 and self._seen != self._look()):
            self._join()

    def _needs_another_model(self):
        return self._must_share or self._in_job < len(self.parameters) or (self._iteration > 0 and (self._is_provisional or self.factors.has_news))

    def joined(self):
        """The job, also where nothing is trained by it."""
        if self.job is None and self.parameters and not self._is_off:
            self._join()
        elif self.job is None and self.is_on:
            raise RuntimeError("the workers know each other only when there is something to train: make the optimiser first")
        elif self.job is None:
            self.job = _engine.Job.join([("nothing", torch.zeros(1))], [("nothing", [0], 0)], provisional=True)
        return self.job

    def _look(self):
        return [(p.data_ptr(), p._version) for p in self.parameters]

    def _join(self):
        self.settle_all()
        self._renew()

    def _renew(self):
        tensors = [(f"{place}", self._staging.values(_real(p))) for place, p in enumerate(self.parameters)]
        if self.job is not None:
            self._agree()
        layers = [(name, [place], self.factors.rows(place)) for place, name in enumerate(self._names_of_layers())]
        if self.job is None:
            self.job = _engine.Job.join(tensors, layers, provisional=True, products_on=self.products_on)
        else:
            # What all have trained is alike everywhere.
            self.job.renew(tensors, layers, self._iteration, known=self._in_job if self._iteration > 0 and not self._must_share else 0)
            self._must_share = False
            self._is_provisional = self._iteration == 0
        with torch.no_grad():
            for parameter, (_, values) in zip(self.parameters, tensors):
                if self._staging.is_for(parameter):
                    _real(parameter).copy_(values)
        self.factors.follow(self.job, len(tensors))
        self._in_job = len(self.parameters)
        self._seen = self._look()

    def _agree(self):
        """On what the gradients of the passes so far were like."""
        own = {"factors": self.factors.candidates, "sparse": sorted(self._sparse), "dense": sorted(self._watched - self._sparse)}
        everybodys = self.gather("tells of its gradients", own)
        self.factors.agree([given["factors"] for given in everybodys])
        sparse, dense = ({place for given in everybodys for place in given[kind]} for kind in ("sparse", "dense"))
        self._by_rows = sparse - dense

    def gather(self, purpose, value):
        """What each worker gives, by rank: what JSON can write. All of them must have come for the same purpose, which reads "rank 1 ..."."""
        site = written(call_site())
        answers = [json.loads(text) for text in self.job.gather(json.dumps([purpose, site, value]))]
        for other, (others_purpose, others_site, _) in enumerate(answers):
            if others_purpose != answers[0][0]:
                raise OutOfStep(f"rank {other} {others_purpose} at {others_site}, where rank 0 {answers[0][0]} at {answers[0][1]}: the workers' scripts "
                                "have parted. A decision that rests on a value which only one worker has (a local loss, a clock) must be taken by all alike")
        return [given for _, _, given in answers]

    def share_values_again(self):
        """Before the next pass all take rank 0's values. All workers call it after the same pass."""
        self._must_share = True

    def samples_of_parameters(self):
        """Digests of some numbers of each parameter, by name; none in most passes. After pass 1, 2, 4 and so on, and then every 1,024."""
        passes = self._iteration
        is_due = passes > 0 and (passes & (passes - 1) == 0 if passes < _COMPARED_EVERY else passes % _COMPARED_EVERY == 0)
        return {name: _sample_of(parameter) for name, parameter in zip(self._names_of_layers(), self.parameters)} if is_due else {}

    def name(self, module):
        """What parameters are called in a module: plans speak of them by these names."""
        for name, parameter in module.named_parameters():
            place = self.place(parameter)
            if place is not None:
                self._names.setdefault(place, name)

    def _names_of_layers(self):
        names = []
        for place in range(len(self.parameters)):
            name = self._names.get(place, f"parameter {place}")
            names.append(f"{name} ({place})" if name in names else name)
        return names

    # ---- A backward pass ----

    def _watch_backward(self):
        """A pass ends when the outermost call does: one that computes something again (a checkpoint) calls backward within backward."""
        backward, grad = torch.autograd.backward, torch.autograd.grad

        @functools.wraps(backward)
        def watched(tensors, grad_tensors=None, *arguments, **options):
            if not self._calls and self.is_on:
                self.called_at = call_site()
                grad_tensors = self._scale_roots(tensors, grad_tensors)
            arguments = (tensors, grad_tensors, *arguments)
            creates_graph = arguments[3] if len(arguments) > 3 else options.get("create_graph")
            is_plain = not creates_graph and options.get("inputs") is None and len(arguments) < 6
            self._calls.append(is_plain)
            try:
                backward(*arguments, **options)
            finally:
                self._calls.pop()
            if not self._calls and self._passing:
                self._end_pass()

        @functools.wraps(grad)
        def left_alone(*arguments, **options):
            self._calls.append(None)
            try:
                return grad(*arguments, **options)
            finally:
                self._calls.pop()

        torch.autograd.backward, torch.autograd.grad = watched, left_alone

    def _scale_roots(self, tensors, grad_tensors):
        """Gradients of all workers are summed, so each begins with 1/N: what is computed on the way is then what one process computes for these
        samples, and nothing is left to divide."""
        scale = self.scale_of_root() / size()
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        given_for = [grad_tensors] if grad_tensors is None or isinstance(grad_tensors, torch.Tensor) else list(grad_tensors)
        if grad_tensors is None:
            given_for *= len(roots)
        can_be = len(roots) == len(given_for) and all(
            isinstance(root, torch.Tensor) and (root.numel() == 1 if given is None else isinstance(given, torch.Tensor))
            for root, given in zip(roots, given_for))
        self._divisor = 1 if can_be else size()
        if not can_be:
            return grad_tensors  # edges of graphs, and mistakes that PyTorch tells of
        return [torch.full_like(root, scale) if given is None else given * scale for root, given in zip(roots, given_for)]

    def _is_asked_for(self):
        """The gradients that are being computed are asked for by torch.autograd.grad, and stay with who asks."""
        return bool(self._calls) and self._calls[-1] is None

    def is_plain_pass(self):
        """What is being computed accumulates into all leaves, once."""
        return bool(self._calls) and all(self._calls) and not torch.is_grad_enabled()

    def _begin_pass(self):
        if self._passing:
            return
        self.settle_all()
        if self._needs_another_model():
            self._join()
        self._passing = True
        if not self._calls:  # somebody has called the engine of autograd itself
            self._divisor = size()
            torch.autograd.Variable._execution_engine.queue_callback(self._end_pass)
        for told in list(self.on_pass):
            told()
        self._own_digest = self.digest()
        self.job.begin(self._iteration)
        self.job.span("backward", True)

    def _before_accumulation(self, place):
        if self._is_off or self._is_asked_for():
            return
        self._begin_pass()
        parameter = self.parameters[place]
        if parameter.grad is not None and place not in self._aside and place not in self._handed_in:
            self._aside[place] = parameter.grad
            parameter.grad = None

    def _after_accumulation(self, place, parameter):
        if self._is_off:
            return
        self._begin_pass()
        if place in self._handed_in:
            return
        if self.factors.is_chosen(place):
            self._hand_in_factors(place, parameter)
            return
        gradient = parameter.grad
        if gradient is None:
            return
        if place in self._by_rows:
            # Its rows are of unequal number, and are gathered when the pass has ended.
            self._rows[place], parameter.grad = gradient, None
            return
        self._handed_in.add(place)
        if self.is_watching(place):
            self.factors.check(place, gradient)
            self._shown.add(place)
        if gradient.is_sparse:
            self._sparse.add(place)
            gradient = parameter.grad = gradient.to_dense()
        self._submit(place, _dense(gradient, parameter), self._own_digest)

    def _submit(self, place, gradient, digest):
        job, iteration, gradient = self.job, self._iteration, _real(gradient)
        if not self._staging.is_for(gradient):
            job.submit(place, iteration, gradient, digest)
            return
        self._staging.hand_in(place, [gradient], lambda memory: job.submit(place, iteration, memory, digest), [self._staging.memory(place, gradient)])

    def _submit_factors(self, place, outputs, inputs, destination, digest):
        job, iteration = self.job, self._iteration
        if not self._staging.is_for(outputs):
            job.submit_factors(place, iteration, outputs, inputs, destination, None, digest)
            return
        self._staging.hand_in(place, [outputs, inputs],
                              lambda u, v: job.submit_factors(place, iteration, u, v, destination, None, digest))

    def _wait(self, place):
        self._staging.wait(place)
        return self.job.wait(place)

    def expect_factors(self, place):
        """A pair of factors of this pass comes, and nothing is accumulated where it comes from."""
        self._before_accumulation(place)

    def _hand_in_factors(self, place, parameter):
        """All that makes up the gradient has come. What is no product of few enough rows goes another way, after the pass (_resolve)."""
        self._handed_in.add(place)
        pairs, rest = self.factors.pairs(place), parameter.grad
        rows = sum(outputs.shape[0] for outputs, _ in pairs)
        parameter.grad = None
        destination = self._destinations[place] = self._memory_for(place, parameter)
        if pairs and rest is None and rows <= self.factors.rows(place):
            outputs, inputs = (torch.cat(parts) if len(parts) > 1 else parts[0].contiguous() for parts in zip(*pairs))
            self._submit_factors(place, outputs, inputs, destination, self._own_digest)
            return
        for outputs, inputs in pairs:
            product = outputs.t() @ inputs
            rest = product if rest is None else rest + product
        self._irregular[place] = rest
        self._hand_in_no_factors(place, destination)

    def _hand_in_no_factors(self, place, destination):
        nothing = [torch.zeros(1, extent, dtype=destination.dtype, device="cpu") for extent in destination.shape]
        self.job.submit_factors(place, self._iteration, *nothing, destination, None, 0)

    def _memory_for(self, place, parameter):
        memory = self._memory.get(place)
        if memory is None or _awaited.shares_memory(memory):
            memory = self._memory[place] = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
        return memory.view_as(memory)  # while this lives the memory is shared

    def _end_pass(self):
        self.job.span("backward", False)
        for place in range(self._in_job):
            if self.factors.is_chosen(place) and place not in self._handed_in:
                self._before_accumulation(place)
                self._hand_in_factors(place, self.parameters[place])
            handed_in = place in self._handed_in
            if not handed_in:
                self._hand_in_absence(place)
            destination = self._destinations.get(place) if handed_in else self._spare[place]
            self._flights[place] = _Flight(self._aside.get(place), handed_in and destination is None, destination, self._own_digest,
                                           self._divisor)
            if place in self._by_rows:
                self._flights[place].rows = self._gather_rows(place)
        self._handed_in.clear()
        self._destinations.clear()
        self._aside.clear()
        self._watched |= self._shown
        self._shown.clear()
        self.factors.end_watching()
        self._iteration += 1
        self._passing = False
        at_once = [place for place in self._flights if not self.may_put_off or not _awaited.guard(self.parameters[place], self.settle)]
        for place in at_once:
            self.settle(self.parameters[place])

    # ---- What is on its way ----

    def flight(self, parameter):
        """Of its gradient, or None: p.grad is what it seems."""
        return self._flights.get(self._known.get(id(parameter)))

    def settle(self, parameter):
        """Waits until the parameter and its gradient are what the script expects them to be."""
        place = self._known.get(id(parameter))
        if place in self._flights:
            self._settle(place)

    def settle_all(self):
        """All of them. All workers call it at the same places of their scripts."""
        for place in list(self._flights):
            if place in self._flights:
                self._settle(place)

    def _settle(self, place):
        """This one, and whichever else has come by now: steps of many small parameters take one call."""
        odd = self._take_regular([place, *(other for other in self.job.arrived()
                                           if other != place and other in self._flights and self._flights[other].rows is None)])
        if odd:
            self._resolve(odd)

    def _take_regular(self, places):
        """Waits for these. Returns (flight, sum) by place of those whose sum does not carry the digest of all workers, which are not taken."""
        regular, odd = [], {}
        for place in places:
            summed, flight = self._wait(place), self._flights.pop(place)
            if summed.samples == flight.digest * summed.contributors:
                regular.append((place, flight, summed))
            else:
                odd[place] = (flight, summed)
        self._take(regular)
        return odd

    def _take(self, come):
        """What has come, (place, flight, sum) each, to the parameters, and then what was put off: the first things of all, then the second ones."""
        with torch.no_grad():
            for place, flight, summed in come:
                self._take_average(place, flight, summed)
        for turn in range(max((len(flight.then) for _, flight, _ in come), default=0)):
            together = {}
            for place, flight, _ in come:
                if turn < len(flight.then):
                    together.setdefault(flight.then[turn], []).append(self.parameters[place])
            for act, parameters in together.items():
                act(parameters)

    def _take_average(self, place, flight, summed):
        """The average, where anybody had a gradient, on top of what was there before."""
        parameter = self.parameters[place]
        _awaited.restore(parameter)
        before = flight.before
        if flight.rows is not None:
            parameter.grad = self._sum_of_rows(parameter, flight.rows.get_future().wait(), flight.divisor, before)
        elif summed.contributors == 0:
            if before is not None:
                parameter.grad = before
        else:
            if flight.handed_in:
                if self._staging.is_for(parameter):
                    gradient = _real(parameter.grad)
                    self._staging.bring_back(gradient, self._staging.memory(place, gradient))
            else:
                before = parameter.grad if before is None else before
                parameter.grad = flight.destination.to(parameter.device)
                self._spare.pop(place, None)
            if flight.divisor != 1:
                parameter.grad.div_(flight.divisor)
            if place in self._sparse:
                parameter.grad = parameter.grad.to_sparse(1)
            if before is not None:
                parameter.grad = before.add_(parameter.grad)

    def _gather_rows(self, place):
        """All workers ask for it in the order of places."""
        parameter, gradient = self.parameters[place], self._rows.pop(place, None)
        like = torch.empty(0, *parameter.shape[1:], dtype=parameter.dtype, device="cpu")
        if gradient is None:
            return _groups.of_all().gather_rows(None, None, like)
        gradient = (gradient if gradient.is_sparse and gradient.sparse_dim() == 1 else gradient.to_dense().to_sparse(1)).coalesce()
        return _groups.of_all().gather_rows(gradient.indices()[0], gradient.values(), like)

    def _sum_of_rows(self, parameter, gathered, divisor, before):
        if not gathered:
            return before  # nobody had a gradient
        indices, rows = (part.to(parameter.device) for part in gathered)
        if divisor != 1:
            rows.div_(divisor)
        gradient = torch.sparse_coo_tensor(indices.unsqueeze(0), rows, parameter.shape, check_invariants=False)
        return gradient.coalesce() if before is None else before.add_(gradient)

    def _resolve(self, odd):
        """Some gradient of the last pass does not carry the digest of all workers: their settings are not alike, or what somebody computed was
        no product of factors. Every worker comes here after the same pass, since each sees it in the same sums."""
        odd |= self._take_regular(list(self._flights))
        for place in odd:
            _awaited.restore(self.parameters[place])
        irregular, self._irregular = self._irregular, {}
        places = self.on_difference(sorted(irregular))
        self._take([(place, flight, summed) for place, (flight, summed) in odd.items() if place not in places])
        if not places:
            return
        # These are dense from now on, and so is what their factors could not tell of the last pass.
        self.factors.drop(places)
        self._renew()
        self.job.begin(self._iteration)
        rests = {}
        for place in range(self._in_job):
            gradient = irregular.get(place)
            if self.factors.is_chosen(place):
                rests[place] = self._memory_for(place, self.parameters[place])
                self._hand_in_no_factors(place, rests[place])
            elif gradient is None:
                self._hand_in_absence(place)
                rests[place] = self._spare[place]
            else:
                rests[place] = gradient.contiguous().cpu()
                self.job.submit(place, self._iteration, _real(rests[place]), 1)
        self._iteration += 1
        come = []
        for place, rest in rests.items():
            more = self._wait(place)
            if place not in odd or place not in places:
                continue
            flight, summed = odd[place]
            if more.contributors > 0:
                self._spare.pop(place, None)
                flight.destination.add_(rest)
            if summed.samples == 0 and more.contributors == 0:
                summed = more  # nobody had a gradient
            come.append((place, flight, summed))
        self._take(come)

    def _hand_in_absence(self, place):
        if place not in self._spare:
            self._spare[place] = torch.empty_like(self.parameters[place].detach(), device="cpu")
        self.job.submit_absent(place, self._iteration, _real(self._spare[place]))


def _dense(gradient, parameter):
    """The gradient itself, where its memory has no gaps; its elements lie alike on all workers, since its parameter's do."""
    if gradient.stride() == parameter.stride() and _has_no_gaps(gradient) and not gradient.is_conj():
        return gradient
    parameter.grad = torch.empty_like(parameter.detach()).copy_(gradient)
    return parameter.grad


def _real(tensor):
    """Complex numbers travel as pairs of real ones, which share their memory."""
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor


def _has_no_gaps(tensor):
    extents = sorted((stride, extent) for stride, extent in zip(tensor.stride(), tensor.shape) if extent > 1)
    expected = 1
    for stride, extent in extents:
        if stride != expected:
            return False
        expected *= extent
    return True


def _sample_of(parameter):
    numbers = _real(parameter).detach().reshape(-1)
    numbers = numbers[:: max(1, numbers.numel() // _COMPARED_NUMBERS)].contiguous().cpu()
    return zlib.crc32(bytes(numbers.view(torch.uint8).tolist()))
