"""A seed that all workers of a job have, and no other job; and generators of random numbers that the script has not touched."""
import functools
import hashlib
import os
import random

from . import _imports

_untouched = {}  # by name: what their states were before the script


@functools.cache
def seed_of_all():
    """31 bits. Made of the job's secret, by a function that does not give it away."""
    with open(os.environ["POSEIDON_SECRET_FILE"], "rb") as file:
        digest = hashlib.sha256(b"poseidon: seed of all workers" + file.read()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def watch():
    """To be called before the script begins."""
    _untouched["random"] = random.getstate()
    _imports.after("numpy", lambda numpy: _untouched.update(numpy=_state_of(numpy)))


def seed_what_is_untouched():
    """Python's and NumPy's generators draw alike on all workers from here on, where the script has neither seeded them nor drawn from them."""
    import numpy

    if random.getstate() == _untouched.get("random"):
        random.seed(seed_of_all())
    if _state_of(numpy) == _untouched.get("numpy"):
        numpy.random.seed(seed_of_all())


def _state_of(numpy):
    kind, words, *rest = numpy.random.get_state()
    return kind, words.tobytes(), *rest
