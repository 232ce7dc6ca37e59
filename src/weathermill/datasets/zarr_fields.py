"""Fields that may be larger than memory, in a Zarr v3 store that is sharded along time."""

from __future__ import annotations

import logging
import math
from typing import Any

import dask
import numpy as np
import xarray as xr

from weathermill.datasets.block_counts import from_json
from weathermill.datasets.compression import DEFAULT, compressors
from weathermill.datasets.local import LocalDataset
from weathermill.datasets.sharded import ShardedWriter
from weathermill.datasets.shards import Layout, read_notes
from weathermill.errors import ResourceError, StoreError
from weathermill.fields.origins import Trace, attach, trace_of
from weathermill.fields.value_counts import attach_counts, counts_of

logger = logging.getLogger(__name__)

CHUNK_BYTES = 8 * 2**20
SHARD_BYTES = 128 * 2**20
BLOCK_COPIES = 8


def time_layout(
    fields: xr.Dataset, *, chunk_bytes: int = CHUNK_BYTES, shard_bytes: int = SHARD_BYTES
) -> tuple[int, int]:
    """How many time steps a chunk and a shard of the store hold.

    Parameters
    ----------
    fields
        What will be stored, with dimension ``time``.
    chunk_bytes, shard_bytes
        The size to aim at, for the largest variable and for all variables together respectively: a shard of every
        variable is in memory at once while the store is written.

    Returns
    -------
    tuple of int
        Time steps a chunk, time steps a shard (a multiple of the former).
    """
    steps = fields.sizes["time"]
    per_step = [v.nbytes / steps for v in fields.data_vars.values() if "time" in v.dims]
    if not per_step:
        return 1, 1
    chunk = min(steps, max(1, int(chunk_bytes // max(per_step))))
    shard = max(1, int(shard_bytes // sum(per_step)) // chunk) * chunk
    return chunk, min(shard, math.ceil(steps / chunk) * chunk)


def aligned(fields: xr.Dataset, chunk: int, shard: int) -> tuple[int, int]:
    """Fit chunks and shards to the blocks in which the fields are computed, so that none is computed twice.

    Parameters
    ----------
    fields
        What will be stored; Dask's blocks in time count where they have equal lengths.
    chunk, shard
        From `time_layout`.

    Returns
    -------
    tuple of int
        No larger than before. A shard is a whole number of blocks, or, where it is shorter than a block, a block is a
        whole number of shards; as they were where that would make shards less than half as long.
    """
    lengths = {
        max(v.chunks[v.dims.index("time")])
        for v in fields.data_vars.values()
        if v.chunks is not None and "time" in v.dims
    }
    if len(lengths) != 1 or fields.sizes["time"] <= min(*lengths, shard):
        return chunk, shard
    (block,) = lengths
    if block > shard:
        fitting = max(d for d in range(1, shard + 1) if block % d == 0)
        if fitting < shard / 2:
            return chunk, shard
        shard = fitting
    else:
        shard = shard // block * block
    return max(d for d in range(1, min(chunk, shard) + 1) if shard % d == 0), shard


def memory_bounded(fields: xr.Dataset, shard_bytes: int, budget: int | None) -> int:
    """Bound what a shard of all variables may hold by the memory that a stage may take.

    Parameters
    ----------
    fields
        What will be stored.
    shard_bytes
        The size to aim at.
    budget
        Bytes of host memory, or None for no bound. Computing and compressing one block holds some eight times its
        size.

    Raises
    ------
    ResourceError
        If not even one time step fits.
    """
    if budget is None or "time" not in fields.dims:
        return shard_bytes
    step = sum(v.nbytes for v in fields.data_vars.values() if "time" in v.dims) // max(
        1, fields.sizes["time"]
    )
    if step * BLOCK_COPIES > budget:
        raise ResourceError(
            f"one time step takes about {step * BLOCK_COPIES / 2**30:.2f} GiB while it is made, and "
            f"{budget / 2**30:.2f} GiB may be used",
            remedy="Raise resources.memory_gib, or take fewer variables, levels or grid points.",
        )
    return min(shard_bytes, budget // BLOCK_COPIES)


class ZarrFieldsDataset(LocalDataset):
    """A Zarr v3 store of fields, read lazily, written block by block in time and renamed when it is whole.

    Fields that carry a trace of their sources (`weathermill.fields.origins`) are not written anew where they stand: a
    killed saving goes on where it was, and steps that the old store has from the same sources are kept.

    Values are counted as they are written, and a store with infinite values, or too many beyond the physical limits of
    their variable, never takes its place (`weathermill.fields.value_counts`).

    ``load_args`` may hold ``made_by`` (the pipeline to name when the store is missing). ``save_args`` may hold
    ``chunk_bytes`` and ``shard_bytes``, ``compression`` (see `weathermill.datasets.compression`), and ``label`` for the
    progress line.
    """

    _afresh = False
    _canonical = True

    def load(self) -> xr.Dataset:
        """Open the store lazily, one Dask chunk to a shard in time."""
        path = self._require(self._load_args.get("made_by", "__default__"))
        try:
            fields = xr.open_zarr(path, chunks=None, consolidated=False, decode_timedelta=False)
            shard = fields.attrs.get("weathermill_shard_steps")
            fields = fields.chunk({"time": int(shard)}) if shard and "time" in fields.dims else fields.chunk()
            notes = read_notes(path)
            if "recipe" in notes:
                origins = tuple(key for key, count in notes["origins"] for _ in range(count))
                attach(fields, Trace(notes["recipe"], origins), stored=True)
            if "values" in notes:
                attach_counts(fields, from_json(notes["values"]))
            return fields
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"cannot be opened as a Zarr store: {error}",
                where=str(path),
                remedy="Delete it and run again.",
            ) from error

    def save(self, data: xr.Dataset) -> None:
        """Stream the fields to disk in blocks of one shard along time."""
        layout = {
            key: self._save_args[key] for key in ("chunk_bytes", "shard_bytes") if key in self._save_args
        }
        layout["shard_bytes"] = memory_bounded(
            data, layout.get("shard_bytes", SHARD_BYTES), dask.config.get("weathermill.memory-bytes", None)
        )
        chunk, shard = aligned(data, *time_layout(data, **layout))
        codecs = compressors(self._save_args.get("compression", DEFAULT))
        trace = trace_of(data)
        warned = [name for name, counts in counts_of(data).items() if counts.outside.any()]
        data = _with_plain_strings(data.drop_encoding())
        data.attrs["weathermill_shard_steps"] = shard
        encoding: dict[str, dict[str, Any]] = {}
        for name, variable in data.data_vars.items():
            if "time" in variable.dims:
                axis = variable.dims.index("time")
                sizes = list(variable.shape)
                encoding[name] = {
                    "chunks": tuple(chunk if i == axis else n for i, n in enumerate(sizes)),
                    "shards": tuple(shard if i == axis else n for i, n in enumerate(sizes)),
                    "compressors": codecs,
                }
        if "time" in data.coords:
            encoding["time"] = _time_encoding(data)
        for name, variable in data.variables.items():
            if name not in encoding and variable.dtype.kind in "fiu":
                encoding[str(name)] = {"compressors": codecs}
        writer = ShardedWriter(
            self._filepath,
            data,
            Layout(chunk, shard, encoding),
            trace,
            afresh=self._afresh,
            count=self._canonical,
            warned=warned,
        )
        writer.write(self._save_args.get("label", f"write {self._filepath.name}"))
        self._afresh = False

    def start_afresh(self) -> None:
        """Have the next saving take over nothing of what stands or was interrupted."""
        self._afresh = True

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the shards, as they were when they were written."""
        return {name: entry[1] for name, entry in read_notes(self._filepath).get("shards", {}).items()}


def _with_plain_strings(data: xr.Dataset) -> xr.Dataset:
    """Turn fixed-width strings, which Zarr v3 has no specification for, into variable-length ones."""
    fixed = {name: c.astype(object) for name, c in data.coords.items() if c.dtype.kind == "U"}
    return data.assign_coords(fixed)


def _time_encoding(data: xr.Dataset) -> dict[str, Any]:
    first = data["time"].values[0]
    if isinstance(first, np.datetime64):
        return {"units": "seconds since 1970-01-01", "dtype": "int64"}
    return {"units": "seconds since 1970-01-01", "calendar": first.calendar, "dtype": "int64"}


class ZarrArrayDataset(ZarrFieldsDataset):
    """As `ZarrFieldsDataset`, for one array with dimension ``time``, such as the normalised channels."""

    # Normalised values have no physical limits.
    _canonical = False

    def load(self) -> xr.DataArray:
        """Open the array lazily."""
        fields = super().load()
        return fields[fields.attrs["weathermill_array"]]

    def save(self, data: xr.DataArray) -> None:
        """Stream the array to disk."""
        name = str(data.name or "array")
        super().save(data.to_dataset(name=name, promote_attrs=False).assign_attrs(weathermill_array=name))
