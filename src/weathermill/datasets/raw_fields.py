"""Raw sources as a catalog entry: opened lazily, described with hashes, never written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from weathermill.errors import SourceNotFoundError
from weathermill.fields.listing import expand_local
from weathermill.fields.opening import OpenedSources, open_sources
from weathermill.incremental.records import files_of
from weathermill.redaction import redact_values


class RawFieldsDataset(AbstractDataset):
    """NetCDF files, globs, archives of them, Zarr stores and URLs; see ``weathermill.fields.opening``.

    Parameters
    ----------
    filepath
        One path, glob or URL, or a list of them.
    load_args
        ``engine``, ``group`` and ``storage_options`` of `open_sources`; and ``full_fingerprint``: true to have every
        byte of local files hashed to see whether they changed, instead of samples.
    credentials
        Merged into ``storage_options``; they appear in no description.
    metadata
        Free metadata, ignored by Kedro.

    Example
    -------
    .. code-block:: yaml

        raw_fields:
          type: weathermill.datasets.RawFieldsDataset
          filepath: data/01_raw/era5_*.nc
    """

    def __init__(
        self,
        *,
        filepath: str | Sequence[str],
        load_args: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._paths = [filepath] if isinstance(filepath, str) else list(filepath)
        self._load_args = dict(load_args or {})
        self._credentials = dict(credentials or {})
        self.metadata = metadata

    def load(self) -> OpenedSources:
        """Open all sources."""
        arguments = {key: value for key, value in self._load_args.items() if key != "full_fingerprint"}
        options = {**(arguments.pop("storage_options", None) or {}), **self._credentials}
        return open_sources(self._paths, storage_options=options, **arguments)

    def save(self, data: Any) -> None:
        """Refuse: raw data are read only."""
        raise DatasetError("raw fields are never written")

    def _describe(self) -> dict[str, Any]:
        shown = {key: value for key, value in self._load_args.items() if key != "storage_options"}
        return {"filepath": redact_values(self._paths), "load_args": shown}

    def _exists(self) -> bool:
        try:
            return all("://" in path or bool(expand_local(path).paths) for path in self._paths)
        except SourceNotFoundError:
            return False

    def fingerprint(self) -> str:
        """Digest sizes, times of modification and sampled contents of all sources, and how they are opened."""
        with self.load() as opened:
            parts = [f"{d.size} {d.modified} {d.sha256}" for d in opened.descriptions]
            if self._load_args.get("full_fingerprint"):
                files = [Path(d.location) for d in opened.descriptions]
                parts += [json.dumps(files_of(path)) for path in files if path.exists()]
        opened_with = {key: self._load_args[key] for key in ("engine", "group") if self._load_args.get(key)}
        parts += [json.dumps(opened_with, sort_keys=True)] if opened_with else []
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def lineage(self, data: OpenedSources) -> list[dict[str, str]]:
        """Describe the sources to the tracker; more than twenty as one entry with the hash of all."""
        described = data.descriptions
        if len(described) <= 20:
            return [
                {"name": f"raw_fields: {name}", "source": d.location, "digest": d.sha256}
                for d, name in zip(described, data.names, strict=True)
            ]
        digest = hashlib.sha256("".join(d.sha256 for d in described).encode()).hexdigest()
        return [
            {
                "name": f"raw_fields: {len(described)} sources",
                "source": described[0].location,
                "digest": digest,
            }
        ]
