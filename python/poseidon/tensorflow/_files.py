"""What TensorFlow and HDF5 write from C++ goes where the overlay says (poseidon/_overlay.py): they get their paths from Python."""
import functools
import os

from tensorflow.python.checkpoint import checkpoint
from tensorflow.python.lib.io import file_io
from tensorflow.python.training import saver

from .. import _imports


def attach(overlay):
    file_io._pywrap_file_io = _FileIo(file_io._pywrap_file_io, overlay)
    _redirect_checkpoints(overlay)
    _imports.after("h5py", lambda module: _redirect_hdf5(module, overlay))


class _FileIo:
    """In the place of the module that opens, lists and removes files for tf.io.gfile and all that uses it."""

    def __init__(self, original, overlay):
        self._original, self._overlay = original, overlay

    def __getattr__(self, name):
        return getattr(self._original, name)

    def BufferedInputStream(self, name, *arguments):
        return self._original.BufferedInputStream(self._overlay.reading(name), *arguments)

    def WritableFile(self, name, mode, *arguments):
        return self._original.WritableFile(self._overlay.writing(name, keeps="a" in os.fsdecode(mode)), mode, *arguments)

    def FileExists(self, name, *arguments):
        return self._original.FileExists(self._overlay.reading(name), *arguments)

    def IsDirectory(self, name, *arguments):
        return self._original.IsDirectory(self._overlay.reading(name), *arguments)

    def Stat(self, name, *arguments):
        return self._original.Stat(self._overlay.reading(name), *arguments)

    def GetChildren(self, name, *arguments):
        return self._overlay.names(name, lambda path: self._original.GetChildren(path, *arguments))

    def GetMatchingFiles(self, pattern, *arguments):
        below = self._original.GetMatchingFiles(pattern, *arguments)
        above = self._original.GetMatchingFiles(self._overlay.over(pattern), *arguments)
        found = {self._overlay.reading(name) for name in below} | set(above)
        return sorted(name for name in found if os.path.lexists(name))

    def CreateDir(self, name, *arguments):
        return self._original.RecursivelyCreateDir(self._overlay.over(name), *arguments)

    def RecursivelyCreateDir(self, name, *arguments):
        return self._original.RecursivelyCreateDir(self._overlay.over(name), *arguments)

    def DeleteFile(self, name, *arguments):
        return self._overlay.remove(name, lambda path: self._original.DeleteFile(path, *arguments))

    def DeleteRecursively(self, name, *arguments):
        return self._overlay.remove(name, lambda path: self._original.DeleteRecursively(path, *arguments))

    def RenameFile(self, source, target, overwrite, *arguments):
        return self._overlay.rename(source, target)

    def CopyFile(self, source, target, overwrite, *arguments):
        return self._original.CopyFile(self._overlay.reading(source), self._overlay.writing(target, keeps=False), True, *arguments)


def _redirect_checkpoints(overlay):
    """A checkpoint is named by what the names of its files begin with."""

    def read_from(prefix):
        if not isinstance(prefix, (str, os.PathLike)):
            return prefix
        above = overlay.over(prefix)
        return above if os.path.lexists(f"{above}.index") or os.path.lexists(above) else prefix

    def written_to(prefix):
        if not isinstance(prefix, (str, os.PathLike)):
            return prefix
        os.makedirs(os.path.dirname(overlay.over(prefix)), exist_ok=True)  # as TensorFlow does
        return overlay.over(prefix)

    def replace(owner, name, make):
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(make(original)))

    replace(saver.Saver, "save", lambda save: lambda self, session, save_path, *arguments, **options: save(
        self, session, written_to(save_path), *arguments, **options))
    replace(saver.Saver, "restore", lambda restore: lambda self, session, save_path: restore(self, session, read_from(save_path)))
    replace(checkpoint.TrackableSaver, "save", lambda save: lambda self, file_prefix, *arguments, **options: save(
        self, written_to(file_prefix), *arguments, **options))
    replace(checkpoint.TrackableSaver, "restore", lambda restore: lambda self, save_path, *arguments, **options: restore(
        self, read_from(save_path), *arguments, **options))


def _redirect_hdf5(module, overlay):
    initialise = module.File.__init__

    @functools.wraps(initialise)
    def opened(self, name, mode="r", *arguments, **options):
        if isinstance(name, (str, os.PathLike)):
            name = overlay.reading(name) if mode == "r" else overlay.writing(name, keeps=mode in ("r+", "a"))
        initialise(self, name, mode, *arguments, **options)

    module.File.__init__ = opened
