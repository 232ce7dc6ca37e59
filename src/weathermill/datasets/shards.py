"""Shards of a Zarr store, one file for each variable and block of time: their places, checksums, and storing them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from weathermill.datasets.local import sync
from weathermill.fields.origins import digest
from weathermill.fields.plausibility import Limits
from weathermill.fields.value_counts import count_values

#: A group inside the store, which xarray passes over: where the steps come from, and checksums of all shards.
NOTES = "weathermill"

Files = dict[str, tuple[int, str]]


def read_notes(store: Path) -> dict[str, Any]:
    """Return what a store of ours notes on itself; empty where it notes nothing."""
    try:
        return json.loads((store / NOTES / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@dataclass(frozen=True)
class Layout:
    """How a store is laid out in time.

    Attributes
    ----------
    chunk, shard
        Time steps of each.
    encoding
        For xarray, by variable.
    """

    chunk: int
    shard: int
    encoding: Mapping[str, Mapping[str, Any]]


def selected(variable: xr.Variable | xr.DataArray, steps: range) -> da.Array:
    """Return some steps of a variable as a Dask array; one in a file becomes one that is read when computed."""
    part = variable.isel(time=slice(steps.start, steps.stop))
    return part.data if part.chunks is not None else part.chunk().data


def store_shard(
    block: np.ndarray,
    *,
    store: str,
    variable: str,
    axis: int,
    start: int,
    shard: int,
    level: int | None = None,
    limits: Limits | None = None,
) -> np.ndarray:
    """Store one whole shard of one variable; return its file with size and SHA-256, and what was counted of it.

    With ``limits`` its values are counted while they are in memory anyway; ``level`` is the dimension of levels.
    """
    array = zarr.open_array(store, path=variable, mode="r+", zarr_format=3)
    index = [slice(None)] * block.ndim
    index[axis] = slice(start, start + block.shape[axis])
    array[tuple(index)] = block
    result = np.empty((1,) * block.ndim, dtype=object)
    files = stored_file(Path(store), variable, block.ndim, axis, start // shard)
    counts = None if limits is None else count_values(block, limits.low, limits.high, axis, level)
    result[(0,) * block.ndim] = files, counts
    return result


def stored_file(store: Path, name: str, ndim: int, axis: int, block: int) -> Files:
    """Have the disk hold a shard, and return its file with size and SHA-256; none where all is fill values."""
    relative = shard_file(name, ndim, axis, block)
    file = store / relative
    if not file.exists():
        return {}
    sync(file)
    return {relative: size_and_sum(file)}


def shard_file(name: str, ndim: int, axis: int, block: int) -> str:
    """Return where the shard of one block of a variable is in the store; ``axis`` is that of time."""
    return "/".join([name, "c", *(str(block if i == axis else 0) for i in range(ndim))])


def size_and_sum(file: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 of a file."""
    with file.open("rb") as handle:
        return file.stat().st_size, hashlib.file_digest(handle, "sha256").hexdigest()


def intact(store: Path, files: Files) -> bool:
    """Return whether all files are there with the sizes and bytes that they had."""
    try:
        return all(size_and_sum(store / name) == tuple(entry) for name, entry in files.items())
    except OSError:
        return False


def codecs(layout: Layout) -> str:
    """Say how values are encoded, so that shards of other codecs are not taken for the same."""
    return digest([[n, str(options.get("compressors"))] for n, options in sorted(layout.encoding.items())])
