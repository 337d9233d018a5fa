"""Which worker of how many this process is, from the launching contract."""
import os


def rank():
    """0 to size() - 1."""
    return int(os.environ.get("POSEIDON_RANK", "0"))


def local_rank():
    """The same among the workers of this host: which of its devices is this worker's."""
    return int(os.environ.get("POSEIDON_LOCAL_RANK", "0"))


def size():
    """How many workers train together."""
    return int(os.environ.get("POSEIDON_WORLD_SIZE", "1"))


def is_the_scripts_process():
    """The process that `poseidon run` has started: none that this one has started in its turn."""
    return os.environ.get("POSEIDON_ATTACHED") == str(os.getpid())
