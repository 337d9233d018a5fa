"""`import caffe` for scripts that were written for Caffe."""
import importlib
import importlib.abc
import importlib.util
import sys

PACKAGE = __name__.rpartition(".")[0]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds caffe.x in poseidon.caffe.x, and as one module: classes exist once."""

    def __init__(self):
        self._own_specs = {}

    def find_spec(self, name, path=None, target=None):
        if name != "caffe" and not name.startswith("caffe."):
            return None
        ours = PACKAGE + name[len("caffe"):]
        if importlib.util.find_spec(ours) is None:
            return None
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, spec):
        module = importlib.import_module(PACKAGE + spec.name[len("caffe"):])
        self._own_specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module):
        # It has run already, under its own name, which the import has just written over.
        module.__spec__ = self._own_specs.pop(module.__spec__.name)
        module.__loader__ = module.__spec__.loader


def install():
    """From now on `import caffe` means poseidon.caffe in this process, unless a `caffe` has been imported before."""
    present = sys.modules.get("caffe")
    if present is not None and present is not sys.modules[PACKAGE]:
        raise ImportError(f"there is another caffe in this process already: {getattr(present, '__file__', present)}; call install() first")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
