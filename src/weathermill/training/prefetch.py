"""The mapped tier: threads read shards into page-locked buffers, and a side stream copies them to the device.

At any time one batch is computed on, the next is being copied and further ones are being read.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from weathermill.errors import WeathermillError
from weathermill.tensors.shards import as_tensor
from weathermill.tensors.store import TensorStore
from weathermill.training.memory import HostBuffer
from weathermill.training.reading import LOOK_SECONDS, ReadingThreads
from weathermill.training.sampling import ReadPlan, plan_reads

# A larger read is cut by states, so that few windows of a fine grid still occupy all threads.
_READ_BYTES = 32 * 2**20


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
        """Give the seconds so far and start from zero; waits for copies under way."""
        with self._lock:
            while self._pairs:
                self._pairs[0][1].synchronize()
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


_Ready = tuple[np.ndarray, ReadPlan, Any]


# Direct reads fail cleanly on a truncated file, where a memory map kills the process; so they are preferred unless
# the platform makes them much slower (system calls in a sandbox, say).
READERS = {
    "read": lambda store: store.read_into,
    "memmap": lambda store: lambda start, stop, out: store.read_range(start, stop, out=out),
}
_PREFERENCE = 1.25


def choose_reader(store: TensorStore, slots: Sequence[HostSlot], pool: ThreadPoolExecutor) -> str:
    """Time both ways of reading on some states that the page cache holds, and choose the faster.

    Parameters
    ----------
    store
        To read from.
    slots
        Buffers to read into.
    pool
        Threads to read with.
    """
    buffer = slots[0].array
    count = min(len(buffer), len(store), max(1, 2**28 // store.state_nbytes))
    if count * store.state_nbytes < 2**24:
        return "read"
    starts = np.linspace(0, len(store) - 1, count).astype(int)

    def seconds(read: Any) -> float:
        began = time.perf_counter()
        wait([pool.submit(read, i, i + 1, buffer[k : k + 1]) for k, i in enumerate(starts)])
        return time.perf_counter() - began

    read = {name: make(store) for name, make in READERS.items()}
    for name in read:
        seconds(read[name])
    best = {name: min(seconds(read[name]) for _ in range(2)) for name in read}
    return "memmap" if best["memmap"] * _PREFERENCE < best["read"] else "read"


class MappedReader:
    """Reads the batches of an epoch ahead of the consumer.

    Parameters
    ----------
    store
        The store; read by direct calls into the buffers, through the page cache.
    states
        The largest number of states in a batch.
    device
        Where batches go.
    threads
        Reading threads.
    prefetch
        Batches that are being read or are waiting while one is computed on.
    reader
        ``"read"``, ``"memmap"`` or ``"auto"``, see `choose_reader`.
    """

    def __init__(
        self,
        store: TensorStore,
        states: int,
        device: torch.device,
        threads: int,
        prefetch: int,
        reader: str = "auto",
    ) -> None:
        self.store, self.states, self.device = store, states, device
        self.cuda = device.type == "cuda"
        self.copies = CopyTimer()
        self.threads = ReadingThreads(store, threads)
        # Without a copy to a device the consumer works in the host slot itself, which therefore needs one
        # more.
        self.host = [HostSlot(states, store, self.cuda) for _ in range(prefetch + (1 if self.cuda else 2))]
        self.reader = choose_reader(store, self.host, self.threads.pool) if reader == "auto" else reader
        self._read = READERS[self.reader](store)
        self.device_slots: list[DeviceSlot] = []
        self._stream = torch.cuda.Stream(device) if self.cuda else None
        self._active: MappedEpoch | None = None
        if self.cuda:
            shape = (states, *store.state_shape)
            self.device_slots = [DeviceSlot(shape, states, store.torch_dtype, device) for _ in range(3)]

    def close(self) -> None:
        """Stop the threads and give the buffers back."""
        if self._active is not None:
            self._active.close()
        self.threads.close()
        if self.cuda:
            torch.cuda.synchronize(self.device)
        for slot in self.host:
            slot.close()
        self.host, self.device_slots, self._active = [], [], None

    def submit(self, plan: ReadPlan, slot: HostSlot) -> list[Future]:
        """Have the threads read a batch into a buffer."""
        per_read = max(1, _READ_BYTES // self.store.state_nbytes)
        if plan.index is not None:
            slot.index_buffer.array[: plan.index.size] = plan.index
        futures = []
        for start, stop, at in plan.reads:
            for first in range(start, stop, per_read):
                last = min(first + per_read, stop)
                target = slot.array[at + first - start : at + last - start]
                futures.append(self.threads.pool.submit(self._read, first, last, target))
        return futures

    def copy(self, source: HostSlot, target: DeviceSlot, plan: ReadPlan) -> None:
        """Queue the copy of a batch to the device."""
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            start = target.begin(self._stream)
            target.tensor[: plan.states].copy_(source.tensor[: plan.states], non_blocking=True)
            if plan.index is not None:
                target.index[: plan.index.size].copy_(source.index[: plan.index.size], non_blocking=True)
            source.copied = target.end(self._stream)
            self.copies.add(start, source.copied)

    def epoch(self, batches: Sequence[np.ndarray], steps: int) -> MappedEpoch:
        """Begin to read the batches of an epoch; gives an iterator of (starts, window).

        Reading begins at once, so that an epoch asked for before it is needed starts without a wait. An epoch that
        was not finished ends here: the buffers serve one at a time.
        """
        if self._active is not None:
            self._active.close()
        self._active = MappedEpoch(self, batches, steps)
        return self._active


class MappedEpoch:
    """The batches of one epoch on their way: an iterator of (starts, window), each valid until the next.

    Parameters
    ----------
    reader
        Whose threads and buffers serve.
    batches
        Window starts of each batch.
    steps
        A window has ``steps + 1`` states.
    """

    def __init__(self, reader: MappedReader, batches: Sequence[np.ndarray], steps: int) -> None:
        self.reader, self.batches, self.steps = reader, batches, steps
        self._ready: queue.Queue[_Ready | BaseException | None] = queue.Queue()
        self._free_host: queue.Queue[HostSlot | None] = queue.Queue()
        self._free_device: queue.Queue[DeviceSlot | None] = queue.Queue()
        for slot in reader.host:
            self._free_host.put(slot)
        for slot in reader.device_slots:
            self._free_device.put(slot)
        self._stop = threading.Event()
        self._current: Any = None
        self._worker = threading.Thread(target=self._work, name="weathermill-feed", daemon=True)
        self._worker.start()

    def __iter__(self) -> MappedEpoch:
        return self

    def __next__(self) -> tuple[np.ndarray, torch.Tensor]:
        self._release()
        item = None if self._stop.is_set() else self._take()
        if item is None:
            self.close()
            raise StopIteration
        if isinstance(item, BaseException):
            self.close()
            raise item
        starts, plan, slot = item
        self._current = slot
        if self.reader.cuda:
            slot.hand_over()
        return starts, self._windows(slot, plan, len(starts))

    def _take(self) -> _Ready | BaseException | None:
        while True:
            # Before looking into the queue: a worker that ends well puts something there first.
            alive = self._worker.is_alive()
            try:
                return self._ready.get(timeout=LOOK_SECONDS if alive else 0)
            except queue.Empty:
                if not alive:
                    return self.reader.threads.failure("the thread that prepares batches is gone")

    def _release(self) -> None:
        slot, self._current = self._current, None
        if slot is None:
            return
        if self.reader.cuda:
            slot.release()
            self._free_device.put(slot)
        else:
            self._free_host.put(slot)

    def close(self) -> None:
        """Stop reading; the buffers are free once the worker has gone."""
        self._release()
        self._stop.set()
        self._free_device.put(None)
        self._free_host.put(None)
        self._worker.join()

    def _windows(self, slot: Any, plan: ReadPlan, batch: int) -> torch.Tensor:
        shape = (batch, self.steps + 1, *self.reader.store.state_shape)
        if plan.index is not None and self.reader.device.type == "cpu":
            # NumPy gathers in one thread, see `DeviceTier`.
            states = np.take(slot.array[: plan.states], plan.index, axis=0)
            return as_tensor(states, self.reader.store.dtype).view(shape)
        states = slot.tensor[: plan.states]
        if self.reader.device.type not in ("cuda", "cpu"):
            states = states.to(self.reader.device)
        if plan.index is not None:
            index = slot.index[: plan.index.size]
            states = states.index_select(0, index.to(states.device))
        return states.view(shape)

    def _work(self) -> None:
        reading: deque[tuple[np.ndarray, ReadPlan, HostSlot, list[Future]]] = deque()
        # Host buffers that the device is still copying from.
        copying: deque[HostSlot] = deque()
        todo = deque(self.batches)
        try:
            while (todo or reading) and not self._stop.is_set():
                while todo:
                    while copying and (copying[0].copied.query() or not (reading or self._free_host.qsize())):
                        copying[0].copied.synchronize()
                        self._free_host.put(copying.popleft())
                    if reading and not self._free_host.qsize():
                        break
                    slot = self._free_host.get()
                    if slot is None:
                        return
                    plan = plan_reads(todo[0], self.steps)
                    reading.append((todo.popleft(), plan, slot, self.reader.submit(plan, slot)))
                starts, plan, slot, futures = reading[0]
                self.reader.threads.finish(futures)
                target: Any = slot
                if self.reader.cuda:
                    target = self._free_device.get()
                    if target is None:
                        return
                    self.reader.copy(slot, target, plan)
                    copying.append(slot)
                reading.popleft()
                self._ready.put((starts, plan, target))
            self._ready.put(None)
        except WeathermillError as error:
            self._ready.put(error)
        except BaseException as error:
            failure = self.reader.threads.failure(repr(error))
            failure.__cause__ = error
            self._ready.put(failure)
        finally:
            for *_, futures in reading:
                self.reader.threads.abandon(futures)
            for slot in copying:
                slot.copied.synchronize()
