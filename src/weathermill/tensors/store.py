"""Reading a tensor store: memory-mapped views, direct reads into buffers, and its integrity."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_arrays

from weathermill.errors import StoreError
from weathermill.tensors.channels import ChannelTable
from weathermill.tensors.files import sha256_of
from weathermill.tensors.layout import read_manifest
from weathermill.tensors.shards import NUMPY_DTYPES, TORCH_DTYPES, ShardHeader, decode, read_header
from weathermill.tensors.splits import Runs, window_starts
from weathermill.tensors.writer import TensorWriter

__all__ = ["TensorStore", "TensorWriter"]

_MOST_MAPS = 128
_REMEDY = "Run the tensors pipeline again; it makes the store anew."


class TensorStore:
    """A finished store of normalised states, opened for reading; safe to use from many threads.

    Parameters
    ----------
    path
        The folder.
    verify
        ``"sizes"`` compares the size and header of every shard with the manifest (microseconds a shard),
        ``"checksums"`` also hashes every byte, None opens on trust.

    Raises
    ------
    StoreError
        When the store is missing, unfinished or of another layout, or a shard is missing, truncated,
        damaged or swapped; names the shard.
    """

    def __init__(self, path: str | Path, verify: str | None = "sizes") -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = read_manifest(self.path)
        self.channels = ChannelTable.from_dicts(self.manifest["channels"])
        self.dtype: str = self.manifest["dtype"]
        self.calendar: str = self.manifest["calendar"]
        self.time_step: int = self.manifest["time_step"]
        self.fingerprint: str = self.manifest["fingerprint"]
        self.splits: dict[str, Runs] = {
            name: [(start, stop) for start, stop in runs] for name, runs in self.manifest["splits"].items()
        }
        self._shards = self.manifest["shards"]
        self._steps = self.manifest["steps_per_shard"]
        self._maps: dict[int, np.ndarray] = {}
        self._offsets: dict[int, int] = {}
        self._lock = threading.Lock()
        if verify is not None:
            self.verify(checksums=verify == "checksums")
        self._load_arrays()

    def _load_arrays(self) -> None:
        record = self.manifest["arrays"]
        file = self.path / record["file"]
        self._check_file(file, record, checksums=True)
        arrays = load_arrays(file.read_bytes())
        self.latitude: np.ndarray = arrays["latitude"]
        self.longitude: np.ndarray = arrays["longitude"]
        self.times: np.ndarray = arrays["times"]
        self.area_weights: np.ndarray = arrays["area_weights"]
        self.mean: np.ndarray = arrays["mean"]
        self.std: np.ndarray = arrays["std"]
        self.tendency_std: np.ndarray = arrays["tendency_std"]
        self.static: np.ndarray = arrays["static"]
        #: (channel that may be missing, latitude, longitude): share of the training times without a value; None where
        #: no channel may be missing.
        self.missing_share: np.ndarray | None = arrays.get("missing_share")

    def __len__(self) -> int:
        return self.manifest["shape"][0]

    def __repr__(self) -> str:
        return f"TensorStore({str(self.path)!r}, {len(self)} × {self.state_shape} {self.dtype})"

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_maps={}, _lock=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the memory maps; views that were handed out stay valid."""
        with self._lock:
            self._maps.clear()

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(latitude, longitude)."""
        return tuple(self.manifest["shape"][2:])

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(dynamic channel, latitude, longitude)."""
        return tuple(self.manifest["shape"][1:])

    @property
    def state_nbytes(self) -> int:
        """Bytes of one state as stored."""
        return int(np.prod(self.state_shape)) * self.numpy_dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all states as stored."""
        return len(self) * self.state_nbytes

    @property
    def numpy_dtype(self) -> np.dtype:
        """Dtype of `read`; uint16 where bfloat16 is stored, for which NumPy has none."""
        return NUMPY_DTYPES[self.dtype]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The stored dtype."""
        return TORCH_DTYPES[self.dtype]

    @property
    def rounding(self) -> dict[str, float]:
        """What rounding to the stored dtype changed, RMS, as a share of each channel's tendency std."""
        return self.manifest["rounding"]

    def verify(self, checksums: bool = False) -> None:
        """Check every file against the manifest: sizes and headers, and on request every byte.

        Raises
        ------
        StoreError
            On the first file that differs, naming it.
        """
        for k, record in enumerate(self._shards):
            self._check_file(self.path / record["file"], record, checksums)
            self._header(k)
        self._check_file(self.path / self.manifest["arrays"]["file"], self.manifest["arrays"], checksums)

    def _check_file(self, file: Path, record: dict[str, Any], checksums: bool) -> None:
        name = record["file"]
        try:
            size = file.stat().st_size
        except OSError as error:
            raise StoreError(
                f"{name} of the tensor store is missing.", where=str(file), remedy=_REMEDY
            ) from error
        if size != record["size"]:
            raise StoreError(
                f"{name} of the tensor store has {size} bytes and should have {record['size']}: it is "
                "truncated or another file.",
                where=str(file),
                remedy=_REMEDY,
            )
        if checksums and sha256_of(file) != record["sha256"]:
            raise StoreError(
                f"{name} of the tensor store is damaged: its SHA-256 is not the manifest's.",
                where=str(file),
                remedy=_REMEDY,
            )

    def _header(self, k: int) -> ShardHeader:
        record = self._shards[k]
        file = self.path / record["file"]
        header = read_header(file)
        shape = (record["stop"] - record["start"], *self.state_shape)
        owner = (header.metadata.get("start"), header.metadata.get("identity"))
        if (header.dtype, header.shape) != (self.dtype, shape) or owner != (
            str(record["start"]),
            self.manifest["identity"],
        ):
            raise StoreError(
                f"{record['file']} of the tensor store is another shard: it says it starts at time index "
                f"{header.metadata.get('start')} of store {str(header.metadata.get('identity'))[:12]}.",
                where=str(file),
                remedy=_REMEDY,
            )
        return header

    def _map(self, k: int) -> np.ndarray:
        mapped = self._maps.get(k)
        if mapped is None:
            offset, record = self._offset(k), self._shards[k]
            shape = (record["stop"] - record["start"], *self.state_shape)
            mapped = np.memmap(self.path / record["file"], self.numpy_dtype, "r", offset, shape)
            with self._lock:
                self._maps[k] = mapped
                # Each map holds a file open until the last view of it is gone.
                while len(self._maps) > _MOST_MAPS:
                    del self._maps[next(iter(self._maps))]
        return mapped

    def _locate(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Split a time range into (shard, first, stop) pieces, the latter two counted inside the shard."""
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"Time range [{start}, {stop}) is outside the store's {len(self)} times.")
        pieces = []
        while start < stop:
            k, first = divmod(start, self._steps)
            n = min(stop - start, self._steps - first)
            pieces.append((k, first, first + n))
            start += n
        return pieces

    def read(self, i: int, out: np.ndarray | None = None) -> np.ndarray:
        """Give one state as stored.

        Parameters
        ----------
        i
            Time index.
        out
            (dynamic channel, latitude, longitude) of `numpy_dtype` to copy into; a memory-mapped read-only
            view is returned without it.
        """
        i = int(i) + (len(self) if i < 0 else 0)
        ((k, first, _),) = self._locate(i, i + 1)
        state = self._map(k)[first]
        if out is None:
            return state
        np.copyto(out, state)
        return out

    def read_range(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Give consecutive states as stored: a view where they lie in one shard, else a copy.

        Parameters
        ----------
        start, stop
            Half-open range of time indices.
        out
            (stop - start, dynamic channel, latitude, longitude) of `numpy_dtype` to copy into.
        """
        pieces = self._locate(int(start), int(stop))
        if out is None and len(pieces) == 1:
            k, first, last = pieces[0]
            return self._map(k)[first:last]
        if out is None:
            out = np.empty((stop - start, *self.state_shape), self.numpy_dtype)
        at = 0
        for k, first, last in pieces:
            np.copyto(out[at : at + last - first], self._map(k)[first:last])
            at += last - first
        return out

    def read_into(self, start: int, stop: int, out: np.ndarray) -> None:
        """Read consecutive states into a buffer by system calls, which release the GIL.

        Unlike a memory map, a file that was truncated under way raises here instead of killing the process.

        Parameters
        ----------
        start, stop
            Half-open range of time indices.
        out
            C-contiguous (stop - start, dynamic channel, latitude, longitude) of `numpy_dtype`.

        Raises
        ------
        StoreError
            When a shard ends too early.
        """
        target = memoryview(out.reshape(-1).view(np.uint8))
        for k, first, last in self._locate(int(start), int(stop)):
            offset = self._offset(k) + first * self.state_nbytes
            length = (last - first) * self.state_nbytes
            piece, target = target[:length], target[length:]
            # Opened anew each time: a large store has more shards than a process may have open files.
            file = self.path / self._shards[k]["file"]
            try:
                with file.open("rb", buffering=0) as opened:
                    opened.seek(offset)
                    while piece:
                        n = opened.readinto(piece)
                        if not n:
                            raise StoreError(
                                f"{self._shards[k]['file']} of the tensor store ends too early: it is truncated.",
                                where=str(self.path),
                                remedy=_REMEDY,
                            )
                        piece = piece[n:]
            except OSError as error:
                raise StoreError(
                    f"{self._shards[k]['file']} of the tensor store cannot be read: {error.strerror}.",
                    where=str(self.path),
                    remedy=_REMEDY,
                ) from error

    def _offset(self, k: int) -> int:
        offset = self._offsets.get(k)
        if offset is None:
            offset = self._offsets[k] = self._header(k).offset
        return offset

    def decoded(self, start: int, stop: int) -> np.ndarray:
        """Give consecutive states as normalised float32 (time, dynamic channel, latitude, longitude)."""
        return decode(self.read_range(start, stop), self.dtype)

    def physical(self, start: int, stop: int) -> np.ndarray:
        """Give consecutive states in physical units, float32 (time, dynamic channel, latitude, longitude).

        The scaling is done in float64, as a channel's mean may exceed its std many times over.
        """
        values = self.decoded(start, stop)
        for c in self.channels.dynamic:
            values[:, c] = values[:, c].astype(np.float64) * self.std[c] + self.mean[c]
        return values

    def windows(self, split: str, steps: int = 1) -> np.ndarray:
        """Give the start indices of a split's windows of ``steps + 1`` states; see `window_starts`.

        Raises
        ------
        StoreError
            When there is no such split.
        """
        if split not in self.splits:
            raise StoreError(
                f"There is no split {split!r}; there are {', '.join(self.splits)}.", where=str(self.path)
            )
        return window_starts(self.splits[split], steps)
