"""What optimisers compute with must be alike on all workers: otherwise their parameters part, and nobody sees it.

Each backward pass carries a digest beside the gradients: of the optimisers' settings (learning rates, momenta and the like), and of how far
the script has come (steps of each optimiser, batches taken). It costs nothing; where the digests differ the workers tell each other all that,
and all end with a sentence that names rank and setting, or who has skipped what, and where.

Now and then, more and more seldom, samples of the parameters are in it too. Where they differ (a script has added noise to them, or hosts
compute with other instructions) all take rank 0's again, and go on.
"""
import sys
import weakref
import zlib

import torch

from .._call_site import call_site, written
from .._worker import rank
from . import _data
from ._gradients import OutOfStep

# Sums over 4,096 workers stay below 2^32, which is what travels.
DIGEST_MAX = (1 << 19) - 1


class DifferentSettings(RuntimeError):
    """The workers' optimisers would compute different steps."""


_MUST_BE_ALIKE = "A decision that rests on a value which only one worker has (a local loss, a clock) must be taken by all alike"


class _Progress:
    """Of an optimiser."""

    def __init__(self):
        self.steps = 0
        self.called_at = None  # the latest


class Agreement:
    def __init__(self, gradients):
        self._gradients = gradients
        self._optimizers = []  # in the order in which they were made: alike on all workers
        self._progress = weakref.WeakKeyDictionary()
        self._digested = {}    # what _look() found when the digest of the present pass was made
        self._samples = {}     # of the parameters, then
        gradients.digest = self.digest
        gradients.on_difference = self.explain

    def add(self, optimizer):
        if not any(known() is optimizer for known in self._optimizers):
            self._optimizers.append(weakref.ref(optimizer))
            self._progress[optimizer] = _Progress()

    def stepped(self, optimizer):
        """The script has called its step."""
        progress = self._progress.get(optimizer)
        if progress is not None:
            progress.steps += 1
            progress.called_at = call_site()

    def _living(self):
        """Names and optimisers."""
        for number, known in enumerate(self._optimizers):
            optimizer = known()
            if optimizer is not None:
                yield f"optimiser {number} ({type(optimizer).__name__})", optimizer

    def settings(self):
        """Names and values, of plain ones."""
        found = {}
        for whose, optimizer in self._living():
            for place, group in enumerate(optimizer.param_groups):
                for name, value in group.items():
                    if name != "params":
                        _collect(found, f"{name} of group {place} of {whose}", value)
        return found

    def _look(self):
        """How many batches have been taken and where the latest backward pass was called; of each optimiser likewise its steps."""
        found = {whose: (self._progress[optimizer].steps, self._progress[optimizer].called_at) for whose, optimizer in self._living()}
        return found | {"batches": (_data.taken, self._gradients.called_at)}

    def digest(self):
        self._digested = self._look()
        self._samples = self._gradients.samples_of_parameters()
        counts = {name: count for name, (count, _) in self._digested.items()}
        return zlib.crc32(repr((self.settings(), counts, self._samples)).encode()) % DIGEST_MAX + 1

    def explain(self, irregular):
        """All workers call it after the same backward pass, each with the places of tensors whose gradient was not what it had said. Returns those of
        all."""
        settings = {name: repr(value) for name, value in self.settings().items()}
        progress = {name: (count, written(site)) for name, (count, site) in self._digested.items()}
        answers = self._gradients.gather("compares its settings", [settings, progress, self._samples, irregular])
        zeros_settings, zeros_progress, zeros_samples, _ = answers[0]
        for other, (settings, progress, samples, _) in enumerate(answers[1:], 1):
            (batch, site), (zeros_batch, zeros_site) = progress.pop("batches"), zeros_progress["batches"]
            if batch != zeros_batch:
                raise OutOfStep(f"rank {other} computes gradients of its batch {batch} at {site} while rank 0 computes those of its batch {zeros_batch} at "
                                f"{zeros_site}: {_who_skipped(other, batch > zeros_batch)} a backward pass. {_MUST_BE_ALIKE} (this is rank {rank()})")
            for name, (steps, site) in progress.items():
                zeros_steps, zeros_site = zeros_progress.get(name, (steps, site))
                if steps != zeros_steps:
                    raise OutOfStep(f"rank {other} has taken {steps} steps of {name}, the latest at {site}, and rank 0 {zeros_steps}, the latest at "
                                    f"{zeros_site}: {_who_skipped(other, steps < zeros_steps)} a step. {_MUST_BE_ALIKE} (this is rank {rank()})")
            # An optimiser that is no longer used may be gone here and not there.
            for name in sorted(zeros_settings.keys() & settings.keys()):
                if settings[name] != zeros_settings[name]:
                    raise DifferentSettings(f"rank {other} has {settings[name]} as {name}, and rank 0 has {zeros_settings[name]}: "
                                            f"their steps would differ. {_MUST_BE_ALIKE} (this is rank {rank()})")
            if samples != zeros_samples:
                self._gradients.share_values_again()
                if rank() == 0:
                    name = next(name for name in zeros_samples if samples.get(name) != zeros_samples[name])
                    print(f"poseidon: warning: parameters have parted: {name} of rank {other} has other values than rank 0's, which all take now. "
                          "Something changes it that is not alike on all workers (random numbers, other processors)", file=sys.stderr, flush=True)
                break
        return {place for *_, places in answers for place in places}


def _who_skipped(other, is_other):
    return f"rank {other if is_other else 0} has skipped"


def _collect(found, name, value):
    if isinstance(value, (bool, int, float, str)) or value is None:
        found[name] = value
    elif isinstance(value, torch.Tensor) and value.numel() == 1 and value.device.type == "cpu":
        found[name] = value.item()
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            _collect(found, f"{name}[{index}]", part)
