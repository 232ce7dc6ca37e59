"""The training store as a catalog entry: saved by streaming, loaded as an open, memory-mapped store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import xarray as xr

from weathermill.datasets.local import LocalDataset, writable
from weathermill.incremental.records import remove_record
from weathermill.progress import Progress
from weathermill.tensors.channels import ChannelTable
from weathermill.tensors.layout import read_manifest
from weathermill.tensors.splits import Runs
from weathermill.tensors.store import TensorStore
from weathermill.tensors.writer import TensorWriter

SHARD_COPIES = 8
TARGET_SHARD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class TensorContent:
    """What a tensor store is made of.

    Parameters
    ----------
    normalised
        (time, channel, latitude, longitude), lazy, normalised; dynamic channels only.
    channels
        The channel table, statics included.
    times
        int64 seconds since 1970-01-01 in ``calendar``.
    calendar
        CF calendar name.
    time_step
        Seconds.
    area_weights
        (latitude,) float64, mean one.
    mean, std, tendency_std
        (channel,) float64, physical units.
    splits
        Runs of time indices by split.
    static
        (static channel, latitude, longitude) float32, normalised, or None.
    dtype, steps_per_shard
        See ``TensorWriter``.
    provenance
        JSON-ready description of what the fields came from.
    fingerprint
        Digest of everything that determines the contents.
    """

    normalised: xr.DataArray
    channels: ChannelTable
    times: np.ndarray
    calendar: str
    time_step: int
    area_weights: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    tendency_std: np.ndarray
    splits: dict[str, Runs]
    fingerprint: str
    static: np.ndarray | None = None
    dtype: str = "float16"
    steps_per_shard: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def _bounded_steps(array: xr.DataArray, dtype: str) -> int | None:
    """How many steps a shard may have within the memory that a stage may take; None for no bound.

    A shard is put together in float32, and blocks of the fields that it is made of are in memory beside it.
    """
    budget = dask.config.get("weathermill.memory-bytes", None)
    if budget is None:
        return None
    cells = array.isel(time=0).size
    usual = TARGET_SHARD_BYTES // (cells * (4 if dtype == "float32" else 2))
    return max(1, min(usual, int(budget) // (SHARD_COPIES * cells * 4)))


class TensorStoreDataset(LocalDataset):
    """A sharded tensor store; a killed save goes on where it was.

    ``load_args`` may hold ``verify``: "sizes" (the default), "checksums" or null.
    """

    def load(self) -> TensorStore:
        """Open the store."""
        return TensorStore(self._require("prepare"), verify=self._load_args.get("verify", "sizes"))

    def save(self, data: TensorContent) -> None:
        """Stream the lazy array into shards."""
        array = data.normalised
        with writable(self._filepath):
            self._filepath.parent.mkdir(parents=True, exist_ok=True)
            writer = TensorWriter(
                self._filepath,
                channels=data.channels,
                latitude=array["latitude"].values,
                longitude=array["longitude"].values,
                times=data.times,
                calendar=data.calendar,
                time_step=data.time_step,
                area_weights=data.area_weights,
                mean=data.mean,
                std=data.std,
                tendency_std=data.tendency_std,
                splits=data.splits,
                static=data.static,
                dtype=data.dtype,
                steps_per_shard=data.steps_per_shard or _bounded_steps(array, data.dtype),
                provenance=data.provenance,
                fingerprint=data.fingerprint,
            )
            pending = list(writer.pending())
            with Progress(
                "write tensors", sum(stop - start for start, stop in pending), "time steps"
            ) as progress:
                for start, stop in pending:
                    block = array.isel(time=slice(start, stop)).transpose(
                        "time", "channel", "latitude", "longitude"
                    )
                    writer.write(start, block.values.astype(np.float32, copy=False))
                    progress.update(stop - start)
            writer.finish(before_replacing=lambda: remove_record(self._filepath))

    def verify(self, *, checksums: bool) -> None:
        """Check the store against its own manifest; raises `StoreError` naming what differs."""
        TensorStore(self._filepath, verify="checksums" if checksums else "sizes").close()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the files whose checksums the store's own manifest holds."""
        manifest = read_manifest(self._filepath)
        return {record["file"]: record["sha256"] for record in (*manifest["shards"], manifest["arrays"])}

    def lineage(self, data: TensorStore | TensorContent) -> list[dict[str, str]]:
        """Describe the store to the tracker."""
        return [{"name": "tensors", "source": str(self._filepath), "digest": data.fingerprint}]
