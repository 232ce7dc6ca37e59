"""Stores that are made of references: Kerchunk's to pieces of other files, and Icechunk's versioned ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weathermill.errors import UnreadableSourceError
from weathermill.fields.fingerprint import SourceDescription

_ICECHUNK = ("refs", "snapshots", "manifests", "transactions")


def is_reference_file(path: Path) -> bool:
    """Return whether a JSON file is a set of references, as Kerchunk and VirtualiZarr write them."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(content, dict):
        return False
    references = content.get("refs", content)
    return isinstance(references, dict) and any(
        key in references for key in (".zgroup", ".zmetadata", "zarr.json")
    )


def reference_options(location: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return fsspec's options to read what references point to as one Zarr store, at ``reference://``."""
    extra: dict[str, Any] = {"remote_options": dict(options)} if options else {}
    return {"fo": location, "asynchronous": True, **extra}


def refuse_parquet_references(path: Path) -> None:
    """Refuse references in Parquet, which would open as a store whose every value is missing.

    Raises
    ------
    UnreadableSourceError
        If the folder holds such.
    """
    if next(path.glob("*/refs.*.parq"), None) is not None:
        raise UnreadableSourceError(
            "these are references in Parquet, which are not read",
            where=str(path),
            remedy="Write them as JSON: `virtualizarr`'s to_kerchunk(format='json'), or Kerchunk's translate() into a file.",
        )


def is_icechunk(path: Path) -> bool:
    """Return whether a folder is an Icechunk repository."""
    return path.is_dir() and all((path / name).is_dir() for name in _ICECHUNK)


def icechunk_store(path: Path) -> tuple[Any, SourceDescription]:
    """Open the branch ``main`` of a local Icechunk repository to read.

    Returns
    -------
    store
        For Zarr.
    SourceDescription
        Whose hash is that of the snapshot, and so covers every byte.

    Raises
    ------
    UnreadableSourceError
        If the package is not there, or the repository cannot be opened.
    """
    try:
        import icechunk
    except ImportError as error:
        raise UnreadableSourceError(
            "this is an Icechunk repository, and Icechunk is not installed",
            where=str(path),
            remedy="Install the package icechunk (extra icechunk), or copy the fields to a Zarr store.",
        ) from error
    try:
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
        session = repository.readonly_session("main")
    except icechunk.IcechunkError as error:
        raise UnreadableSourceError(
            f"the Icechunk repository cannot be opened: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy="Check that it is complete and has a branch main.",
        ) from error
    snapshot = hashlib.sha256(str(session.snapshot_id).encode()).hexdigest()
    return session.store, SourceDescription(str(path), "icechunk", -1, "", snapshot, True)
