"""The rows that say how good the engine is, all of them: what `run.py --matrix` measures."""
import dataclasses

from . import models, units


@dataclasses.dataclass(frozen=True)
class Row:
    """One model on one cluster, and the systems to measure there."""
    model: str
    nodes: int
    equivalent: int                    # bits per second
    systems: tuple
    batch: int | None = None           # instead of the published one
    samples_per_second: float | None = None


_TEN, _TWO, _ONE = (units.parse_rate(rate) for rate in ("10Gbit", "2Gbit", "1Gbit"))
_EVERY = ("poseidon", "ddp")
# Where schemes and schedules are compared with each other: many parameters, few, and those that fully connected layers hold.
_COMPARED = ("vgg19", "vgg19-22k", "alexnet", "resnet-152")
_SCHEMES = ("poseidon:ps", "poseidon:sfb", "poseidon:adam", "poseidon:block", "poseidon:wfbp", "poseidon:none", "horovod")

ROWS = [
    # How much of the line dense tensors of 100 MB fill, both ways at once.
    *(Row("push-pull", nodes, _ONE, ("poseidon",)) for nodes in (2, 4, 8)),
    *(Row(model, nodes, rate, _EVERY) for rate in (_TEN, _TWO) for nodes in (4, 8) for model in sorted(models.PUBLISHED)),
    # One GPU computes a batch of 32 slower per image, and still waits more for the network.
    Row("alexnet", 8, _TEN, _EVERY, batch=32, samples_per_second=675),
    *(Row(model, 8, _TEN, _SCHEMES) for model in _COMPARED),
]
