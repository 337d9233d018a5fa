"""Lets a script that knows nothing of Poseidon be trained by it: `poseidon run` puts this folder in front of PYTHONPATH.

When the script imports torch, poseidon.torch attaches to it; when it imports tensorflow, poseidon.tensorflow does. A `sitecustomize` of
the user's that this one hides is run as well. Only the process that `poseidon run` has started attaches: what that one starts (workers of
a DataLoader, other programs) does not.
"""
import importlib
import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _run_hidden_sitecustomize():
    others = [folder for folder in sys.path if os.path.abspath(folder or ".") != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if os.environ.get("POSEIDON_RANK") is not None and "POSEIDON_ATTACHED" not in os.environ:
    os.environ["POSEIDON_ATTACHED"] = str(os.getpid())
    if os.environ["POSEIDON_RANK"] != "0" and "POSEIDON_ALL_RANKS_WRITE" not in os.environ:
        # Rank 0's progress bars are enough.
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from poseidon import _imports, _seeds  # before the script's folder comes first on the path: it may have a file called poseidon
    except ImportError:
        sys.exit(f"poseidon: {sys.executable} has no package poseidon: install it there (pip install .), or run the script with the Python of the "
                 "environment that has this poseidon")
    _seeds.watch()
    for framework in ("tensorflow", "torch"):
        _imports.after(framework, lambda module: importlib.import_module("poseidon." + module.__name__))
_run_hidden_sitecustomize()
