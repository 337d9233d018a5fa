"""What the run's folder says of the training's progress: a line a second from each worker, in metrics.jsonl."""
import json
import time

_EVERY_SECONDS = 1.0


class Metrics:
    def __init__(self, gradients):
        self._gradients = gradients
        self._passes = 0
        self._last = None  # (time, passes, waited seconds, bytes sent, bytes received) when it was told last
        gradients.on_pass.append(self._on_pass)

    def _on_pass(self):
        """A backward pass begins."""
        now = time.monotonic()
        if self._last is None:
            self._last = self._look(now)
        self._passes += 1
        if now - self._last[0] >= _EVERY_SECONDS:
            self.tell()

    def _look(self, now):
        job = self._gradients.job
        return now, self._passes, job.waited_seconds, job.bytes_sent(), job.bytes_received()

    def tell(self):
        """Of what there has been since the last time."""
        if self._last is None or self._passes == self._last[1]:
            return
        before, self._last = self._last, self._look(time.monotonic())
        seconds, passes, waited, sent, received = (b - a for a, b in zip(before, self._last))
        self._gradients.job.note(json.dumps({"metrics": {
            "time": round(time.time(), 3), "backward_passes": self._passes, "seconds_each": round(seconds / passes, 6),
            "waited_share": round(waited / seconds, 4) if seconds > 0 else 0.0, "bytes_sent": sent, "bytes_received": received}}))
