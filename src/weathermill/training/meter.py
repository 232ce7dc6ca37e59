"""The starvation meter: where the time of a training step goes, and what to do about it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from weathermill.training.feed import Batch, Feed

# Below this share of waiting there is nothing worth doing.
GOOD = 0.02


class StarvationMeter:
    """Measures the shares of waiting for data, computing and optimising, and how busy the copy engine is.

    On CUDA the times are those of the device, taken with events and read only when they have passed:
    waiting is the gap between the end of one step and the start of the next, whatever its cause. Elsewhere
    they are host times, and waiting is what `next` took.

    Parameters
    ----------
    feed
        Whose copies are counted.
    optimiser
        Its step divides a step into computing and optimising. In a CUDA graph that division is sampled, at
        each `sample`.
    device
        Where the steps run.
    """

    def __init__(self, feed: Feed, optimiser: torch.optim.Optimizer | None, device: torch.device) -> None:
        self.feed = feed
        self.cuda = device.type == "cuda"
        self._mark: Any = None
        self._marked = False
        if optimiser is not None:
            if self.cuda:
                # An external event is recorded anew by each replay of the graph that it was captured into.
                with contextlib.suppress(TypeError):
                    self._mark = torch.cuda.Event(enable_timing=True, external=True)
            optimiser.register_step_pre_hook(self._before_optimiser)
        self.reset()

    def reset(self) -> None:
        """Begin a new epoch."""
        self.waiting = self.busy = self.computing = self.optimising = 0.0
        self.host_waiting = self.starting = 0.0
        self.steps = self.samples = 0
        self._pending: list[tuple[Any, Any, Any]] = []
        self._last_end: Any = None
        self._paused = False
        self._start: Any = None
        self._stepped: Any = None
        self.feed.take_copy_seconds()
        self._began = time.perf_counter()

    def _before_optimiser(self, *_: Any) -> None:
        self._marked = True
        if self.cuda and self._mark is not None:
            self._mark.record()
        elif not self.cuda:
            self._mark = time.perf_counter()

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, measuring the wait for each and the step that the caller takes with it."""
        iterator = iter(batches)
        try:
            while True:
                before, host = self._now(), time.perf_counter()
                batch = next(iterator, None)
                self.host_waiting += time.perf_counter() - host
                if batch is None:
                    return
                start = self._start = self._now()
                self._marked, self._stepped = False, None
                yield batch
                # Without a mark of the step's own end, what the caller did with its result counts as part
                # of it.
                end = self._now() if self._stepped is None else self._stepped
                self._step(
                    before if self._last_end is None else self._last_end, start, end, len(batch.starts)
                )
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def stepped(self) -> None:
        """Mark the end of the step itself; what the caller does with its result comes after."""
        self._stepped = self._now()

    def _step(self, before: Any, start: Any, end: Any, samples: int) -> None:
        self.steps += 1
        self.samples += samples
        if self.cuda:
            self._pending.append((before, start, end))
            self._last_end = None if self._paused else end
            self._paused = False
            self._settle(False)
            return
        self._count(start - before, end - start)
        if self._marked and self._stepped is not None:
            self.computing += self._mark - start
            self.optimising += self._stepped - self._mark

    def _count(self, waiting: float, busy: float) -> None:
        if not self.waiting + self.busy:
            self.starting = waiting
        self.waiting += waiting
        self.busy += busy

    def _settle(self, wait: bool) -> None:
        done = 0
        for before, start, end in self._pending:
            if wait:
                end.synchronize()
            elif not end.query():
                break
            self._count(before.elapsed_time(start) / 1e3, start.elapsed_time(end) / 1e3)
            done += 1
        del self._pending[:done]

    def pause(self) -> None:
        """Leave out what happens until the next batch (a checkpoint, say): it is no waiting for data."""
        self._last_end, self._paused = None, True

    def sample(self) -> None:
        """Sample how the step at hand divides into computing and optimising; the caller has waited for it."""
        if not self.cuda or self._mark is None or self._stepped is None:
            return
        try:
            self._stepped.synchronize()
            self.computing += self._start.elapsed_time(self._mark) / 1e3
            self.optimising += self._mark.elapsed_time(self._stepped) / 1e3
        except (RuntimeError, ValueError):
            # The driver or torch cannot time events inside graphs: computing and optimising stay together.
            self._mark = None

    def summary(self) -> dict[str, float]:
        """Give the shares since `reset` as metrics; waits for the device.

        Returns
        -------
        dict
            ``feed/waiting_share``, ``feed/computing_share`` and ``feed/optimising_share`` add up to one;
            ``feed/starting_share`` is the part of the waiting that came before the epoch's first batch.
            ``feed/copying_share`` is the copy engine's, which works at the same time.
            ``feed/host_waiting_share`` is the time that the host stood waiting for a batch.
            ``feed/samples_per_second`` is of the steps alone.
        """
        if self.cuda:
            self._settle(True)
        total = self.waiting + self.busy
        if not total:
            return {}
        optimising = self.optimising / (self.computing + self.optimising) if self.optimising else 0.0
        elapsed = time.perf_counter() - self._began
        return {
            "feed/waiting_share": self.waiting / total,
            "feed/computing_share": self.busy / total * (1 - optimising),
            "feed/optimising_share": self.busy / total * optimising,
            "feed/starting_share": self.starting / total,
            "feed/copying_share": self.feed.take_copy_seconds() / total,
            "feed/host_waiting_share": self.host_waiting / max(elapsed, 1e-9),
            "feed/samples_per_second": self.samples / total,
        }

    def advice(self, summary: dict[str, float]) -> str:
        """Say in one line where the time goes and what would help."""
        if not summary:
            return "No step was measured."
        waiting, copying = summary["feed/waiting_share"], summary["feed/copying_share"]
        shares = (
            f"waiting {waiting:.1%}, computing {summary['feed/computing_share']:.1%}, "
            f"optimising {summary['feed/optimising_share']:.1%}, copying alongside {copying:.1%}"
        )
        return f"{shares}: {self._diagnosis(waiting, copying, summary)}"

    def _diagnosis(self, waiting: float, copying: float, summary: dict[str, float]) -> str:
        if waiting < GOOD:
            if summary["feed/optimising_share"] > 0.3:
                return "the optimiser takes much of each step; a larger batch makes less of it."
            return "the feed keeps up."
        if copying > 0.9:
            return (
                "the copy to the device is the limit; store as float16, or free device memory for the data."
            )
        if self.cuda and summary["feed/host_waiting_share"] < waiting / 4:
            return (
                "the device waits for the host's launches, not for data; use CUDA graphs or a larger batch."
            )
        if self.feed.tier == "mapped":
            return (
                "reading is the limit; use more threads, a faster disk, or memory enough for the pinned tier."
            )
        return "the device waits; a larger batch gives the feed more time."
