"""Opening raw sources lazily: NetCDF files, globs, archives of them, Zarr stores, local or behind a URL."""

from __future__ import annotations

import glob
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from weathermill.errors import CoordinateError, SourceNotFoundError, UnreadableSourceError
from weathermill.fields.archives import extract_members
from weathermill.fields.findings import Finding, attach
from weathermill.fields.fingerprint import (
    SourceDescription,
    describe_file,
    describe_files,
    describe_remote,
    describe_store,
    remote_steps,
    store_steps,
)
from weathermill.fields.formats import (
    DATA_SUFFIXES,
    GRIB_SUFFIXES,
    UNDECODABLE,
    check_classic_size,
    file_format,
    is_zarr_store,
)
from weathermill.fields.grib import GribVariable, open_grib
from weathermill.fields.listing import expand_local, few
from weathermill.fields.references import (
    icechunk_store,
    is_icechunk,
    is_reference_file,
    reference_options,
    refuse_parquet_references,
)
from weathermill.fields.timecoding import TimeCoder

logger = logging.getLogger(__name__)

_GROUP = "weathermill_group"


@dataclass
class OpenedSources:
    """Datasets with their names and descriptions; iterates over ``(dataset, name)``.

    Attributes
    ----------
    datasets
        As xarray decodes them: not loaded, without Dask.
    names
        Short names for messages: file names, made distinct by their folder where needed.
    descriptions
        Where each came from, with size, time of modification and hash.
    """

    datasets: list[xr.Dataset]
    names: list[str]
    descriptions: list[SourceDescription]
    _keep: list[Any] = field(default_factory=list, repr=False)

    def __iter__(self) -> Iterator[tuple[xr.Dataset, str]]:
        return iter(zip(self.datasets, self.names, strict=True))

    def __len__(self) -> int:
        return len(self.datasets)

    def step_identities(self) -> list[list[str] | None]:
        """Return, for each dataset, what identifies the content of each of its time steps.

        None for files, which can only be told apart as a whole.
        """
        identities: list[list[str] | None] = []
        for dataset, description in zip(self.datasets, self.descriptions, strict=True):
            group = dataset.encoding.get(_GROUP)
            if group is None:
                identities.append(None)
            elif description.format == "zarr":
                identities.append(store_steps(Path(description.location), dataset, group))
            else:
                identities.append(remote_steps(dataset, description.location))
        return identities

    def close(self) -> None:
        """Close all files."""
        for dataset in self.datasets:
            dataset.close()

    def __enter__(self) -> OpenedSources:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_sources(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    storage_options: Mapping[str, Any] | None = None,
    engine: str | None = None,
    group: str | None = None,
) -> OpenedSources:
    """Open one or many sources without reading their data.

    Parameters
    ----------
    paths
        A path, a glob (``ERA5_*.nc``), a folder of files and stores, a Zarr store (v2 or v3, consolidated or not), a file of
        references (Kerchunk's JSON), a local Icechunk repository, a URL that fsspec knows (``s3://``, ``gs://``, ``https://``, ``memory://``), or several of these. A ZIP
        archive of NetCDF or GRIB files counts as its members, whatever its name is, and a GRIB file as its variables. What
        a folder or glob passes over becomes a finding, and so does a file that is listed twice.
    storage_options
        For fsspec, credentials included.
    engine
        xarray's; chosen by the first bytes of the file by default.
    group
        The group of a Zarr store or NetCDF file that holds the fields.

    Returns
    -------
    OpenedSources
        In the order given, folders and globs sorted.

    Raises
    ------
    SourceNotFoundError
        Where a path or glob matches nothing, saying what the folder holds.
    UnreadableSourceError
        Where a source is truncated, damaged or no NetCDF, Zarr or GRIB, naming it.
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not listed:
        raise SourceNotFoundError("the list of sources is empty")
    opened = OpenedSources([], [], [])
    options = dict(storage_options or {})
    noticed: list[Finding] = []
    try:
        sources = _sources(listed, noticed)
        # Steps of one forecast may be spread over files: GRIB files are looked at together.
        grib = _grib_variables([s for s in sources if isinstance(s, Path)], engine)
        for source in sources:
            if isinstance(source, str):
                _open_url(opened, source, options, engine, group)
            elif source in grib:
                _add_grib(opened, grib[source])
            else:
                _open_local(opened, source, engine, group, options)
    except BaseException:
        opened.close()
        raise
    attach(opened.datasets[0], noticed)
    opened.names = _distinct(opened.names, [d.location for d in opened.descriptions])
    return opened


def _sources(listed: Sequence[str | os.PathLike[str]], noticed: list[Finding]) -> list[Path | str]:
    """Return local files and stores, archives as their members, and URLs as text; each path once."""
    sources: list[Path | str] = []
    known: set[Path] = set()
    repeated: list[str] = []
    for path in listed:
        text = os.fspath(path)
        if "://" in text and not text.startswith("file://"):
            sources.append(text)
            continue
        listing = expand_local(text.removeprefix("file://"))
        if (finding := listing.finding(text)) is not None:
            noticed.append(finding)
        for local in listing.paths:
            if local.resolve() in known:
                repeated.append(local.name)
            else:
                known.add(local.resolve())
                sources.append(local)
    if repeated:
        noticed.append(Finding("info", "sources", f"listed twice, and taken once: {few(repeated)}"))
    return sources


def _grib_variables(paths: Sequence[Path], engine: str | None) -> dict[Path, list[GribVariable]]:
    """Return the variables of each GRIB file, the files looked at together."""
    if engine is not None:
        return {}
    found = {path: [] for path in paths if path.is_file() and file_format(path) == "grib"}
    for variable in open_grib(list(found)) if found else []:
        found[variable.paths[0]].append(variable)
    return found


def _add_grib(opened: OpenedSources, variables: Sequence[GribVariable], archive: Path | None = None) -> None:
    known: dict[tuple[Path, ...], SourceDescription] = {}
    for variable in variables:
        if variable.paths not in known:
            known[variable.paths] = describe_files(variable.paths if archive is None else (archive,), "grib")
        name = f"{variable.paths[0].name}!{variable.name}"
        name = name if archive is None else f"{archive.name}!{name}"
        _add(opened, variable.dataset, name, known[variable.paths])


def _open_local(
    opened: OpenedSources, path: Path, engine: str | None, group: str | None, options: Mapping[str, Any]
) -> None:
    if is_icechunk(path):
        store, description = icechunk_store(path)
        _add(opened, _open_zarr(str(path), {}, group, store=store), path.name, description)
        return
    if path.is_dir():
        refuse_parquet_references(path)
        if not is_zarr_store(path):
            raise UnreadableSourceError(
                f"the folder {path.name} is no Zarr store: it has neither zarr.json nor .zgroup nor .zmetadata",
                where=str(path),
                remedy="Give the store itself, or a glob of the files in the folder.",
            )
        dataset = _open_zarr(str(path), {}, group)
        dataset.encoding[_GROUP] = group or ""
        _add(opened, dataset, path.name, describe_store(path))
        return
    kind = file_format(path)
    if kind == "json" and is_reference_file(path):
        references = reference_options(str(path), options)
        dataset = _open_zarr("reference://", references, group, shown=str(path))
        _add(opened, dataset, path.name, describe_file(path, "references"))
        return
    if kind == "zip":
        _open_archive(opened, path, group)
        return
    if engine is None and kind not in ("hdf5", "netcdf3"):
        raise UnreadableSourceError(*UNDECODABLE[kind][:1], where=str(path), remedy=UNDECODABLE[kind][1])
    dataset = _open_netcdf(path, engine, group, shown=str(path))
    if kind == "netcdf3":
        check_classic_size(path, dataset)
    _add(opened, dataset, path.name, describe_file(path, kind))


def _open_archive(opened: OpenedSources, path: Path, group: str | None) -> None:
    description = describe_file(path, "zip")
    archive = extract_members(path)
    first = len(opened)
    grib = _grib_variables(archive.members, None)
    for member in archive.members:
        if member in grib:
            _add_grib(opened, grib[member], path)
        else:
            dataset = _open_netcdf(member, None, group, shown=f"{path}!{member.name}")
            _add(opened, dataset, f"{path.name}!{member.name}", description)
    if archive.passed_over and len(opened) > first:
        what = f"{len(archive.passed_over)} members are passed over: {few(archive.passed_over)}"
        attach(opened.datasets[first], [Finding("info", path.name, what)])


def _add(opened: OpenedSources, dataset: xr.Dataset, name: str, description: SourceDescription) -> None:
    opened.datasets.append(dataset)
    opened.names.append(name)
    opened.descriptions.append(description)


def _decoding() -> dict[str, Any]:
    return {
        "decode_times": TimeCoder(time_unit="ns"),
        "decode_timedelta": False,
        # Reads go to Dask, block by block: a cache beside it would keep whole variables.
        "cache": False,
        "chunks": None,
    }


def _open_netcdf(path: Path, engine: str | None, group: str | None, *, shown: str) -> xr.Dataset:
    options: dict[str, Any] = {} if group is None else {"group": group}
    try:
        return xr.open_dataset(path, engine=engine or "netcdf4", **_decoding(), **options)
    except CoordinateError as error:
        raise CoordinateError(error.what, where=error.where or shown, remedy=error.remedy) from error
    except ValueError as error:
        raise UnreadableSourceError(
            f"the file opens but cannot be decoded: {_one_line(error)}",
            where=shown,
            remedy="Correct the attributes that the message names (often `units` of the time).",
        ) from error
    except (OSError, RuntimeError, KeyError, EOFError) as error:
        raise UnreadableSourceError(
            f"the file is truncated or damaged ({Path(path).stat().st_size} bytes): {_one_line(error)}",
            where=shown,
        ) from error


def _open_zarr(
    location: str,
    options: Mapping[str, Any],
    group: str | None,
    *,
    store: Any = None,
    shown: str | None = None,
) -> xr.Dataset:
    extra: dict[str, Any] = {"storage_options": dict(options)} if options else {}
    decoding = _decoding()
    decoding.pop("cache")
    where = shown or location
    try:
        with warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always")
            dataset = xr.open_dataset(
                location if store is None else store,
                engine="zarr",
                cache=False,
                group=group,
                **extra,
                **decoding,
            )
    except CoordinateError as error:
        raise CoordinateError(error.what, where=error.where or where, remedy=error.remedy) from error
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"no Zarr store is found at {where}", where=where) from error
    except ImportError:
        raise
    except Exception as error:
        raise UnreadableSourceError(
            f"the Zarr store cannot be opened: {_one_line(error)}",
            where=where,
            remedy="Check the address and the credentials, and that the store is complete."
            if "://" in where
            else "Check that it is complete: a store whose writing was interrupted lacks metadata.",
        ) from error
    for warning in noticed:
        if "consolidated metadata" in str(warning.message):
            logger.info("%s has no consolidated metadata, which makes opening slow", where)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return dataset


def _open_url(opened: OpenedSources, url: str, options: dict[str, Any], engine, group) -> None:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise SourceNotFoundError(
            f"URLs of this kind cannot be opened: {_one_line(error)}",
            where=url,
            remedy="Install the package that the message names (extras s3, gcs or http), or correct the URL.",
        ) from error
    urls = [url]
    if glob.has_magic(path) and url.split("://")[0] not in ("http", "https"):
        urls = [filesystem.unstrip_protocol(match) for match in sorted(filesystem.glob(path))]
        if not urls:
            raise SourceNotFoundError(f"the pattern {url} matches nothing", where=url)
    for one in urls:
        _, path = fsspec.core.url_to_fs(one, **options)
        name = path.rstrip("/").rsplit("/", 1)[-1]
        if name.lower().endswith((*GRIB_SUFFIXES, ".zip")):
            raise UnreadableSourceError(
                "GRIB files and archives are not read from a URL",
                where=one,
                remedy="Download the file, and give its path.",
            )
        if name.lower().endswith(DATA_SUFFIXES):
            dataset = _open_remote_netcdf(filesystem, path, one, group, opened)
        else:
            dataset = _open_zarr(one, options, group)
            dataset.encoding[_GROUP] = group or ""
        _add(opened, dataset, name, describe_remote(filesystem, path, one))


def _open_remote_netcdf(filesystem, path: str, url: str, group, opened: OpenedSources) -> xr.Dataset:
    try:
        handle = filesystem.open(path, "rb")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{url} does not exist", where=url) from error
    opened._keep.append(handle)
    options = {} if group is None else {"group": group}
    try:
        return xr.open_dataset(handle, engine="h5netcdf", **_decoding(), **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UnreadableSourceError(
            f"the file is truncated, damaged or no NetCDF-4: {_one_line(error)}", where=url
        ) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _distinct(names: Sequence[str], locations: Sequence[str]) -> list[str]:
    """Put the folder before names that occur more than once."""
    result = []
    for name, location in zip(names, locations, strict=True):
        parent = location.rstrip("/").rsplit("/", 2)
        result.append(f"{parent[-2]}/{name}" if names.count(name) > 1 and len(parent) > 1 else name)
    return result
