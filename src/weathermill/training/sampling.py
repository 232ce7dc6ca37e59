"""Which windows make up each batch of an epoch: a pure function of seed, epoch and rank."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weathermill.errors import ParameterError, SplitError
from weathermill.tensors.splits import window_starts
from weathermill.training.state import generator


@dataclass(frozen=True)
class Sampling:
    """How windows are drawn.

    The order of an epoch depends on the seed and the epoch alone; the ranks take every `world_size`-th
    batch-sized piece of it, so that together they see each window at most once.

    Parameters
    ----------
    runs
        Half-open runs of consecutive time indices; no window leaves its run.
    batch_size
        Windows per batch and rank.
    shuffle
        Whether the order changes with the epoch; otherwise it is that of time.
    seed
        Seed of the shuffle.
    drop_last
        Whether windows that do not fill a batch (on every rank) are left out; others come up in the next
        epoch.
    consecutive
        Windows that follow each other in time and stay together in the shuffle. They share states, so that
        ``k`` windows of ``s + 1`` states cost ``s + k`` instead of ``k (s + 1)`` reads. 1 shuffles fully.
    rank, world_size
        This process and how many there are.
    """

    runs: tuple[tuple[int, int], ...]
    batch_size: int
    shuffle: bool = True
    seed: int = 0
    drop_last: bool = True
    consecutive: int = 1
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "consecutive", "world_size"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1; it is {getattr(self, name)}.")
        if not 0 <= self.rank < self.world_size:
            raise ParameterError(f"Rank {self.rank} is not among {self.world_size} ranks.")

    def windows(self, steps: int) -> int:
        """Count the windows of ``steps + 1`` states."""
        return sum(max(0, stop - start - steps) for start, stop in self.runs)

    def batches(self, steps: int) -> int:
        """Count the batches of an epoch on this rank; the same on every rank."""
        n, share = self.windows(steps), self.batch_size * self.world_size
        return n // share if self.drop_last else -(-n // share)

    def order(self, epoch: int, steps: int) -> np.ndarray:
        """Give the start indices of all windows in the order of an epoch, over all ranks: (n,) int64.

        Raises
        ------
        SplitError
            When no run is long enough for a window, or drop_last leaves no batch.
        """
        starts = window_starts(self.runs, steps)
        if not len(starts):
            longest = max((stop - start for start, stop in self.runs), default=0)
            raise SplitError(
                f"No window of {steps + 1} consecutive states fits the split; its longest run has {longest}.",
                remedy="Widen the split's period, or roll out over fewer steps.",
            )
        if not self.batches(steps):
            raise SplitError(
                f"{len(starts)} windows do not fill a batch of {self.batch_size} on each of {self.world_size} rank(s).",
                remedy="Use a smaller batch, or widen the split's period.",
            )
        if not self.shuffle:
            return starts
        rng = generator(self.seed, "shuffle", epoch)
        if self.consecutive == 1:
            return rng.permutation(starts)
        return self._in_groups(starts, rng)

    def _in_groups(self, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # A new phase each epoch, lest the same windows always stand at the edges of a group.
        phase = int(rng.integers(self.consecutive))
        edges = set(np.flatnonzero(np.diff(starts) != 1) + 1)
        edges |= set(range(phase or self.consecutive, len(starts), self.consecutive))
        groups = np.split(starts, sorted(edges))
        return np.concatenate([groups[i] for i in rng.permutation(len(groups))])

    def epoch(self, epoch: int, steps: int, start_batch: int = 0) -> list[np.ndarray]:
        """Give the start indices of each batch of this rank, from `start_batch` on.

        Without `drop_last` the last batch may be smaller, and when ranks would otherwise have different
        numbers of batches, windows are repeated from the beginning of the order.
        """
        order = self.order(epoch, steps)
        share = self.batch_size * self.world_size
        n = self.batches(steps)
        pieces: list[np.ndarray] = []
        for i in range(start_batch, n):
            block = order[i * share : (i + 1) * share]
            if self.world_size > 1 and len(block) < share:
                block = np.resize(
                    np.concatenate([block, order]), -(-len(block) // self.world_size) * self.world_size
                )
            size = -(-len(block) // self.world_size)
            pieces.append(block[self.rank * size : (self.rank + 1) * size])
        return pieces


@dataclass(frozen=True)
class ReadPlan:
    """What to read for one batch, and how the windows are found in it.

    Parameters
    ----------
    reads
        (start, stop, at): states ``[start, stop)`` of the store go to the buffer from position ``at`` on.
    states
        Number of states in the buffer.
    index
        (batch * (steps + 1),) positions in the buffer, or None when they are 0, 1, 2, …
    """

    reads: tuple[tuple[int, int, int], ...]
    states: int
    index: np.ndarray | None


def plan_reads(starts: Sequence[int] | np.ndarray, steps: int) -> ReadPlan:
    """Plan one contiguous read for each window, or for each stretch of windows that share states.

    Both members of a pair (all states of a window) are always one read. Where windows overlap so much that
    a tenth of the bytes can be saved, each state is read and copied once, and the windows are gathered on
    the device.

    Parameters
    ----------
    starts
        (batch,) window starts.
    steps
        Each window has ``steps + 1`` states.
    """
    starts = np.asarray(starts, dtype=np.int64)
    length = steps + 1
    needed = (starts[:, None] + np.arange(length)).reshape(-1)
    unique, inverse = np.unique(needed, return_inverse=True)
    if unique.size > 0.9 * needed.size:
        reads = tuple((int(start), int(start) + length, i * length) for i, start in enumerate(starts))
        return ReadPlan(reads, needed.size, None)
    edges = np.flatnonzero(np.diff(unique) != 1) + 1
    bounds = [0, *edges.tolist(), unique.size]
    reads = tuple((int(unique[a]), int(unique[b - 1]) + 1, a) for a, b in itertools.pairwise(bounds))
    return ReadPlan(reads, unique.size, inverse.reshape(-1))
