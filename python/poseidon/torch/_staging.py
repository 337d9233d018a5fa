"""Gradients of a device pass through the host's memory: each is copied there as soon as the device has computed it, beside what the device
computes next, and handed in by a thread of its own once it has arrived. Sums go back in the order of the device's work.
"""
import concurrent.futures
import os
import queue
import threading

import torch

from .._worker import local_rank


def choose_device():
    """The workers of a host take its GPUs in turn: "cuda" means this worker's own, wherever the script does not name another."""
    if torch.version.cuda and int(os.environ.get("POSEIDON_LOCAL_SIZE", "1")) > 1:
        # When the script first asks for one: a process that never does shall not take memory there.
        torch.cuda._lazy_call(lambda: torch.cuda.set_device(local_rank() % torch.cuda.device_count()))


class Staging:
    def __init__(self):
        # For tests on machines without a device: gradients of the CPU take the same way.
        self._is_for_all = "POSEIDON_STAGE" in os.environ
        self._memory = {}   # by place: the host's, for a dense gradient and its sum
        self._streams = {}  # by device: where copies are made
        self._on_its_way = {}  # by place: done when it has been handed in
        self._copied = queue.SimpleQueue()
        self._thread = None

    def is_for(self, tensor):
        return self._is_for_all or not tensor.is_cpu

    def values(self, parameter):
        """The parameter's, in the host's memory; its own where they are there."""
        return parameter.detach().to("cpu", copy=True) if self.is_for(parameter) else parameter.detach()

    def memory(self, place, like):
        """The host's for a gradient of this tensor's shape and order of elements, the same each time."""
        memory = self._memory.get(place)
        if memory is None or memory.shape != like.shape or memory.stride() != like.stride():
            memory = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu", pin_memory=like.is_cuda)
            self._memory[place] = memory
        return memory

    def hand_in(self, place, tensors, act, memories=None):
        """Calls act(copies) when the tensors have been copied to the host, into `memories` where they are given. Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="poseidon staging", daemon=True)
            self._thread.start()
        if memories is None:
            memories = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cpu", pin_memory=t.is_cuda) for t in tensors]
        arrived = self._copy(tensors, memories)
        handed_in = self._on_its_way[place] = concurrent.futures.Future()
        self._copied.put((arrived, lambda: act(*memories), handed_in))

    def _copy(self, tensors, memories):
        """Something to synchronise with, or None where the copies are made."""
        device = tensors[0].device
        with torch.no_grad():
            if device.type != "cuda":
                for tensor, memory in zip(tensors, memories):
                    memory.copy_(tensor)
                return None
            stream = self._streams.get(device)
            if stream is None:
                stream = self._streams[device] = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for tensor, memory in zip(tensors, memories):
                    memory.copy_(tensor, non_blocking=True)
                    tensor.record_stream(stream)  # its memory is not given to another tensor before
                return stream.record_event()

    def _run(self):
        while True:
            arrived, act, handed_in = self._copied.get()
            try:
                if arrived is not None:
                    arrived.synchronize()
                act()
                handed_in.set_result(None)
            except BaseException as error:
                handed_in.set_exception(error)

    def wait(self, place):
        """Until what is on its way to the engine has been handed in."""
        on_its_way = self._on_its_way.pop(place, None)
        if on_its_way is not None:
            on_its_way.result()

    def bring_back(self, target, memory):
        """On the device's stream: what is computed next sees it."""
        target.copy_(memory, non_blocking=True)
