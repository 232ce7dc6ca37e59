"""Which files and stores a path, folder or glob stands for, and which of what lies there are passed over."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weathermill.errors import SourceNotFoundError
from weathermill.fields.findings import Finding
from weathermill.fields.formats import DATA_SUFFIXES, file_format, is_zarr_group, is_zarr_store
from weathermill.fields.references import is_icechunk, is_reference_file

# What programs leave beside data: indices, checksums, parts of downloads, copies.
_BESIDE = tuple(
    [
        ".idx",
        ".index",
        ".md5",
        ".sha256",
        ".sha512",
        ".txt",
        ".md",
        ".log",
        ".json",
        ".yml",
        ".yaml",
        ".xml",
        ".csv",
        ".html",
        ".png",
        ".jpg",
        ".pdf",
        ".ctl",
        ".py",
        ".ipynb",
        ".sh",
        ".partial",
        ".part",
        ".filepart",
        ".tmp",
        ".temp",
        ".crdownload",
        ".download",
        ".aria2",
        ".lock",
        ".bak",
        ".old",
        ".orig",
        ".swp",
    ]
)
_READ = ("hdf5", "netcdf3", "grib", "zip")


@dataclass
class Listing:
    """What a path, folder or glob stands for.

    Attributes
    ----------
    paths
        Files and stores, sorted.
    passed_over
        Names of what lies beside them and is not taken.
    """

    paths: list[Path]
    passed_over: list[str] = field(default_factory=list)

    def finding(self, text: str) -> Finding | None:
        """Return one line about what is passed over, or None."""
        if not self.passed_over:
            return None
        count = len(self.passed_over)
        return Finding(
            "info",
            text,
            f"{count} entr{'y is' if count == 1 else 'ies are'} passed over (no data, hidden, unfinished or in a"
            f" folder below): {few(self.passed_over)}",
        )


def few(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names, with the number of others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def expand_local(text: str) -> Listing:
    """Return the files and stores that a local path, folder or glob stands for.

    Of a folder, and of what a glob matches, files are taken whose suffix (in any case) or content is that of data, and
    Zarr stores; hidden files, indices, unfinished downloads and folders are passed over. What lies inside a Zarr store
    is never taken by itself. A path is taken as it is.

    Parameters
    ----------
    text
        A path, which may begin with ``~`` or have wildcards (``*``, ``?``, ``[…]``, ``**``).

    Raises
    ------
    SourceNotFoundError
        Where it stands for nothing, saying what the folder holds.
    """
    path = Path(text).expanduser()
    if path.exists():
        if path.is_dir() and not _is_source(path):
            return _of_folder(path, text)
        return Listing([path])
    if glob.has_magic(text):
        matches = sorted(Path(match) for match in glob.iglob(str(path), recursive=True))  # noqa: PTH207
        if matches:
            return _of_matches(matches, text)
        what = f"the pattern {text} matches nothing"
        folder = Path(text[: next(i for i, c in enumerate(text) if c in "*?[")]).parent
    else:
        what = f"{text} does not exist"
        folder = path.parent
    holder = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), Path())
    raise SourceNotFoundError(f"{what}; {holder} holds {held_in(holder)}", where=text)


def held_in(folder: Path, limit: int = 12) -> str:
    """Return the names of the first entries of a folder."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _of_folder(folder: Path, text: str) -> Listing:
    listing = _sift(sorted(folder.iterdir()), Listing([]))
    if not listing.paths:
        below = any(entry.is_dir() for entry in folder.iterdir())
        raise SourceNotFoundError(
            f"the folder {text} holds no NetCDF or GRIB file and is no Zarr store; it holds {held_in(folder)}",
            where=text,
            remedy=f"Give the folder of the files, or {text.rstrip('/')}/**/*.nc for those in folders below."
            if below
            else None,
        )
    return listing


def _of_matches(matches: Sequence[Path], text: str) -> Listing:
    listing = Listing([])
    inside: dict[Path, int] = {}
    chosen, outer = set(matches), []
    for match in matches:
        store = _store_around(match)
        if store is not None and not (is_zarr_group(match) and store not in chosen):
            inside[store] = inside.get(store, 0) + 1
        else:
            outer.append(match)
    _sift(outer, listing)
    outside = [store for store in inside if store not in chosen]
    if outside and not listing.paths:
        raise SourceNotFoundError(
            f"the pattern {text} matches the inside of the Zarr store {outside[0].name}",
            where=text,
            remedy=f"Give the store itself: {outside[0]}",
        )
    listing.passed_over.extend(f"{inside[store]} inside {store.name}" for store in outside)
    if listing.paths:
        return listing
    if len(matches) == 1 and not matches[0].is_dir():
        # A single file that is meant: opening it says what it is.
        return Listing(list(matches))
    raise SourceNotFoundError(
        f"the pattern {text} matches {few([match.name for match in matches])}, none of which is data",
        where=text,
    )


def _sift(entries: Sequence[Path], listing: Listing) -> Listing:
    """Put each entry among the sources of a listing, or among what is passed over."""
    listing.paths += [entry for entry in entries if _is_taken(entry)]
    if not listing.paths:
        # References beside the files that they point to would be the same data twice.
        listing.paths += [entry for entry in entries if _is_reference(entry)]
    taken = set(listing.paths)
    listing.passed_over += [
        entry.name + ("/" if entry.is_dir() else "") for entry in entries if entry not in taken
    ]
    return listing


def _is_reference(entry: Path) -> bool:
    named = entry.name.lower().endswith(".json") and not entry.name.startswith(".")
    return named and entry.is_file() and is_reference_file(entry)


def _is_source(folder: Path) -> bool:
    """Whether a folder is one source: a Zarr store, an Icechunk repository, or what should have become a store."""
    return is_zarr_store(folder) or is_icechunk(folder)


def _is_taken(entry: Path) -> bool:
    name = entry.name.lower()
    if name.startswith(".") or name.endswith("~"):
        return False
    if entry.is_dir():
        # A folder of that name without metadata is a store whose writing was interrupted: opening it says so.
        return _is_source(entry) or name.endswith(".zarr")
    if not entry.is_file() or name.endswith(_BESIDE):
        return False
    if name.endswith(DATA_SUFFIXES):
        return True
    return os.access(entry, os.R_OK) and file_format(entry) in _READ


def _store_around(path: Path) -> Path | None:
    """Return the outermost Zarr store or Icechunk repository that a path lies inside of, or None."""
    around = [parent for parent in path.parents if parent != parent.parent and _is_source(parent)]
    return around[-1] if around else None
