"""Writing a tensor store, shard by shard, so that a killed write goes on where it was."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays

from weathermill.errors import MissingDataError, StoreError, UnwritableOutputError
from weathermill.tensors.channels import ChannelTable
from weathermill.tensors.files import (
    json_bytes,
    recover_folder,
    replace_folder,
    sealed_json,
    sha256_of,
    unseal_json,
    write_atomic,
    writing,
)
from weathermill.tensors.layout import ARRAYS, FORMAT, MANIFEST, SHARDS, VERSION, Layout
from weathermill.tensors.shards import (
    NUMPY_DTYPES,
    count_missing,
    encode,
    shard_size,
    squared_error,
    write_shard,
)
from weathermill.tensors.splits import Runs

# From here on float32 rounds to infinity.
_FLOAT16_LIMIT = 65520.0

logger = logging.getLogger(__name__)

# Above this share of a channel's tendency std, rounding is worth a warning.
COARSE = 0.1
_TARGET_SHARD_BYTES = 128 * 2**20
_STANDARD = {"standard", "gregorian", "proleptic_gregorian"}


class TensorWriter:
    """Writes a store at ``<path>.partial`` and gives it its name when it is complete.

    Shards may be written in any order, from several threads, or from processes that unpickled the writer. A
    writer made again after a crash with the same description and fingerprint keeps the shards that are
    whole; with any other it starts anew. A store that stands at `path` stays readable until `finish`.

    Missing values stay NaN in the shards, which each of the stored dtypes has: a mask would have to be kept in step with
    the values, and costs a second read. Only channels whose ``may_be_missing`` is true may have them.

    Parameters
    ----------
    path
        The folder of the finished store.
    channels
        Dynamic channels (prognostic, then forcing) are stored per time, statics once.
    latitude, longitude
        Degrees; float64 (lat,) and (lon,).
    times
        int64 (time,), seconds since 1970-01-01 in `calendar`.
    calendar
        CF calendar name.
    time_step
        Seconds between consecutive states.
    area_weights
        float64 (lat,) or (lat, lon), mean one.
    mean, std, tendency_std
        float64 per channel in physical units, of all channels or of the dynamic ones.
    splits
        Name to half-open ``(start, stop)`` runs of time indices, see `split_indices`.
    static
        float32 (n_static, lat, lon), normalised; None without statics.
    dtype
        ``"float16"``, ``"bfloat16"`` or ``"float32"``.
    steps_per_shard
        Times per shard; None makes shards of about 128 MiB.
    provenance
        JSON-ready; carried in the manifest, and no part of the identity.
    fingerprint
        Of everything that the fields were computed from.

    Raises
    ------
    UnwritableOutputError
        When the folder cannot be made or written.
    StoreError, GridError, ParameterError
        When the description contradicts itself.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        channels: ChannelTable,
        latitude: np.ndarray,
        longitude: np.ndarray,
        times: np.ndarray,
        calendar: str,
        time_step: int,
        area_weights: np.ndarray,
        mean: np.ndarray,
        std: np.ndarray,
        tendency_std: np.ndarray,
        splits: Mapping[str, Sequence[tuple[int, int]] | Runs],
        static: np.ndarray | None = None,
        dtype: str = "float16",
        steps_per_shard: int | None = None,
        provenance: Mapping[str, Any] | None = None,
        fingerprint: str = "",
    ) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.provenance = dict(provenance or {})
        if steps_per_shard is None:
            itemsize = NUMPY_DTYPES[dtype].itemsize if dtype in NUMPY_DTYPES else 2
            state = channels.n_dynamic * len(latitude) * len(longitude) * itemsize
            steps_per_shard = max(1, _TARGET_SHARD_BYTES // max(1, state))
        self.layout = Layout(
            channels=channels,
            latitude=latitude,
            longitude=longitude,
            times=times,
            calendar=calendar,
            time_step=time_step,
            area_weights=area_weights,
            mean=mean,
            std=std,
            tendency_std=tendency_std,
            splits=dict(splits),
            static=static,
            dtype=dtype,
            steps_per_shard=max(1, int(steps_per_shard)),
        )
        self.identity = self.layout.identity(fingerprint)
        self.partial = self.path.with_name(self.path.name + ".partial")
        json_bytes(self.provenance)
        self._open()

    def _open(self) -> None:
        token = self.partial / "identity"
        self._finished: list[dict[str, Any]] = []
        with writing(self.path, "The tensor store"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            recover_folder(self.path)
            self._check_space()
            if self.partial.exists():
                self._finished = self._finished_records()
                ours = token.is_file() and token.read_text(encoding="utf-8").strip() == self.identity
                if not (ours or self._finished):
                    shutil.rmtree(self.partial)
            (self.partial / SHARDS).mkdir(parents=True, exist_ok=True)
            write_atomic(token, self.identity.encode())
            for leftover in (self.partial / SHARDS).glob("*.partial"):
                leftover.unlink()

    def _check_space(self) -> None:
        there = sum(file.stat().st_size for file in self.partial.rglob("*.safetensors"))
        needed, free = self.nbytes - there, shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise UnwritableOutputError(
                f"The tensor store needs {needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB of disk are free.",
                where=str(self.path),
                remedy="Free disk space, store as float16, or choose fewer channels or a shorter period.",
            )

    def _finished_records(self) -> list[dict[str, Any]]:
        # A crash between the manifest and the last rename leaves a complete store under the partial name.
        try:
            manifest = unseal_json((self.partial / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return []
        return manifest["shards"] if manifest.get("identity") == self.identity else []

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The half-open time range of each shard."""
        return self.layout.shard_ranges

    def pending(self) -> list[tuple[int, int]]:
        """List the time ranges still to be written, after checking the size and SHA-256 of what is there."""
        return [span for k, span in enumerate(self.ranges) if self._record(k, check=True) is None]

    def _shard(self, k: int) -> Path:
        return self.partial / SHARDS / f"{k:05d}.safetensors"

    def _record(self, k: int, check: bool) -> dict[str, Any] | None:
        shard = self._shard(k)
        sidecar = shard.with_suffix(".json")
        try:
            record = json.loads(sidecar.read_bytes()) if sidecar.exists() else self._finished[k]
            if shard.stat().st_size != record["size"]:
                return None
            if check and sha256_of(shard) != record["sha256"]:
                return None
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return record

    def write(self, start: int, array: np.ndarray) -> None:
        """Write the shard that begins at time index `start`.

        Parameters
        ----------
        start
            The start of one of the ranges of `pending`.
        array
            float32 (time, dynamic channel, latitude, longitude), normalised, for the whole range.

        Raises
        ------
        MissingDataError
            When a value is infinite, or NaN in a channel that may not be missing, with the channel and time.
        StoreError
            When the range or shape is not a shard's, or a value is beyond what the stored dtype can hold.
        UnwritableOutputError
            When the disk is full or the folder read-only; what was written before stays.
        """
        k, rest = divmod(int(start), self.layout.steps_per_shard)
        if rest or not 0 <= k < len(self.ranges):
            raise StoreError(
                f"No shard begins at time index {start}; a shard holds {self.layout.steps_per_shard}."
            )
        begin, stop = self.ranges[k]
        expected = (stop - begin, *self.layout.state_shape)
        if tuple(array.shape) != expected:
            raise StoreError(f"Shard {k} needs an array of shape {expected}; got {tuple(array.shape)}.")
        values = np.require(array, np.float32, ["C", "W"])
        self._check_values(values, begin)
        stored = encode(values, self.layout.dtype)
        rounding = squared_error(stored, values, self.layout.dtype)
        self.write_stored(k, stored, rounding)

    def write_stored(self, k: int, stored: np.ndarray, rounding: Sequence[float]) -> None:
        """Write shard `k` from values that are in the stored dtype already (bfloat16 as uint16), unchecked.

        Parameters
        ----------
        k
            Which of `ranges`.
        stored
            (time, dynamic channel, latitude, longitude), as `shards.encode` gives it.
        rounding
            Mean square rounding error of each dynamic channel.
        """
        begin, stop = self.ranges[k]
        metadata = {"start": str(begin), "stop": str(stop), "identity": self.identity}
        shard = self._shard(k)
        with writing(self.path, f"Shard {k} of the tensor store"):
            size, digest = write_shard(shard, stored, self.layout.dtype, metadata)
            record = {
                "file": f"{SHARDS}/{shard.name}",
                "start": begin,
                "stop": stop,
                "size": size,
                "sha256": digest,
                "rounding": list(rounding),
            }
            write_atomic(shard.with_suffix(".json"), json_bytes(record))

    def _check_values(self, values: np.ndarray, begin: int) -> None:
        limit = _FLOAT16_LIMIT if self.layout.dtype == "float16" else np.inf
        # NaN spreads to both, so that two fast passes clear a healthy block.
        low, high = values.min(), values.max()
        if -limit < low and high < limit:
            return
        gone = np.isnan(values)
        gone[:, self.layout.channels.may_be_missing] = False
        self._refuse(gone, begin, "is missing (NaN)")
        self._refuse(np.isinf(values), begin, "is infinite")
        self._refuse(np.abs(values) >= limit, begin, "is beyond the range of float16")

    def _refuse(self, bad: np.ndarray, begin: int, what: str) -> None:
        if not bad.any():
            return
        time, channel = (int(axis[0]) for axis in np.nonzero(bad.any(axis=(2, 3))))
        seconds = int(self.layout.times[begin + time])
        when = (
            str(np.datetime64(seconds, "s"))
            if self.layout.calendar in _STANDARD
            else f"{seconds} s since 1970"
        )
        name = self.layout.channels.names[self.layout.channels.dynamic[channel]]
        share = 100 * float(bad[time, channel].mean())
        if "float16" not in what:
            raise MissingDataError(
                f"Channel {name!r} {what} at {when}, on {share:.3g} % of the grid.",
                where=str(self.path),
                remedy="Choose another period, level or region, fill the gaps (`ingest.fill`), or name the variable in "
                "`ingest.allow_missing`.",
            )
        raise StoreError(
            f"Channel {name!r} {what} at {when}, on {share:.3g} % of the grid.",
            where=str(self.path),
            remedy="Store as bfloat16 or float32, or look at the channel's statistics.",
        )

    def finish(self, before_replacing: Callable[[], None] | None = None) -> Path:
        """Complete the store and give it its name; an older one is moved aside only now, and then deleted.

        Parameters
        ----------
        before_replacing
            Called when the new store is whole, just before it takes the place of an older one.

        Raises
        ------
        StoreError
            When shards are missing.
        UnwritableOutputError
            When the disk is full or the folder read-only; what was written before stays.
        """
        records = [self._record(k, check=False) for k in range(len(self.ranges))]
        missing = [span for span, record in zip(self.ranges, records, strict=True) if record is None]
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(records)} shards are not written yet.", where=str(self.path)
            )
        with writing(self.path, "The tensor store"):
            arrays = self.partial / ARRAYS
            write_atomic(arrays, save_arrays({**self.layout.arrays(), **self._missing_share()}))
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "fingerprint": self.fingerprint,
                "identity": self.identity,
                **self.layout.description(),
                "rounding": self._rounding(records),
                "shards": records,
                "arrays": {"file": ARRAYS, "size": arrays.stat().st_size, "sha256": sha256_of(arrays)},
                "provenance": self.provenance,
            }
            write_atomic(self.partial / MANIFEST, sealed_json(manifest))
            for k in range(len(self.ranges)):
                self._shard(k).with_suffix(".json").unlink(missing_ok=True)
            (self.partial / "identity").unlink(missing_ok=True)
            if before_replacing is not None:
                before_replacing()
            replace_folder(self.partial, self.path)
        return self.path

    def _missing_share(self) -> dict[str, np.ndarray]:
        """Share of the training times (of all, without a training split) at which each cell is missing."""
        layout, chosen = self.layout, self.layout.channels.may_be_missing
        if not chosen:
            return {}
        runs = layout.splits.get("train") or [(0, len(layout.times))]
        counts = np.zeros((len(chosen), *layout.grid_shape), dtype=np.int64)
        for k, (begin, stop) in enumerate(self.ranges):
            for a, b in runs:
                if max(begin, a) < min(stop, b):
                    counts += count_missing(
                        self._shard(k), max(begin, a) - begin, min(stop, b) - begin, chosen
                    )
        times = sum(b - a for a, b in runs)
        return {"missing_share": (counts / times).astype(np.float32)}

    def _rounding(self, records: list[dict[str, Any]]) -> dict[str, float]:
        """RMS of what rounding to the stored dtype changed, as a share of each channel's tendency std."""
        squares = np.average(
            [record["rounding"] for record in records],
            axis=0,
            weights=[record["stop"] - record["start"] for record in records],
        )
        layout, shares = self.layout, {}
        for c, square in zip(layout.channels.dynamic, squares, strict=True):
            if layout.tendency_std[c] > 0 and np.isfinite(layout.tendency_std[c]):
                shares[layout.channels.names[c]] = float(
                    np.sqrt(square) * layout.std[c] / layout.tendency_std[c]
                )
        coarse = {
            n: s
            for n, s in shares.items()
            if s > COARSE and layout.channels.index(n) < layout.channels.n_prognostic
        }
        if coarse:
            worst = max(coarse, key=coarse.__getitem__)
            logger.warning(
                "Rounding to %s changes %d channel(s) by more than %.0f %% of what they change in a time step "
                "(%s: %.0f %%): store them as float32 if a forecast of that step matters.",
                layout.dtype,
                len(coarse),
                100 * COARSE,
                worst,
                100 * coarse[worst],
            )
        return shares

    @property
    def nbytes(self) -> int:
        """Size in bytes that the shards have or will have: what the disk must hold."""
        return sum(shard_size((b - a, *self.layout.state_shape), self.layout.dtype) for a, b in self.ranges)
