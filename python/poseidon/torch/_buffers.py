"""Buffers (BatchNorm's running statistics and the like) are rank 0's wherever somebody may look at them: before the first forward pass, and
when a module is put into evaluation mode."""
import base64
import functools
import io

import torch

from .._worker import rank

# What one message may carry; more goes in several.
_BYTES_MAX = 4 << 20


class Buffers:
    def __init__(self, gradients):
        self._gradients = gradients
        self._is_within = False
        self._last = None  # the number of backward passes at the last time
        train = torch.nn.Module.train

        @functools.wraps(train)
        def switched(module, mode=True):
            if not mode and module.training and not self._is_within:
                self._is_within = True
                try:
                    self.make_equal(module)
                    return train(module, mode)
                finally:
                    self._is_within = False
            return train(module, mode)

        torch.nn.Module.train = switched

    def make_equal(self, module):
        """All workers call it at the same place of their scripts."""
        gather = functools.partial(self._gradients.gather, "makes its buffers equal")
        buffers = [buffer for buffer in module.buffers() if buffer is not None]
        if self._gradients.job is None or not self._gradients.is_on or not buffers:
            return
        own = _packed(buffers) if rank() == 0 else ""
        parts = [own[begin:begin + _BYTES_MAX] for begin in range(0, len(own), _BYTES_MAX)]
        count = gather(len(parts))[0]
        text = "".join(gather(parts[number] if rank() == 0 else "")[0] for number in range(count))
        if rank() == 0:
            return
        with torch.no_grad():
            for buffer, value in zip(buffers, torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)):
                buffer.copy_(value)


def _packed(buffers):
    stream = io.BytesIO()
    torch.save([buffer.detach().cpu() for buffer in buffers], stream)
    return base64.b64encode(stream.getvalue()).decode()
