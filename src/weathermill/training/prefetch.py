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
from typing import Any

import numpy as np
import torch

from weathermill.errors import WeathermillError
from weathermill.tensors.shards import as_tensor
from weathermill.tensors.store import TensorStore
from weathermill.training.reading import LOOK_SECONDS, ReadingThreads
from weathermill.training.sampling import ReadPlan, plan_reads
from weathermill.training.slots import CopyTimer, DeviceSlot, HostSlot, SlotPool

# A larger read is cut by states, so that few windows of a fine grid still occupy all threads.
_READ_BYTES = 32 * 2**20


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
        if self.cuda:
            shape = (states, *store.state_shape)
            self.device_slots = [DeviceSlot(shape, states, store.torch_dtype, device) for _ in range(3)]
        self.changed = threading.Condition()
        self._active: list[MappedEpoch] = []
        self._refill()

    def _refill(self) -> None:
        self.free_host = SlotPool(self.host, self.changed)
        self.free_device = SlotPool(self.device_slots, self.changed)

    def _end_active(self) -> None:
        for epoch in reversed(self._active):
            epoch.close()
        self._active = []

    def close(self) -> None:
        """Stop the threads and give the buffers back."""
        self._end_active()
        self.threads.close()
        if self.cuda:
            torch.cuda.synchronize(self.device)
        for slot in self.host:
            slot.close()
        self.host, self.device_slots = [], []
        self._refill()

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

    def epoch(self, batches: Sequence[np.ndarray], steps: int, after: bool = False) -> MappedEpoch:
        """Begin to read the batches of an epoch; gives an iterator of (starts, window).

        Parameters
        ----------
        batches
            Window starts of each batch.
        steps
            A window has ``steps + 1`` states.
        after
            Read these when the epoch under way has no more to read, into the buffers that it leaves free; that epoch goes
            on. Otherwise reading begins at once, and an epoch that was not finished ends here.
        """
        self._active = [epoch for epoch in self._active if not epoch.ended]
        if not after:
            self._end_active()
            self._refill()
        before = self._active[-1] if self._active else None
        self._active.append(MappedEpoch(self, batches, steps, before))
        return self._active[-1]


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
    before
        The epoch that goes first.
    """

    def __init__(
        self,
        reader: MappedReader,
        batches: Sequence[np.ndarray],
        steps: int,
        before: MappedEpoch | None = None,
    ) -> None:
        self.reader, self.batches, self.steps = reader, batches, steps
        self._before = before
        self._ready: queue.Queue[_Ready | BaseException | None] = queue.Queue()
        self._stop = threading.Event()
        # All reads are under way; all batches are handed over, or never will be.
        self._all_begun = self._all_ready = False
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

    @property
    def ended(self) -> bool:
        """Whether it is closed, with all buffers given back."""
        return self._stop.is_set() and not self._worker.is_alive()

    def _release(self) -> None:
        slot, self._current = self._current, None
        if slot is None:
            return
        if self.reader.cuda:
            slot.release()
        self._give_back(slot)

    def _give_back(self, slot: Any) -> None:
        (self.reader.free_device if self.reader.cuda else self.reader.free_host).put(slot)

    def _tell(self, **flags: bool) -> None:
        with self.reader.changed:
            for name, value in flags.items():
                setattr(self, name, value)
            self.reader.changed.notify_all()

    def _let_first(self, flag: str) -> None:
        """Wait until the epoch before has come so far, or is gone."""
        before = self._before
        with self.reader.changed:
            while (
                before is not None
                and before._worker.is_alive()
                and not (getattr(before, flag) or self._stop.is_set())
            ):
                self.reader.changed.wait(LOOK_SECONDS)

    def close(self) -> None:
        """Stop reading; the buffers are free once the worker has gone."""
        self._release()
        self._stop.set()
        self._tell()
        self._worker.join()
        self._before = None
        while True:
            try:
                item = self._ready.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, tuple):
                self._give_back(item[2])

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
        stopped = self._stop.is_set
        free_host = self.reader.free_host

        def recycle(wait: bool) -> None:
            while copying and (copying[0].copied.query() or wait):
                copying[0].copied.synchronize()
                free_host.put(copying.popleft())
                wait = False

        try:
            self._let_first("_all_begun")
            while (todo or reading) and not stopped():
                while todo:
                    recycle(wait=not (reading or len(free_host)))
                    if reading and not len(free_host):
                        break
                    slot = free_host.take(stopped)
                    if slot is None:
                        return
                    plan = plan_reads(todo[0], self.steps)
                    reading.append((todo.popleft(), plan, slot, self.reader.submit(plan, slot)))
                if not todo:
                    self._tell(_all_begun=True)
                starts, plan, slot, futures = reading[0]
                self.reader.threads.finish(futures)
                target: Any = slot
                if self.reader.cuda:
                    # Those of the epoch before are needed first; it might wait for ever for what is taken here.
                    self._let_first("_all_ready")
                    target = self.reader.free_device.take(stopped)
                    if target is None:
                        return
                    self.reader.copy(slot, target, plan)
                    copying.append(slot)
                reading.popleft()
                self._ready.put((starts, plan, target))
                recycle(wait=False)
            self._ready.put(None)
        except WeathermillError as error:
            self._ready.put(error)
        except BaseException as error:
            failure = self.reader.threads.failure(repr(error))
            failure.__cause__ = error
            self._ready.put(failure)
        finally:
            self._tell(_all_begun=True, _all_ready=True)
            for _, _, slot, futures in reading:
                self.reader.threads.abandon(futures)
                free_host.put(slot)
            for slot in copying:
                slot.copied.synchronize()
                free_host.put(slot)
