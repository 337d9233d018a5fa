"""A seed that all workers of a job have, and no other job."""
import functools
import hashlib
import os


@functools.cache
def seed_of_all():
    """31 bits. Made of the job's secret, by a function that does not give it away."""
    with open(os.environ["POSEIDON_SECRET_FILE"], "rb") as file:
        digest = hashlib.sha256(b"poseidon: seed of all workers" + file.read()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
