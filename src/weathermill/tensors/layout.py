"""What a store consists of: its description, common to the writer and the reader, and its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weathermill.errors import GridError, ParameterError, StoreError
from weathermill.tensors.channels import ChannelTable
from weathermill.tensors.files import json_bytes, unseal_json
from weathermill.tensors.shards import NUMPY_DTYPES
from weathermill.tensors.splits import Runs

FORMAT = "weathermill-tensors"
VERSION = 1
MANIFEST = "manifest.json"
ARRAYS = "arrays.safetensors"
SHARDS = "shards"


@dataclass
class Layout:
    """Everything about a store but its fields; checked when made. See `TensorWriter` for the meanings."""

    channels: ChannelTable
    latitude: np.ndarray
    longitude: np.ndarray
    times: np.ndarray
    calendar: str
    time_step: int
    area_weights: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    tendency_std: np.ndarray
    splits: dict[str, Runs]
    static: np.ndarray
    dtype: str
    steps_per_shard: int

    def __post_init__(self) -> None:
        for name in ("latitude", "longitude", "area_weights", "mean", "std", "tendency_std"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float64))
        self.times = np.ascontiguousarray(self.times, dtype=np.int64)
        self.time_step = int(self.time_step)
        self.splits = {
            str(name): [(int(start), int(stop)) for start, stop in runs] for name, runs in self.splits.items()
        }
        height, width = self.grid_shape
        static = np.empty((0, height, width)) if self.static is None else self.static
        self.static = np.ascontiguousarray(static, dtype=np.float32)
        self._check()

    def _check(self) -> None:
        height, width = self.grid_shape
        if self.dtype not in NUMPY_DTYPES:
            raise ParameterError(f"Stored dtype {self.dtype!r} is not one of {', '.join(NUMPY_DTYPES)}.")
        if self.latitude.ndim != 1 or self.longitude.ndim != 1 or not height or not width:
            raise GridError("A store needs one-dimensional latitude and longitude.")
        if self.times.ndim != 1 or not self.times.size or (np.diff(self.times) <= 0).any():
            raise StoreError("A store needs times that increase.")
        if self.area_weights.shape not in ((height,), (height, width)):
            raise GridError(
                f"Area weights have shape {self.area_weights.shape}; the grid allows ({height},) or "
                f"({height}, {width})."
            )
        for name in ("mean", "std", "tendency_std"):
            values = getattr(self, name)
            if values.shape not in ((len(self.channels),), (self.channels.n_dynamic,)):
                raise StoreError(
                    f"Statistic {name!r} has shape {values.shape}; there are "
                    f"{self.channels.n_dynamic} dynamic and {self.channels.n_static} static channels."
                )
            # Statics may come normalised already, without statistics of their own.
            fill = np.zeros if name == "mean" else np.ones
            setattr(self, name, np.concatenate([values, fill(len(self.channels) - values.size)]))
        if self.static.shape != (self.channels.n_static, height, width):
            raise StoreError(
                f"Static fields have shape {self.static.shape}; the channels and grid ask for "
                f"{(self.channels.n_static, height, width)}."
            )
        if self.static.size and not np.isfinite(self.static).all():
            raise StoreError("Static fields hold missing values.")
        for name, runs in self.splits.items():
            for start, stop in runs:
                if not 0 <= start < stop <= len(self.times):
                    raise StoreError(f"Split {name!r} has the run {(start, stop)} outside the store's times.")

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(latitude, longitude)."""
        return len(self.latitude), len(self.longitude)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(dynamic channel, latitude, longitude)."""
        return (self.channels.n_dynamic, *self.grid_shape)

    @property
    def shard_ranges(self) -> list[tuple[int, int]]:
        """The half-open time range of each shard."""
        n, k = len(self.times), self.steps_per_shard
        return [(start, min(start + k, n)) for start in range(0, n, k)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the arrays that are stored once."""
        return {
            "latitude": self.latitude,
            "longitude": self.longitude,
            "times": self.times,
            "area_weights": self.area_weights,
            "mean": self.mean,
            "std": self.std,
            "tendency_std": self.tendency_std,
            "static": self.static,
        }

    def description(self) -> dict[str, Any]:
        """Give the part of the manifest that describes the store, JSON-ready."""
        return {
            "dtype": self.dtype,
            "shape": [len(self.times), *self.state_shape],
            "channels": self.channels.to_dicts(),
            "calendar": self.calendar,
            "time_step": self.time_step,
            "first_time": int(self.times[0]),
            "last_time": int(self.times[-1]),
            "steps_per_shard": self.steps_per_shard,
            "splits": {name: [list(run) for run in runs] for name, runs in self.splits.items()},
        }

    def identity(self, fingerprint: str) -> str:
        """Hash all that decides what the shards hold: equal identities may share shards."""
        digest = hashlib.sha256(json_bytes({**self.description(), "fingerprint": fingerprint}))
        for name, values in self.arrays().items():
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check the manifest of a store.

    Raises
    ------
    StoreError
        When there is no store, it was not finished, the manifest is damaged, or of another format or version.
    """
    file = path / MANIFEST
    partial = path.with_name(path.name + ".partial")
    try:
        manifest = unseal_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        state = "was not finished: its writing was interrupted" if partial.exists() else "does not exist"
        raise StoreError(
            f"The tensor store {state}.",
            where=str(path),
            remedy="Run the tensors pipeline; it goes on where it was.",
        ) from error
    except ValueError as error:
        raise StoreError(
            f"The manifest of the tensor store is damaged: {error}.",
            where=str(file),
            remedy="Run the tensors pipeline again.",
        ) from error
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(
            f"The manifest is of format {manifest.get('format')!r} version {manifest.get('version')!r}; this "
            f"version reads {FORMAT!r} version {VERSION}.",
            where=str(file),
            remedy="Run the tensors pipeline again.",
        )
    return manifest
