"""How a worker ends: one whose script ends well leaves the job in order, one whose script fails ends it for all, with its reason.

Whoever must end because another worker has failed says so in one line, and ends with an exit code by which the launcher knows that it is
not to blame.
"""
import atexit
import os
import sys

from ._worker import rank

OTHERS_FAILED = 75


class Ending:
    """`synchronised` has the `job`, or None as long as there is none, and `settle_all()`; `job_error` is what the job raises when it is over. `last`
    is called before a good end, when all is settled."""

    def __init__(self, synchronised, job_error, last):
        self._synchronised, self._job_error, self._last = synchronised, job_error, last
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
        job = self._synchronised.job
        return isinstance(error, self._job_error) and (job is None or job.error() is not None)

    def _stop_for_others(self, error):
        self._others_failed = True
        print(f"poseidon: rank {rank()} stops: {error}", file=sys.stderr, flush=True)

    def _close(self):
        if os.getpid() != self._process:
            return
        job = self._synchronised.job
        if job is not None and not self._others_failed:
            if self._failure is not None:
                job.fail(f"the script of rank {rank()} ended with {self._failure}")
            else:
                try:
                    self._synchronised.settle_all()
                    self._last()
                    job.leave()
                except self._job_error as error:
                    self._stop_for_others(error)
        self._synchronised.job = None
        if self._others_failed:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(OTHERS_FAILED)
