"""One shard: a safetensors file with a single tensor whose bytes start on a page boundary.

The header is padded with spaces, as the format allows, to 4096 bytes: any safetensors reader opens the
file, and a memory map or a direct read of the data is page aligned.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from weathermill.errors import StoreError
from weathermill.tensors.files import fsync_folder

PAGE = 4096
TENSOR = "fields"

# NumPy has no bfloat16: its bits travel as uint16.
NUMPY_DTYPES = {"float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2"), "float32": np.dtype("<f4")}
TORCH_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_CODES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 values to the stored dtype, to nearest with ties to even.

    Parameters
    ----------
    values
        float32, any shape.
    dtype
        ``"float16"``, ``"bfloat16"`` (returned as its bits in uint16) or ``"float32"``.
    """
    if dtype == "float32":
        return np.ascontiguousarray(values, dtype=NUMPY_DTYPES[dtype])
    # torch converts to half precision ten times as fast as NumPy.
    tensor = torch.from_numpy(np.require(values, np.float32, ["C", "W"])).to(TORCH_DTYPES[dtype])
    return tensor.view(torch.int16).numpy().view(NUMPY_DTYPES[dtype])


def decode(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Widen stored values to float32, exactly; always a new array."""
    if dtype == "float32":
        return np.array(stored, dtype=np.float32)
    if not stored.flags.writeable or not stored.flags.c_contiguous:
        # torch refuses to look at read-only memory, such as a map of a store.
        stored = np.array(stored)
    return as_tensor(stored, dtype).to(torch.float32).numpy()


def as_tensor(stored: np.ndarray, dtype: str) -> torch.Tensor:
    """View stored values as a torch tensor of their true dtype, without a copy; `stored` must be writable."""
    if dtype == "bfloat16":
        return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(stored)


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself: dtype, shape, where its data start, and its metadata."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    metadata: dict[str, str]


def shard_size(shape: tuple[int, ...], dtype: str) -> int:
    """Size in bytes of the file that `write_shard` makes."""
    return PAGE + int(np.prod(shape)) * NUMPY_DTYPES[dtype].itemsize


def write_shard(path: Path, stored: np.ndarray, dtype: str, metadata: Mapping[str, str]) -> tuple[int, str]:
    """Write one shard as ``<name>.partial``, synced to disk before it gets its name.

    Returns
    -------
    size, sha256
        Of the whole file.
    """
    stored = np.ascontiguousarray(stored)
    entry = {"dtype": _CODES[dtype], "shape": list(stored.shape), "data_offsets": [0, stored.nbytes]}
    header = json.dumps({"__metadata__": dict(metadata), TENSOR: entry}).encode()
    if len(header) > PAGE - 8:
        raise ValueError(f"The metadata of a shard must fit {PAGE - 8} bytes.")
    head = (PAGE - 8).to_bytes(8, "little") + header.ljust(PAGE - 8)
    body = memoryview(stored.reshape(-1).view(np.uint8))
    digest = hashlib.sha256(head)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb", buffering=0) as file:
            _write_all(file, memoryview(head))
            for start in range(0, len(body), 1 << 24):
                chunk = body[start : start + (1 << 24)]
                digest.update(chunk)
                _write_all(file, chunk)
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    return PAGE + len(body), digest.hexdigest()


def _write_all(file, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def read_header(path: Path) -> ShardHeader:
    """Parse the header of a shard.

    Raises
    ------
    StoreError
        When the file is missing, too short for its header or tensor, or no safetensors file with the one
        tensor.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise StoreError(
                    f"Shard {path.name} is damaged: it is too short for its header.", where=str(path)
                )
            header = json.loads(file.read(length))
        entry = header[TENSOR]
        dtype = next(name for name, code in _CODES.items() if code == entry["dtype"])
        begin, end = entry["data_offsets"]
        shape = tuple(int(n) for n in entry["shape"])
        expected = int(np.prod(shape)) * NUMPY_DTYPES[dtype].itemsize
        if end - begin != expected or 8 + length + end > size:
            raise StoreError(
                f"Shard {path.name} is truncated: it has {size} bytes and needs {8 + length + end}.",
                where=str(path),
            )
        return ShardHeader(dtype, shape, 8 + length + begin, dict(header.get("__metadata__", {})))
    except FileNotFoundError as error:
        raise StoreError(f"Shard {path.name} is missing.", where=str(path)) from error
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise StoreError(
            f"Shard {path.name} is damaged: its header cannot be read.", where=str(path)
        ) from error


def squared_error(stored: np.ndarray, values: np.ndarray, dtype: str) -> list[float]:
    """Mean square of the rounding error of each channel, missing values left out."""
    if dtype == "float32":
        return [0.0] * values.shape[1]
    exact, rounded = torch.from_numpy(values), as_tensor(stored, dtype)
    means = []
    for c in range(values.shape[1]):
        error = rounded[:, c].to(torch.float32) - exact[:, c]
        square = error.square().mean()
        if not torch.isfinite(square):
            square = error[torch.isfinite(error)].square().sum() / max(1, int(torch.isfinite(error).sum()))
        means.append(float(square))
    return means


def count_missing(path: Path, start: int, stop: int, channels: Sequence[int]) -> np.ndarray:
    """Count the missing values of each cell over some times of a shard.

    Parameters
    ----------
    path
        The shard.
    start, stop
        Half-open range of times, counted inside the shard.
    channels
        Indices of dynamic channels.

    Returns
    -------
    numpy.ndarray
        int64 (channel, latitude, longitude).
    """
    header = read_header(path)
    shard = np.memmap(path, NUMPY_DTYPES[header.dtype], "r", header.offset, header.shape)
    counts = [np.isnan(decode(shard[start:stop, c], header.dtype)).sum(axis=0) for c in channels]
    return np.stack(counts).astype(np.int64)
