"""Where training samples come from: device memory, page-locked host memory or memory-mapped shards.

One interface over three tiers, chosen by the size of the split and the memory that is free. Batches come in
the stored dtype (float16 as a rule) and on the device; the step casts them, as that costs nothing there
while copying float32 would cost twice the bandwidth.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from weathermill.errors import ParameterError, ResourceError, StoreError
from weathermill.tensors.store import TensorStore
from weathermill.training.memory import available_device_memory, available_host_memory
from weathermill.training.prefetch import READERS, MappedReader
from weathermill.training.resident import DeviceTier, PinnedTier, RunIndex
from weathermill.training.sampling import Sampling

logger = logging.getLogger(__name__)

TIERS = ("auto", "device", "pinned", "mapped")

# Shares of the free memory that a resident split may take when the tier is chosen automatically.
# Activations and optimiser have the first claim on the device, the page cache and other processes on the
# host.
DEVICE_SHARE = 0.4
HOST_SHARE = 0.5
# Batches that the mapped tier reads ahead: more of them even out how long reads take, at the cost of page-locked memory.
LEAST_AHEAD, MOST_AHEAD = 3, 6
READ_AHEAD_BYTES = 2 * 2**30


class Batch(NamedTuple):
    """One batch.

    Attributes
    ----------
    window
        (batch, steps + 1, dynamic channel, latitude, longitude), stored dtype, normalised, on the device.
        Valid until the next batch is asked for: clone what is needed longer.
    starts
        (batch,) int64 time indices of the first state of each window.
    """

    window: torch.Tensor
    starts: np.ndarray


class Epoch:
    """The batches of an epoch, as an iterator that can be left early."""

    def __init__(self, source: Iterator[tuple[np.ndarray, torch.Tensor]]) -> None:
        self._source = source

    def __iter__(self) -> Epoch:
        return self

    def __next__(self) -> Batch:
        starts, window = next(self._source)
        return Batch(window, starts)

    def close(self) -> None:
        """Leave the rest, and stop what reads it."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


class Feed:
    """Batches of windows of one split; made by `make_feed`.

    Attributes
    ----------
    tier
        ``"device"``, ``"pinned"`` or ``"mapped"``.
    reason
        Why this tier, in words.
    sampling
        Which windows make up which batch.
    """

    def __init__(
        self,
        store: TensorStore,
        split: str,
        sampling: Sampling,
        steps: int,
        device: torch.device,
        tier: str,
        reason: str,
        threads: int,
        prefetch: int,
        reader: str,
    ) -> None:
        self.store, self.split, self.sampling = store, split, sampling
        self.steps, self.device, self.tier, self.reason = steps, device, tier, reason
        states = sampling.batch_size * (steps + 1)
        self._source: DeviceTier | PinnedTier | MappedReader
        if tier == "device" or (tier == "pinned" and device.type != "cuda"):
            self._source = DeviceTier(store, RunIndex(sampling.runs), device, threads)
        elif tier == "pinned":
            self._source = PinnedTier(store, RunIndex(sampling.runs), device, states, threads)
        else:
            self._source = MappedReader(store, states, device, threads, prefetch, reader)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Feed({self.split!r}, {self.sampling.windows(self.steps)} windows of {self.steps + 1} states, "
            f"batch {self.sampling.batch_size}, {self.tier}: {self.reason})"
        )

    @property
    def batch_size(self) -> int:
        """Windows per batch."""
        return self.sampling.batch_size

    def windows(self, steps: int | None = None) -> int:
        """Count the windows of the split."""
        return self.sampling.windows(self.steps if steps is None else steps)

    def batches(self, steps: int | None = None) -> int:
        """Count the batches of an epoch on this rank."""
        return self.sampling.batches(self.steps if steps is None else steps)

    def epoch(
        self, epoch: int = 0, start_batch: int = 0, steps: int | None = None, *, after: bool = False
    ) -> Epoch:
        """Begin an epoch: reading and copying start at once, ahead of the first batch that is asked for.

        Parameters
        ----------
        epoch
            Decides the order, together with the seed.
        start_batch
            Where to begin: the rest is what an uninterrupted epoch gives from there on.
        steps
            Time steps of a window, at most those that the feed was made for; all when None.
        after
            Let the epoch under way go on, and read this one's first batches while its last ones are worked on.

        Returns
        -------
        Epoch
            An iterator of `Batch`. Beginning another epoch ends the one before, unless `after`.
        """
        steps = self.steps if steps is None else steps
        if not 0 <= steps <= self.steps:
            raise ParameterError(f"The feed was made for up to {self.steps} steps; {steps} were asked for.")
        return Epoch(self._source.epoch(self.sampling.epoch(epoch, steps, start_batch), steps, after))

    def take_copy_seconds(self) -> float:
        """Seconds that the copy engine was busy since the last call; 0 where nothing is copied on the way."""
        return self._source.copies.take()

    def close(self) -> None:
        """Stop threads and free memory."""
        self._source.close()


def choose_tier(
    nbytes: int,
    device: torch.device,
    device_budget: int | None = None,
    host_budget: int | None = None,
) -> tuple[str, str]:
    """Choose the fastest tier that a split fits.

    Parameters
    ----------
    nbytes
        Size of the split as stored.
    device
        Where batches go.
    device_budget, host_budget
        Bytes that it may take there; shares of what is free when None.

    Returns
    -------
    tier, reason
    """
    size = f"{nbytes / 2**30:.2f} GiB"
    if device.type == "cuda":
        budget = (
            int(DEVICE_SHARE * available_device_memory(device)) if device_budget is None else device_budget
        )
        if nbytes <= budget:
            return "device", f"{size} fit the {budget / 2**30:.2f} GiB of device memory set aside for data"
    budget = int(HOST_SHARE * available_host_memory()) if host_budget is None else host_budget
    if nbytes <= budget:
        return "pinned", f"{size} fit the {budget / 2**30:.2f} GiB of host memory set aside for data"
    return "mapped", f"{size} exceed the {budget / 2**30:.2f} GiB of host memory set aside for data"


def make_feed(
    store: TensorStore,
    split: str,
    steps: int = 1,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    tier: str = "auto",
    shuffle: bool = True,
    seed: int = 0,
    *,
    drop_last: bool | None = None,
    consecutive: int = 1,
    rank: int = 0,
    world_size: int = 1,
    threads: int | None = None,
    prefetch: int | None = None,
    reader: str = "auto",
    device_budget: int | None = None,
    host_budget: int | None = None,
) -> Feed:
    """Make the feed of one split.

    Parameters
    ----------
    store
        The tensor store.
    split
        ``"train"``, ``"validation"``, ``"test"`` …
    steps
        The most time steps that a window will have.
    batch_size
        Windows per batch and rank.
    device
        Where batches go.
    tier
        ``"device"``, ``"pinned"``, ``"mapped"``, or ``"auto"`` by the size of the split and the free memory.
    shuffle, seed, drop_last, consecutive, rank, world_size
        See `Sampling`. `drop_last` defaults to `shuffle`, but for a split smaller than one batch.
    threads
        Reading threads; by default one a CPU core, at most 12.
    prefetch
        Batches in the making, for the mapped tier; by default 3, and on CUDA up to 6 as far as they fit 2 GiB of
        page-locked memory.
    reader
        ``"read"``, ``"memmap"`` or ``"auto"``: how the mapped tier reads, see `choose_reader`.
    device_budget, host_budget
        Bytes that a resident split may take when the tier is chosen automatically.

    Raises
    ------
    ParameterError
        When the tier or a number is out of range.
    StoreError
        When there is no such split.
    ResourceError
        When a resident tier was asked for and memory does not suffice.
    """
    device = torch.device(device)
    if tier not in TIERS:
        raise ParameterError(f"Tier {tier!r} is not one of {', '.join(TIERS)}.")
    if reader not in ("auto", *READERS):
        raise ParameterError(f"Reader {reader!r} is not one of auto, {', '.join(READERS)}.")
    if steps < 0:
        raise ParameterError(f"A window cannot have {steps} steps.")
    if split not in store.splits:
        raise StoreError(
            f"There is no split {split!r}; there are {', '.join(store.splits)}.", where=str(store.path)
        )
    runs = tuple(run for run in store.splits[split] if run[1] - run[0] > steps) or tuple(store.splits[split])
    if drop_last is None:
        drop_last = shuffle and sum(max(0, b - a - steps) for a, b in runs) >= batch_size * world_size
    sampling = Sampling(runs, batch_size, shuffle, seed, drop_last, consecutive, rank, world_size)
    sampling.epoch(0, steps, sampling.batches(steps))
    windows = sampling.windows(steps)
    if shuffle and windows < batch_size * world_size:
        logger.warning(
            "The split %s has %d windows of %d steps, fewer than a batch of %d: batches are of %d.",
            split,
            windows,
            steps,
            batch_size * world_size,
            windows,
        )
    nbytes = sum(stop - start for start, stop in runs) * store.state_nbytes
    if tier == "auto":
        tier, reason = choose_tier(nbytes, device, device_budget, host_budget)
    else:
        reason = "as asked for"
        _check_fits(tier, nbytes, device)
    threads = threads or max(
        1, min(12, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    )
    if prefetch is None:
        fitting = READ_AHEAD_BYTES // max(1, batch_size * (steps + 1) * store.state_nbytes)
        prefetch = min(MOST_AHEAD, max(LEAST_AHEAD, fitting)) if device.type == "cuda" else LEAST_AHEAD
    return Feed(store, split, sampling, steps, device, tier, reason, threads, max(1, prefetch), reader)


def _check_fits(tier: str, nbytes: int, device: torch.device) -> None:
    if tier == "mapped":
        return
    on_device = tier == "device" and device.type == "cuda"
    free = available_device_memory(device) if on_device else available_host_memory()
    if nbytes > free:
        raise ResourceError(
            f"The split takes {nbytes / 2**30:.2f} GiB and {free / 2**30:.2f} GiB of "
            f"{'device' if on_device else 'host'} memory are free.",
            remedy="Set the feed's tier to mapped, or to auto.",
        )
