"""ZIP archives of NetCDF or GRIB files, which the Climate Data Store hands out under the name of a NetCDF file."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from weathermill.errors import ResourceError, UnreadableSourceError
from weathermill.fields.formats import GRIB_SUFFIXES, NETCDF_SUFFIXES, file_format

_SUFFIXES = (*NETCDF_SUFFIXES, *GRIB_SUFFIXES)
_MAX_MEMBERS = 10_000
# Deflate cannot shrink by more than about 1030; NetCDF seldom by more than 20.
_MAX_RATIO = 1100

# Extracted members must outlive the datasets that are read from them lazily: until the process ends. What is opened
# again, as sources are several times in a run, is not extracted again.
_folders: list[tempfile.TemporaryDirectory[str]] = []
_extracted: dict[tuple[int, str, int, int], Archive] = {}


@dataclass(frozen=True)
class Archive:
    """What an archive holds: the extracted files, sorted by name, and the names of members that are no data."""

    members: list[Path]
    passed_over: list[str]


def extract_members(path: Path) -> Archive:
    """Extract the NetCDF and GRIB members of a ZIP archive into a temporary folder that goes when the process ends.

    In a run that is in the folder of the run's temporary data (``resources.temporary_folder``), which the next run
    removes if this one is killed. Members keep only the last part of their name, so that none can leave the folder; their sizes are checked
    against what they claim and against the free disk space.

    Parameters
    ----------
    path
        The archive, whatever its suffix.

    Returns
    -------
    Archive

    Raises
    ------
    UnreadableSourceError
        Where the archive is damaged or holds neither NetCDF nor GRIB.
    ResourceError
        Where the disk has no room for the members.
    """
    status = path.stat()
    key = (os.getpid(), str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key in _extracted and all(file.exists() for file in _extracted[key].members):
        return _extracted[key]
    folder = tempfile.TemporaryDirectory(prefix="weathermill-", ignore_cleanup_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            members = [info for info in files if _is_data(info)]
            passed_over = sorted(info.filename for info in files if not _is_data(info))
            if not members:
                held = ", ".join(sorted(info.filename for info in archive.infolist())[:8]) or "nothing"
                raise UnreadableSourceError(
                    f"the ZIP archive holds neither NetCDF nor GRIB, but {held}",
                    where=str(path),
                    remedy="Unpack it.",
                )
            _check_claims(members, path, Path(folder.name))
            paths = [_extract(archive, info, Path(folder.name), path) for info in members]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        folder.cleanup()
        raise UnreadableSourceError(f"the ZIP archive is damaged: {error}", where=str(path)) from error
    except BaseException:
        folder.cleanup()
        raise
    _folders.append(folder)
    _extracted[key] = Archive(sorted(paths), passed_over)
    return _extracted[key]


def _is_data(info: zipfile.ZipInfo) -> bool:
    # macOS puts a file of attributes beside each member.
    path = PurePosixPath(info.filename)
    return path.suffix.lower() in _SUFFIXES and "__MACOSX" not in path.parts and not path.name.startswith(".")


def _check_claims(members: list[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    if len(members) > _MAX_MEMBERS:
        raise UnreadableSourceError(f"the ZIP archive has {len(members)} members", where=str(path))
    total = sum(info.file_size for info in members)
    if total > _MAX_RATIO * max(1, path.stat().st_size):
        raise UnreadableSourceError(
            f"the ZIP archive claims to hold {total} bytes, more than it can", where=str(path)
        )
    free = shutil.disk_usage(folder).free
    if total > 0.9 * free:
        raise ResourceError(
            f"extracting the archive takes {total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder}",
            where=str(path),
            remedy="Unpack it on a larger disk, or name one by resources.temporary_folder (outside a run: TMPDIR).",
        )


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, path: Path) -> Path:
    name = PurePosixPath(info.filename.replace("\\", "/")).name
    target = folder / name
    count = 1
    while target.exists():
        target = folder / f"{Path(name).stem}-{count}{Path(name).suffix}"
        count += 1
    with archive.open(info) as source, target.open("wb") as sink:
        written = 0
        while block := source.read(2**20):
            written += len(block)
            if written > info.file_size:
                raise UnreadableSourceError(f"the member {name} is longer than it claims", where=str(path))
            sink.write(block)
    if file_format(target) not in ("hdf5", "netcdf3", "grib"):
        raise UnreadableSourceError(
            f"the member {name} of the ZIP archive is neither NetCDF nor GRIB", where=str(path)
        )
    return target
