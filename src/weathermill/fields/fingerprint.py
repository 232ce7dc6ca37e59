"""Where data came from: sources with size, time of modification and a sampled hash."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr

from weathermill.fields.coordinates import find_coordinate

_HEAD_BYTES = 2**20
_SAMPLES = 32
_SAMPLE_BYTES = 2**16
# What ARCO-ERA5 says of how far its axis is filled.
_EXTENT_ATTRIBUTES = ("valid_time_start", "valid_time_stop", "valid_time_stop_era5t", "last_updated")
_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")


@dataclass(frozen=True)
class SourceDescription:
    """Where a source is and what identifies it.

    Attributes
    ----------
    location
        Path or URL, without credentials.
    format
        ``hdf5``, ``netcdf3``, ``zip``, ``grib``, ``zarr`` or ``remote``.
    size
        Bytes; -1 where it is not known.
    modified
        ISO 8601 in UTC, or empty.
    sha256
        Over the size, the first and last mebibyte and evenly spaced blocks of a file; over the metadata and the
        names and sizes of all chunks of a local store; over the metadata of a remote one.
    complete
        Whether the hash covers every byte.
    """

    location: str
    format: str
    size: int
    modified: str
    sha256: str
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return asdict(self)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sampled_sha256(path: Path) -> tuple[str, bool]:
    """Return a SHA-256 over the size and samples of a file, and whether the samples are all of it.

    Reading is bounded to 4 MiB, whatever the size.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    whole = size <= 2 * _HEAD_BYTES + _SAMPLES * _SAMPLE_BYTES
    with path.open("rb") as handle:
        if whole:
            digest.update(handle.read())
            return digest.hexdigest(), True
        digest.update(handle.read(_HEAD_BYTES))
        for i in range(_SAMPLES):
            handle.seek(_HEAD_BYTES + (size - 2 * _HEAD_BYTES) * i // _SAMPLES)
            digest.update(handle.read(_SAMPLE_BYTES))
        handle.seek(size - _HEAD_BYTES)
        digest.update(handle.read(_HEAD_BYTES))
    return digest.hexdigest(), False


def describe_file(path: Path, kind: str) -> SourceDescription:
    """Describe a local file."""
    status = path.stat()
    digest, whole = sampled_sha256(path)
    return SourceDescription(str(path), kind, status.st_size, _iso(status.st_mtime), digest, whole)


def describe_files(paths: Sequence[Path], kind: str) -> SourceDescription:
    """Describe the first of several local files, with a hash over all of them where the values come from all."""
    first, *others = [describe_file(path, kind) for path in paths]
    if not others:
        return first
    digest = hashlib.sha256("\n".join(d.sha256 for d in (first, *others)).encode()).hexdigest()
    newest = max(d.modified for d in (first, *others))
    complete = all(d.complete for d in (first, *others))
    return replace(first, modified=newest, sha256=digest, complete=complete)


def describe_store(path: Path) -> SourceDescription:
    """Describe a local Zarr store: metadata by content, chunks by name and size."""
    digest = hashlib.sha256()
    total, newest = 0, 0.0
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            status = file.stat()
            total += status.st_size
            newest = max(newest, status.st_mtime)
            digest.update(f"{file.relative_to(path).as_posix()}:{status.st_size}\n".encode())
            if name in _METADATA:
                digest.update(file.read_bytes())
    return SourceDescription(str(path), "zarr", total, _iso(newest), digest.hexdigest(), False)


def store_steps(path: Path, dataset: xr.Dataset, group: str = "") -> list[str] | None:
    """Tell the time steps of a local Zarr store apart by the files that hold them.

    Parameters
    ----------
    path
        The store.
    dataset
        As opened from it, with the encoding of its variables.
    group
        The group in the store.

    Returns
    -------
    list of str or None
        A digest for each step: of names, sizes and times of modification of the chunks that hold it, and of all
        metadata but the length of the axis, so that steps appended behind change nothing before them. None without a
        time axis.
    """
    axis_name = find_coordinate(dataset, "time")
    if axis_name is None or dataset[axis_name].ndim != 1:
        return None
    dimension = dataset[axis_name].dims[0]
    common: list[str] = []
    held: list[tuple[int, dict[int, list[str]]]] = []
    for name, variable in sorted(dataset.variables.items(), key=lambda item: str(item[0])):
        folder = path / group / str(name)
        of_steps = dimension in variable.dims
        if name == axis_name or (of_steps and name not in dataset.data_vars):
            continue
        chunks = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
        axis = variable.dims.index(dimension) if of_steps else 0
        groups: dict[int, list[str]] = {}
        for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            if file.name in _METADATA:
                common.append(f"{name} {_without_length(file)}")
                continue
            relative = file.relative_to(folder).as_posix()
            if not of_steps:
                # Appending writes coordinates anew, with what they held.
                common.append(f"{name} {relative} {sampled_sha256(file)[0]}")
                continue
            place = re.findall(r"\d+", relative)
            if len(place) != variable.ndim:
                return None
            status = file.stat()
            text = f"{name} {relative} {status.st_size} {status.st_mtime_ns}"
            groups.setdefault(int(place[axis]), []).append(text)
        if of_steps:
            held.append((int(chunks[axis]), groups))
    start = hashlib.sha256("\n".join(common).encode()).hexdigest()
    known: dict[tuple[int, ...], str] = {}
    steps = []
    for i in range(dataset.sizes[dimension]):
        places = tuple(i // length for length, _ in held)
        if places not in known:
            texts = [
                start,
                *(text for place, (_, g) in zip(places, held, strict=True) for text in g.get(place, ())),
            ]
            known[places] = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        steps.append(known[places])
    return steps


def remote_steps(dataset: xr.Dataset, location: str) -> list[str] | None:
    """Tell whether the time steps of a Zarr store behind a URL are of the same store as before.

    Parameters
    ----------
    dataset
        As opened from it.
    location
        Its URL.

    Returns
    -------
    list of str or None
        One digest of all metadata but the length of the time axis and the attributes that say how far it is filled, for
        all steps: chunks that are replaced while the metadata stay the same are not seen. None without a time axis.
    """
    axis_name = find_coordinate(dataset, "time")
    if axis_name is None or dataset[axis_name].ndim != 1:
        return None
    attributes = {key: value for key, value in dataset.attrs.items() if key not in _EXTENT_ATTRIBUTES}
    parts: list[Any] = [location, attributes]
    for name, variable in sorted(dataset.variables.items(), key=lambda item: str(item[0])):
        if name != axis_name:
            stored = [
                variable.encoding.get(key) for key in ("dtype", "chunks", "shards", "compressors", "filters")
            ]
            parts.append([name, variable.dims, variable.attrs, stored])
    text = json.dumps(parts, sort_keys=True, default=str)
    return [hashlib.sha256(text.encode()).hexdigest()] * dataset.sizes[dataset[axis_name].dims[0]]


def _without_length(file: Path) -> str:
    """Return the metadata of an array without its shape, which appending changes."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return file.read_text(encoding="utf-8", errors="replace")
    if isinstance(content, dict):
        content.pop("shape", None)
    return json.dumps(content, sort_keys=True)


def describe_remote(filesystem: Any, path: str, url: str) -> SourceDescription:
    """Describe a file or store behind a URL by its size, tag and metadata; data is not read."""
    digest = hashlib.sha256(path.encode())
    size, modified = -1, ""
    try:
        info = filesystem.info(path)
        if info.get("type") != "directory" and info.get("size") is not None:
            size = int(info["size"])
        for key in ("ETag", "etag", "md5", "md5Hash", "mtime", "LastModified", "created", "size"):
            if info.get(key) is not None:
                digest.update(f"{key}={info[key]}".encode())
        changed = info.get("LastModified") or info.get("mtime") or info.get("created") or ""
        modified = changed.isoformat() if hasattr(changed, "isoformat") else str(changed)
    except (OSError, NotImplementedError):
        pass
    for name in ("zarr.json", ".zmetadata", ".zgroup"):
        try:
            digest.update(filesystem.cat_file(f"{path.rstrip('/')}/{name}"))
            break
        except (OSError, NotImplementedError, ValueError):
            continue
    location = url.split("?")[0]
    if "@" in location.split("://", 1)[-1].split("/", 1)[0]:
        scheme, rest = location.split("://", 1)
        location = f"{scheme}://{rest.split('@', 1)[1]}"
    return SourceDescription(location, "remote", size, modified, digest.hexdigest(), False)
