"""Taking over from the store that is to be replaced what holds in the new one too."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.datasets.block_counts import Counts, read_blocks
from weathermill.datasets.shards import (
    NOTES,
    Files,
    Layout,
    codecs,
    intact,
    read_notes,
    selected,
    shard_file,
)
from weathermill.fields.origins import Trace

logger = logging.getLogger(__name__)


class NewStore(Protocol):
    """What a donor must know of the store that is being written; see `ShardedWriter`."""

    target: Path
    fields: xr.Dataset
    layout: Layout
    trace: Trace | None
    steps: int
    varying: Mapping[str, xr.DataArray]
    flags: Mapping[str, xr.DataArray]


class Donor:
    """The store that is to be replaced, as far as its steps are the same.

    Parameters
    ----------
    writer
        Of the new store.
    old
        The old store, opened lazily without Dask.
    notes
        Its notes.
    positions
        (time,) where each new step is in the old store; -1 where it is not.
    """

    def __init__(
        self, writer: NewStore, old: xr.Dataset, notes: Mapping[str, Any], positions: np.ndarray
    ) -> None:
        self.writer, self.old, self.notes, self.positions = writer, old, notes, positions
        self.layout = notes["layout"]
        self._counts = read_blocks(writer.target / NOTES)
        self._intact: dict[int, bool] = {}

    @classmethod
    def of(cls, writer: NewStore) -> Donor | None:
        """Return the old store as a donor, or None where nothing of it holds."""
        notes, trace = read_notes(writer.target), writer.trace
        if trace is None or notes.get("version") != 1 or notes.get("recipe") != trace.recipe:
            return None
        try:
            old = xr.open_zarr(writer.target, chunks=None, consolidated=False, decode_timedelta=False)
            times = old["time"].values.tolist()
            origins = [key for key, count in notes["origins"] for _ in range(count)]
            known = {when: (i, key) for i, (when, key) in enumerate(zip(times, origins, strict=True))}
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.info("%s is not taken over: %s", writer.target, error)
            return None
        positions = np.full(writer.steps, -1)
        for i, when in enumerate(writer.fields["time"].values.tolist()):
            at, key = known.get(when, (-1, ""))
            positions[i] = at if key == trace.origins[i] else -1
        return cls(writer, old, notes, positions) if (positions >= 0).any() else None

    def _places(self, block: int) -> dict[str, str]:
        """The shard of a block by variable; those of flags, which are made anew, left out."""
        varying = self.writer.varying.items()
        return {
            name: shard_file(name, v.ndim, v.dims.index("time"), block)
            for name, v in varying
            if name not in self.writer.flags
        }

    def _files(self, block: int) -> Files:
        wanted = set(self._places(block).values())
        return {name: (s, h) for name, (s, h) in self.notes["shards"].items() if name in wanted}

    def _holds(self, block: int) -> bool:
        """Whether a block of the old store has the bytes that were written."""
        if block not in self._intact:
            self._intact[block] = intact(self.writer.target, self._files(block))
            if not self._intact[block]:
                logger.warning("%s: damaged steps are read from the sources again", self.writer.target)
        return self._intact[block]

    def link(self, block: range, store: Path) -> tuple[Files, Counts] | None:
        """Link the shards of a block into the new store, if the old one has just this block and counted its values."""
        here = self.positions[block.start : block.stop]
        shard = self.layout[1]
        same = self.layout == [self.writer.layout.chunk, shard, codecs(self.writer.layout)]
        if not same or shard != self.writer.layout.shard or here[0] < 0 or here[0] % shard:
            return None
        length = min(shard, self.old.sizes["time"] - int(here[0]))
        if length != len(block) or not np.array_equal(here, here[0] + np.arange(length)):
            return None
        old, new = int(here[0]) // shard, block.start // shard
        if old not in self._counts or not self._holds(old):
            return None
        names = dict(zip(self._places(old).values(), self._places(new).values(), strict=True))
        files = {}
        for name, entry in self._files(old).items():
            place = store / names[name]
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.writer.target / name, place)
            except OSError:
                shutil.copy2(self.writer.target / name, place)
            files[names[name]] = entry
        return files, dict(self._counts[old])

    def supplement(self, name: str, block: range, lazy: da.Array, axis: int) -> da.Array:
        """Take the steps of a block that the old store has from there, and only the others from ``lazy``."""
        shard = self.layout[1]
        here = [
            p if p >= 0 and self._holds(int(p) // shard) else -1
            for p in self.positions[block.start : block.stop]
        ]
        if all(p < 0 for p in here):
            return lazy
        pieces, start = [], 0
        while start < len(here):
            stop = start + 1
            while stop < len(here) and here[stop] == (here[stop - 1] + 1 if here[start] >= 0 else -1):
                stop += 1
            if here[start] < 0:
                index = [slice(None)] * lazy.ndim
                index[axis] = slice(start, stop)
                pieces.append(lazy[tuple(index)])
            else:
                pieces.append(
                    selected(self.old[name].variable, range(int(here[start]), int(here[stop - 1]) + 1))
                )
            start = stop
        return da.concatenate(pieces, axis=axis)
