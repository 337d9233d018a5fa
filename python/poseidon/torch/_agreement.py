"""What optimisers compute with must be alike on all workers: otherwise their parameters part, and nobody sees it.

Each backward pass carries a digest of the optimisers' settings (learning rates, momenta and the like) beside the gradients. It costs
nothing; where the digests differ the workers tell each other the settings, and all end with a sentence that names rank and setting.
"""
import json
import weakref
import zlib

import torch

from ._worker import rank

# Sums over 4,096 workers stay below 2^32, which is what travels.
DIGEST_MAX = (1 << 19) - 1


class DifferentSettings(RuntimeError):
    """The workers' optimisers would compute different steps."""


class Agreement:
    def __init__(self, gradients):
        self._gradients = gradients
        self._optimizers = []  # in the order in which they were made: alike on all workers
        gradients.digest = self.digest
        gradients.on_difference = self.explain

    def add(self, optimizer):
        if not any(known() is optimizer for known in self._optimizers):
            self._optimizers.append(weakref.ref(optimizer))

    def settings(self):
        """Names and values, of plain ones."""
        found = {}
        for number, known in enumerate(self._optimizers):
            optimizer = known()
            if optimizer is None:
                continue
            for place, group in enumerate(optimizer.param_groups):
                for name, value in group.items():
                    if name != "params":
                        _collect(found, f"{name} of group {place} of optimiser {number} ({type(optimizer).__name__})", value)
        return found

    def digest(self):
        return zlib.crc32(repr(self.settings()).encode()) % DIGEST_MAX + 1

    def explain(self, irregular):
        """All workers call it after the same backward pass, each with the places of tensors whose gradient was not what it had said. Returns those of
        all."""
        own = {name: repr(value) for name, value in self.settings().items()}
        answers = [json.loads(text) for text in self._gradients.job.gather(json.dumps([own, irregular]))]
        everybodys = [settings for settings, _ in answers]
        for other, settings in enumerate(everybodys):
            for name in everybodys[0] | settings:
                if settings.get(name) != everybodys[0].get(name):
                    raise DifferentSettings(f"rank {other} has {settings.get(name, 'no')} as {name}, and rank 0 has {everybodys[0].get(name, 'no')}: "
                                            "their steps would differ. A decision that rests on a value which only one worker has "
                                            f"(a local loss, a clock) must be taken by all alike (this is rank {rank()})")
        return {place for _, places in answers for place in places}


def _collect(found, name, value):
    if isinstance(value, (bool, int, float, str)) or value is None:
        found[name] = value
    elif isinstance(value, torch.Tensor) and value.numel() == 1 and value.device.type == "cpu":
        found[name] = value.item()
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            _collect(found, f"{name}[{index}]", part)
