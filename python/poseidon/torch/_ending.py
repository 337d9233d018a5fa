"""How a worker ends: one whose script ends well leaves the job in order, one whose script fails ends it for all, with its reason.

Whoever must end because another worker has failed says so in one line, and ends with an exit code by which the launcher knows that it is
not to blame.
"""
import atexit
import os
import sys

from . import _engine, _groups
from ._worker import rank

OTHERS_FAILED = 75


class Ending:
    def __init__(self, gradients, metrics):
        self._gradients, self._metrics = gradients, metrics
        self._process = os.getpid()
        self._failure = None
        self._others_failed = False
        excepthook, leave = sys.excepthook, sys.exit

        def on_exception(kind, value, traceback):
            if self._is_told_by_others(value):
                self._stop_for_others(value)
                return
            self._failure = f"{kind.__name__}: {value}" if str(value) else kind.__name__
            excepthook(kind, value, traceback)

        def on_exit(code=None):
            if os.getpid() == self._process and code not in (None, 0, False):
                self._failure = f"exit code {code}" if isinstance(code, int) else str(code)
            leave(code)

        sys.excepthook, sys.exit = on_exception, on_exit
        atexit.register(self._close)

    def _is_told_by_others(self, error):
        """The job is over, which is why something here could not be done. (Where nothing was over, it is this worker's own mistake.)"""
        job = self._gradients.job
        return isinstance(error, _engine.JobError) and (job is None or job.error() is not None)

    def _stop_for_others(self, error):
        self._others_failed = True
        print(f"poseidon: rank {rank()} stops: {error}", file=sys.stderr, flush=True)

    def _close(self):
        if os.getpid() != self._process:
            return
        job = self._gradients.job
        if job is not None and not self._others_failed:
            if self._failure is not None:
                job.fail(f"the script of rank {rank()} ended with {self._failure}")
            else:
                try:
                    self._gradients.settle_all()
                    self._metrics.tell()
                    _groups.close()
                    job.leave()
                except _engine.JobError as error:
                    self._stop_for_others(error)
        self._gradients.job = None
        if self._others_failed:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(OTHERS_FAILED)
