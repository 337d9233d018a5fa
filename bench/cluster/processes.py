"""Child processes that do not outlive the harness, and signals that become exceptions.

A measurement leaves namespaces, links and processes in the kernel, so every way out has to pass the clean-up: SIGINT, SIGTERM and
SIGHUP raise Stopped in the main thread, where `with` blocks unwind.
"""
import contextlib
import os
import selectors
import signal
import subprocess
import time

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The user, or whoever started the harness, wants it to end. Not an Exception: no handler of failed rows may swallow it."""


class Failed(Exception):
    """A command or a measured system failed; the text says which and how."""


def raise_on_signals():
    """From here on a signal to end raises Stopped in the main thread."""
    def stop(number, _frame):
        raise Stopped(signal.Signals(number).name)
    for number in _SIGNALS:
        signal.signal(number, stop)


@contextlib.contextmanager
def signals_held():
    """Keeps signals to end waiting while a clean-up runs: an impatient second Ctrl-C must not leave half of it undone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def call(*argv, check=True):
    """Runs a short system command, which the terminal's Ctrl-C does not reach; returns what it printed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
    if check and done.returncode != 0:
        raise Failed(f"'{' '.join(argv)}' failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Children:
    """The processes of one measurement. Leaving the `with` block ends those that still run."""

    # A launcher needs a moment to end the workers it started itself.
    STOP_SECONDS = 5.0

    def __init__(self):
        self._running = {}  # Popen -> path of its log

    def start(self, argv, log, env=None):
        """Starts `argv` with both outputs in the file `log`.

        Its own session keeps the terminal's Ctrl-C from it, so that it ends in our order; the kernel kills it should the harness
        itself be killed.
        """
        with open(log, "wb") as out, signals_held():
            # setpriv replaces itself by the command; the children of a process with blocked signals would keep them blocked.
            child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)], stdin=subprocess.DEVNULL,
                                     stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True,
                                     preexec_fn=_unblock_signals)
            self._running[child] = log
        return child

    def wait(self, seconds):
        """Waits until all have ended well. Raises Failed as soon as one has failed, or when the time is over."""
        deadline = time.monotonic() + seconds
        waiting = dict(self._running)
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for child in waiting:
                handle = os.pidfd_open(child.pid)
                stack.callback(os.close, handle)
                selector.register(handle, selectors.EVENT_READ, child)
            while waiting:
                ended = selector.select(max(0.0, deadline - time.monotonic()))
                if not ended:
                    raise Failed(f"did not end within {seconds:.0f} s: {tail(next(iter(waiting.values())))}")
                for key, _events in ended:
                    child = key.data
                    selector.unregister(key.fd)
                    log = waiting.pop(child)
                    if child.wait() != 0:
                        raise Failed(f"exit code {child.returncode}: {tail(log)}")

    def stop(self):
        """Ends what still runs: politely, then by force. Only processes started here, by their ids."""
        running = [child for child in self._running if child.poll() is None]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + self.STOP_SECONDS
        for child in running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._running.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        with signals_held():
            self.stop()


def _unblock_signals():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def tail(path, characters=600):
    """The end of a log on one line, for a message."""
    with contextlib.suppress(OSError):
        with open(path, errors="replace") as log:
            lines = [line.strip() for line in log if line.strip()]
        return " / ".join(lines)[-characters:] or "(no output)"
    return "(no log)"
