"""Functions that are called once a module has been imported, by whomever: before the importer can use it."""
import importlib.util
import sys

_after = {}  # by name of the module: what is to be called with it


class _Finder:
    """Finds modules as everybody else does, and adds what is to be called after their code has run."""

    def __init__(self):
        self._busy = set()

    def find_spec(self, name, path=None, target=None):
        if name not in _after or name in self._busy:
            return None
        self._busy.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy.discard(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            for function in _after.pop(name, ()):
                function(module)

        spec.loader.exec_module = exec_module
        return spec


def after(name, function):
    """At once where the module is there already."""
    if name in sys.modules:
        function(sys.modules[name])
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    _after.setdefault(name, []).append(function)
