"""Buffers that batches pass through on their way to the device, and the events that keep their users apart."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from weathermill.tensors.shards import as_tensor
from weathermill.tensors.store import TensorStore
from weathermill.training.memory import HostBuffer
from weathermill.training.reading import LOOK_SECONDS


@dataclass
class CopyTimer:
    """Adds up how long copies to a CUDA device took, from pairs of events, without waiting for them."""

    seconds: float = 0.0
    _pairs: deque[tuple[Any, Any]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, start: Any, stop: Any) -> None:
        """Keep the events of one copy."""
        with self._lock:
            self._pairs.append((start, stop))
            while self._pairs and self._pairs[0][1].query():
                self._count(*self._pairs.popleft())

    def _count(self, start: Any, stop: Any) -> None:
        self.seconds += start.elapsed_time(stop) / 1e3

    def take(self) -> float:
        """Give the seconds of the copies that are through, and start from zero.

        Copies under way count the next time: they may be those of an epoch that has not begun.
        """
        with self._lock:
            while self._pairs and self._pairs[0][1].query():
                self._count(*self._pairs.popleft())
            seconds, self.seconds = self.seconds, 0.0
        return seconds


class DeviceSlot:
    """A buffer on the device that batches pass through, with the events that keep them apart.

    `copied` is recorded on the copying stream when the batch is there, `released` on the computing stream
    when it is no longer needed.
    """

    def __init__(self, shape: tuple[int, ...], index: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tensor = torch.empty(shape, dtype=dtype, device=device)
        self.index = torch.empty(index, dtype=torch.int64, device=device)
        self.copied: torch.cuda.Event | None = None
        self.released: torch.cuda.Event | None = None

    def begin(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        """Have the copying stream wait until the slot is free; gives an event of the copy's start."""
        if self.released is not None:
            stream.wait_event(self.released)
        start = torch.cuda.Event(enable_timing=True)
        start.record(stream)
        return start

    def end(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        """Mark the copy as queued."""
        self.copied = torch.cuda.Event(enable_timing=True)
        self.copied.record(stream)
        return self.copied

    def hand_over(self) -> None:
        """Have the computing stream wait for the copy."""
        torch.cuda.current_stream(self.tensor.device).wait_event(self.copied)

    def release(self) -> None:
        """Say that all work on the slot has been queued."""
        self.released = torch.cuda.Event()
        self.released.record(torch.cuda.current_stream(self.tensor.device))


class HostSlot:
    """A page-locked buffer that a batch is read into; `copied` is recorded when the device has it."""

    def __init__(self, states: int, store: TensorStore, pin: bool) -> None:
        self.buffer = HostBuffer((states, *store.state_shape), store.numpy_dtype, pin)
        self.array = self.buffer.array
        self.tensor = as_tensor(self.array, store.dtype)
        self.index_buffer = HostBuffer((states,), np.dtype(np.int64), pin)
        self.index = torch.from_numpy(self.index_buffer.array)
        self.copied: torch.cuda.Event | None = None

    def close(self) -> None:
        """Unlock the memory."""
        self.buffer.close()
        self.index_buffer.close()


class SlotPool:
    """Free buffers, which two epochs that follow each other share.

    Parameters
    ----------
    slots
        All of them, free at first.
    changed
        Told of each that comes back; pools and epochs share it, so that one who waits for several things waits once.
    """

    def __init__(self, slots: Iterable[Any], changed: threading.Condition) -> None:
        self._free = deque(slots)
        self._changed = changed

    def __len__(self) -> int:
        return len(self._free)

    def put(self, slot: Any) -> None:
        """Give a buffer back."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify_all()

    def take(self, given_up: Callable[[], bool]) -> Any:
        """Wait for a buffer; None once `given_up` says so (which has to tell `changed`)."""
        with self._changed:
            while not given_up():
                if self._free:
                    return self._free.popleft()
                self._changed.wait(LOOK_SECONDS)
        return None
