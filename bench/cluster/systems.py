"""The systems that can be measured, by the names the command line uses."""
import importlib.util

from . import ddp, poseidon, torch_system
from .processes import Failed


def check_names(names, hosts_free):
    """Raises ValueError for a name that is no system, or that wants more hosts of its own, before anything long has begun."""
    for name in names:
        if name == "poseidon:torch":
            continue
        if name.split(":")[0] == "poseidon":
            if poseidon.Variant.parse(name).servers > hosts_free:
                raise ValueError(f"'{name}': there is room for {hosts_free} servers besides the nodes")
        elif name not in ("ddp", "horovod"):
            raise ValueError(f"'{name}' is no system; there are poseidon[:SCHEME][:SCHEDULE][:servers=K], poseidon:torch, ddp and horovod")


def measure(name, task, program, scratch, earlier):
    """The row of one system: its figures, or a status that says why there are none. `earlier` is its disturbed row, or None."""
    try:
        if name == "ddp":
            return ddp.measure(task, scratch, earlier)
        if name == "horovod":
            return _horovod()
        if name == "poseidon:torch":
            return torch_system.measure(task, program, scratch)
        return poseidon.measure(task, poseidon.Variant.parse(name), program, scratch)
    except Failed as failure:
        return {"status": "failed", "note": str(failure)}


def _horovod():
    if importlib.util.find_spec("horovod") is None:
        return {"status": "not installed", "note": "this Python has no package horovod"}
    return {"status": "not measured", "note": "horovod is installed, but this harness has no worker for it"}
