"""The two resident tiers: a split held in device memory, or in page-locked host memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch

from weathermill.tensors.shards import as_tensor
from weathermill.tensors.store import TensorStore
from weathermill.training.memory import HostBuffer
from weathermill.training.reading import ReadingThreads
from weathermill.training.sampling import ReadPlan, plan_reads
from weathermill.training.slots import CopyTimer, DeviceSlot

_CHUNK_BYTES = 256 * 2**20


class RunIndex:
    """Where the states of a split lie in a tensor that holds its runs one after the other.

    Parameters
    ----------
    runs
        Half-open runs of time indices.
    """

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        self.runs = sorted(runs)
        lengths = np.array([stop - start for start, stop in self.runs])
        self._starts = np.array([start for start, _ in self.runs])
        self._shifts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) - self._starts
        self.states = int(lengths.sum())

    def local(self, times: np.ndarray) -> np.ndarray:
        """Turn time indices of the store into positions in the tensor."""
        return times + self._shifts[np.searchsorted(self._starts, times, "right") - 1]

    def chunks(self, states: int) -> Iterator[tuple[int, int, int]]:
        """Cut the runs into (start, stop, position) pieces of at most so many states."""
        at = 0
        for start, stop in self.runs:
            for first in range(start, stop, states):
                last = min(first + states, stop)
                yield first, last, at
                at += last - first


def load_host(store: TensorStore, index: RunIndex, threads: int, pin: bool) -> HostBuffer:
    """Read a split into host memory with many threads."""
    buffer = HostBuffer((index.states, *store.state_shape), store.numpy_dtype, pin)
    per_read = max(1, 32 * 2**20 // store.state_nbytes)
    with closing(ReadingThreads(store, threads)) as reading:
        futures = [
            reading.pool.submit(store.read_into, start, stop, buffer.array[at : at + stop - start])
            for start, stop, at in index.chunks(per_read)
        ]
        reading.finish(futures)
    return buffer


def load_device(store: TensorStore, index: RunIndex, threads: int, device: torch.device) -> torch.Tensor:
    """Read a split into device memory by way of two page-locked buffers."""
    if device.type != "cuda":
        return as_tensor(load_host(store, index, threads, pin=False).array, store.dtype).to(device)
    data = torch.empty((index.states, *store.state_shape), dtype=store.torch_dtype, device=device)
    per_chunk = max(1, _CHUNK_BYTES // store.state_nbytes)
    per_read = max(1, per_chunk // threads)
    buffers = [HostBuffer((per_chunk, *store.state_shape), store.numpy_dtype, True) for _ in range(2)]
    events: list[torch.cuda.Event | None] = [None, None]
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with closing(ReadingThreads(store, threads)) as reading:
            for k, (start, stop, at) in enumerate(index.chunks(per_chunk)):
                buffer = buffers[k % 2]
                if events[k % 2] is not None:
                    events[k % 2].synchronize()
                ranges = [(i, min(i + per_read, stop)) for i in range(start, stop, per_read)]
                futures = [
                    reading.pool.submit(
                        store.read_into, first, last, buffer.array[first - start : last - start]
                    )
                    for first, last in ranges
                ]
                reading.finish(futures)
                with torch.cuda.stream(stream):
                    source = as_tensor(buffer.array[: stop - start], store.dtype)
                    data[at : at + stop - start].copy_(source, non_blocking=True)
                    events[k % 2] = torch.cuda.Event()
                    events[k % 2].record(stream)
        stream.synchronize()
        torch.cuda.current_stream(device).wait_stream(stream)
    finally:
        for buffer in buffers:
            buffer.close()
    return data


class DeviceTier:
    """The split lies in device memory; a batch is one gather there, with no work per sample in Python.

    Serves any torch device, the CPU included, where it is plain memory.
    """

    def __init__(self, store: TensorStore, index: RunIndex, device: torch.device, threads: int) -> None:
        self.index, self.device = index, device
        self.shape = store.state_shape
        self.copies = CopyTimer()
        self.dtype = store.dtype
        # On the CPU, NumPy gathers in one thread: torch would wake as many as the step uses, for a copy of megabytes.
        self.host: np.ndarray | None = None
        self.data = torch.empty(0)
        if device.type == "cpu":
            self.host = load_host(store, index, threads, pin=False).array
        else:
            self.data = load_device(store, index, threads, device)

    def epoch(
        self, batches: Sequence[np.ndarray], steps: int, after: bool = False
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Give an iterator of (starts, window) over the batches; the order of the whole epoch goes over at once.

        A small copy per batch would wait for the stream each time.
        """
        del after  # Nothing is read ahead: epochs do not meet.
        if not batches:
            return iter(())
        lengths = [len(starts) * (steps + 1) for starts in batches]
        times = np.concatenate([(starts[:, None] + np.arange(steps + 1)).reshape(-1) for starts in batches])
        local = self.index.local(times)
        if self.host is not None:
            return self._gather_on_host(batches, np.split(local, np.cumsum(lengths)[:-1]), steps)
        positions = torch.from_numpy(local).to(self.device)
        return self._gather(batches, positions.split(lengths), steps)

    def _gather_on_host(self, batches, parts, steps):
        for starts, part in zip(batches, parts, strict=True):
            states = np.take(self.host, part, axis=0)
            yield starts, as_tensor(states, self.dtype).view(len(starts), steps + 1, *self.shape)

    def _gather(self, batches, parts, steps):
        for starts, part in zip(batches, parts, strict=True):
            yield starts, self.data.index_select(0, part).view(len(starts), steps + 1, *self.shape)

    def close(self) -> None:
        """Free the memory."""
        self.data, self.host = torch.empty(0), None


class PinnedTier:
    """The split lies in page-locked host memory; while one batch is computed on, the next is copied.

    Parameters
    ----------
    store, index
        What to hold.
    device
        A CUDA device.
    states
        The largest number of states in a batch.
    threads
        For reading at the start.
    """

    def __init__(
        self, store: TensorStore, index: RunIndex, device: torch.device, states: int, threads: int
    ) -> None:
        self.index, self.device, self.shape = index, device, store.state_shape
        self.buffer = load_host(store, index, threads, pin=True)
        self.data = as_tensor(self.buffer.array, store.dtype)
        self.copies = CopyTimer()
        self._stream = torch.cuda.Stream(device)
        self.slots = [DeviceSlot((states, *self.shape), states, store.torch_dtype, device) for _ in range(3)]
        self.free = deque(self.slots)
        self._active: list[PinnedEpoch] = []

    def epoch(self, batches: Sequence[np.ndarray], steps: int, after: bool = False) -> PinnedEpoch:
        """Begin to copy the batches of an epoch; gives an iterator of (starts, window).

        With `after`, when the epoch under way has no more to copy; otherwise at once, and that one ends here.
        """
        self._active = [epoch for epoch in self._active if not epoch.ended]
        if not after:
            for epoch in self._active:
                epoch.close()
            self._active, self.free = [], deque(self.slots)
        before = self._active[-1] if self._active else None
        self._active.append(PinnedEpoch(self, batches, steps, before))
        return self._active[-1]

    def copy(self, starts: np.ndarray, steps: int, target: DeviceSlot) -> ReadPlan:
        """Queue the copies of a batch to the device."""
        plan = plan_reads(starts, steps)
        with torch.cuda.stream(self._stream):
            begin = target.begin(self._stream)
            for start, stop, at in plan.reads:
                first = int(self.index.local(np.int64(start)))
                target.tensor[at : at + stop - start].copy_(
                    self.data[first : first + stop - start], non_blocking=True
                )
            if plan.index is not None:
                index = torch.from_numpy(plan.index).pin_memory()
                target.index[: plan.index.size].copy_(index, non_blocking=True)
            self.copies.add(begin, target.end(self._stream))
        return plan

    def close(self) -> None:
        """Free the memory."""
        torch.cuda.synchronize(self.device)
        self.buffer.close()
        self.slots, self._active = [], []
        self.free.clear()
        self.data = torch.empty(0)


class PinnedEpoch:
    """The batches of one epoch on their way: an iterator of (starts, window), each valid until the next."""

    def __init__(
        self, tier: PinnedTier, batches: Sequence[np.ndarray], steps: int, before: PinnedEpoch | None = None
    ) -> None:
        self.tier, self.steps, self.ended = tier, steps, False
        self._todo = deque(batches)
        self._ahead: deque[tuple[np.ndarray, ReadPlan, DeviceSlot]] = deque()
        self._current: DeviceSlot | None = None
        self._next: PinnedEpoch | None = None
        if before is not None:
            before._next = self
        if before is None or not before._todo:
            self._fill()

    def _fill(self) -> None:
        # Two copies ahead: the one that the next batch needs, and one to keep the copy engine busy.
        free = self.tier.free
        while free and self._todo:
            starts, target = self._todo.popleft(), free.popleft()
            self._ahead.append((starts, self.tier.copy(starts, self.steps, target), target))
        if free and self._next is not None:
            self._next._fill()

    def __iter__(self) -> PinnedEpoch:
        return self

    def __next__(self) -> tuple[np.ndarray, torch.Tensor]:
        self._release()
        self._fill()
        if not self._ahead:
            self.close()
            raise StopIteration
        starts, plan, slot = self._ahead.popleft()
        slot.hand_over()
        self._current = slot
        states = slot.tensor[: plan.states]
        if plan.index is not None:
            states = states.index_select(0, slot.index[: plan.index.size])
        return starts, states.view(len(starts), self.steps + 1, *self.tier.shape)

    def _release(self) -> None:
        if self._current is not None:
            self._current.release()
            self.tier.free.append(self._current)
            self._current = None

    def close(self) -> None:
        """Leave the rest of the epoch; an epoch that waits for it goes on."""
        if self.ended:
            return
        self.ended = True
        self._release()
        self._todo.clear()
        self.tier.free.extend(slot for *_, slot in self._ahead)
        self._ahead.clear()
        if self._next is not None:
            self._next._fill()
