"""Rank 0 alone writes: on the other ranks what the script writes, renames and removes happens in a folder of their own.

That folder lies over the file system: what is read is looked for there first, so that a script finds what it has written. It is removed
when the script ends. Functions of Python are replaced, and nothing below them: a library that writes from C++ by a path of its own is
not seen here (torch.save is, since poseidon.torch gives it the path).
"""
import atexit
import builtins
import errno
import functools
import io
import os
import shutil
import tempfile

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Not files: what is written there is meant for somebody else than the disk.
_NO_FILES = ("/dev", "/proc", "/sys")


class Overlay:
    """Paths go in, the paths to use instead come out. Descriptors and odd things go through as they are."""

    def __init__(self):
        self._process = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="poseidon-overlay-")
        self._removed = set()
        self._private = []  # folders that this process has made for itself where all make theirs, under names that nobody else has
        # As they were, for the overlay's own work.
        self._stat, self._lstat, self._mkdir, self._replace, self._unlink = os.stat, os.lstat, os.mkdir, os.replace, os.unlink

    def _exists(self, path):
        try:
            self._stat(path)
        except OSError:
            return False
        return True

    def _lexists(self, path):
        try:
            self._lstat(path)
        except OSError:
            return False
        return True

    def _make_folders(self, path):
        if self._exists(path):
            return
        self._make_folders(os.path.dirname(path))
        self._mkdir(path)

    def _real(self, path):
        """The path as text without links in its folder; None for what is no path, and for what is left alone."""
        if not isinstance(path, (str, os.PathLike)):
            return None
        path = os.path.abspath(os.fspath(path))
        if not isinstance(path, str) or any(path == top or path.startswith(top + "/") for top in _NO_FILES):
            return None
        if any(path == folder or path.startswith(folder + "/") for folder in (self._folder, *self._private)):
            return None
        return path

    def _over(self, path):
        return self._folder + path

    def over(self, path):
        """Where it would lie in the overlay, whether there is something or not; the path itself where that is left alone."""
        real = self._real(path)
        return path if real is None else self._over(real)

    def reading(self, path):
        real = self._real(path)
        if real is None:
            return path
        if self._lexists(self._over(real)):
            return self._over(real)
        if self._is_removed(real):
            return self._over(real)  # where there is nothing
        return path

    def _is_removed(self, real):
        return any(real == gone or real.startswith(gone + "/") for gone in self._removed)

    def writing(self, path, keeps):
        """`keeps`: what the file holds is changed, not replaced."""
        real = self._real(path)
        if real is None:
            return path
        over = self._over(real)
        folder = os.path.dirname(real)
        if not self._exists(self._over(folder)) and (self._is_removed(folder) or not self._exists(folder)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._make_folders(os.path.dirname(over))
        if keeps and not self._lexists(over) and self._exists(real) and not self._is_removed(real):
            shutil.copy2(real, over)
        return over

    def remove(self, path, function):
        real = self._real(path)
        if real is None:
            return function(path)
        over = self._over(real)
        there = self._lexists(over)
        if there:
            function(over)
        elif self._is_removed(real) or not self._lexists(real):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._removed.add(real)
        return None

    def rename(self, source, target):
        real_source, real_target = self._real(source), self._real(target)
        if real_source is None or real_target is None:
            # A private folder may lie on another disk than the overlay.
            if self._folder_of_its_own(source) or self._folder_of_its_own(target):
                self._move(self.reading(source), self.writing(target, keeps=False))
                if real_source is not None:
                    self._removed.add(real_source)
                return None
            return self._replace(source, target)
        origin = self.reading(source)
        into = self.writing(target, keeps=False)
        if origin == source or os.path.isdir(origin):
            # The original stays where it is, for rank 0 to rename.
            if os.path.isdir(origin):
                shutil.copytree(origin, into, dirs_exist_ok=True)
            else:
                shutil.copy2(origin, into)
        else:
            self._replace(origin, into)
        self._removed.add(real_source)
        return None

    def _move(self, source, target):
        try:
            self._replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if os.path.isdir(source):
                shutil.copytree(source, target, dirs_exist_ok=True)
                shutil.rmtree(source)
            else:
                shutil.copy2(source, target)
                self._unlink(source)

    def _folder_of_its_own(self, path):
        return any(os.path.abspath(os.fspath(path)).startswith(folder + "/") for folder in self._private)

    def make_private(self, path):
        """What lies there is the process's alone, and others that it works with (a socket's other end, a compiler) find it by its name."""
        self._mkdir(path, 0o700)
        self._private.append(os.path.realpath(path))
        return path

    def make_folder(self, path, function, *arguments):
        real = self._real(path)
        if real is None:
            return function(path, *arguments)
        if self._exists(self.reading(path)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        over = self.writing(path, keeps=False)
        return function(over, *arguments)

    def names(self, path, names):
        """Those in a folder, of both."""
        real = self._real(path)
        if real is None:
            return names(path)
        below = [] if self._is_removed(real) or not self._exists(real) else names(path)
        above = names(self._over(real)) if self._exists(self._over(real)) else []
        gone = {os.path.basename(removed) for removed in self._removed if os.path.dirname(removed) == real}
        return [name for name in below if name not in gone and name not in above] + above

    def close(self):
        if os.getpid() == self._process:  # and not a child that was forked
            shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def install():
    """Replaces Python's functions. Returns the overlay, of which a process has one."""
    overlay = Overlay()
    atexit.register(overlay.close)

    def replace(module, name, make):
        original = getattr(module, name)
        setattr(module, name, functools.wraps(original)(make(original)))

    def make_open(original):
        def opened(file, mode="r", *arguments, **options):
            if any(letter in mode for letter in "wax+"):
                return original(overlay.writing(file, keeps="w" not in mode), mode, *arguments, **options)
            return original(overlay.reading(file), mode, *arguments, **options)
        return opened

    replace(builtins, "open", make_open)
    io.open = builtins.open

    def make_os_open(original):
        def opened(path, flags, mode=0o777, *, dir_fd=None):
            if dir_fd is not None:
                return original(path, flags, mode, dir_fd=dir_fd)
            if flags & _WRITING:
                return original(overlay.writing(path, keeps=not flags & os.O_TRUNC), flags, mode)
            return original(overlay.reading(path), flags, mode)
        return opened

    replace(os, "open", make_os_open)
    for name in ("stat", "lstat", "access", "readlink", "scandir"):
        def make_reader(original):
            def read(path=".", *arguments, **options):
                return original(path if options.get("dir_fd") is not None else overlay.reading(path), *arguments, **options)
            return read
        if name != "scandir":
            replace(os, name, make_reader)
    replace(os, "listdir", lambda original: lambda path=".": overlay.names(path, original))
    for name in ("remove", "unlink", "rmdir"):
        def make_remover(original):
            def remove(path, *, dir_fd=None):
                return original(path, dir_fd=dir_fd) if dir_fd is not None else overlay.remove(path, original)
            return remove
        replace(os, name, make_remover)
    for name in ("rename", "replace"):
        replace(os, name, lambda original: lambda source, target, **options: original(source, target, **options) if options else overlay.rename(source, target))

    def make_mkdtemp(original):
        def made(suffix=None, prefix=None, dir=None):
            path = original(suffix, prefix, dir)
            return overlay.make_private(path) if dir is None or os.path.abspath(os.fsdecode(dir)) == tempfile.gettempdir() else path
        return made

    replace(tempfile, "mkdtemp", make_mkdtemp)
    replace(os, "mkdir", lambda original: lambda path, mode=0o777, *, dir_fd=None: original(path, mode, dir_fd=dir_fd) if dir_fd is not None
            else overlay.make_folder(path, original, mode))
    return overlay
