"""What a file is, by its first bytes, and whether all of it is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from weathermill.errors import UnreadableSourceError

#: Formats that are told by name but not opened: what they are, and what to do.
UNDECODABLE = {
    "empty": ("the file is empty", "Download or copy the file again."),
    "html": (
        "this is a web page, not NetCDF: the server answered the download with a page",
        "Log in or accept the licence where the data comes from, then download again.",
    ),
    "json": (
        "this is JSON, not NetCDF: often an error message of the server in place of the data",
        "Look into the file, then download again.",
    ),
    "gzip": ("the file is compressed with gzip", "Decompress it with gunzip."),
    "bzip2": ("the file is compressed with bzip2", "Decompress it with bunzip2."),
    "xz": ("the file is compressed with xz", "Decompress it with unxz."),
    "tar": ("this is a tar archive", "Unpack it and give the files."),
    "hdf4": ("this is HDF4, which is not supported", "Convert it to NetCDF, with h4toh5 or ncl_convert2nc."),
    "unknown": ("this is neither NetCDF, Zarr, GRIB nor a ZIP archive of them", "Convert it to NetCDF."),
}

#: How the names of files end, whatever the case.
NETCDF_SUFFIXES = (".nc", ".nc3", ".nc4", ".ncf", ".netcdf", ".cdf", ".h5", ".hdf5", ".hdf", ".he5")
GRIB_SUFFIXES = (".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".gb", ".gb2")
DATA_SUFFIXES = (*NETCDF_SUFFIXES, *GRIB_SUFFIXES, ".zip")

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"CDF\x01", "netcdf3"),
    (b"CDF\x02", "netcdf3"),
    (b"CDF\x05", "netcdf3"),
    (b"GRIB", "grib"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x0e\x03\x13\x01", "hdf4"),
)


def is_zarr_store(path: Path) -> bool:
    """Return whether a folder is a Zarr group, v2 or v3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def is_zarr_group(path: Path) -> bool:
    """Return whether a folder is a Zarr group and no array, which has a ``zarr.json`` of its own too."""
    if (path / ".zgroup").is_file():
        return True
    try:
        content = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("node_type") == "group"


def file_format(path: Path) -> str:
    """Return the format of a file by its first bytes.

    Returns
    -------
    str
        ``hdf5``, ``netcdf3``, ``grib``, ``zip``, or a key of ``UNDECODABLE``.

    Raises
    ------
    UnreadableSourceError
        Where the file cannot be read at all.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(512)
    except OSError as error:
        raise UnreadableSourceError(
            f"the file cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="Check that it is a file and that you may read it.",
        ) from error
    if not head:
        return "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "html"
    if text.startswith((b"{", b"[")):
        return "json"
    if head[257:262] == b"ustar":
        return "tar"
    # HDF5 may begin after a user block of 512 bytes or a power of two beyond.
    with path.open("rb") as handle:
        for offset in (512, 1024, 2048, 4096):
            handle.seek(offset)
            if handle.read(8) == _MAGIC[0][0]:
                return "hdf5"
    return "unknown"


def check_classic_size(path: Path, dataset: xr.Dataset) -> None:
    """Refuse a classic NetCDF file that is shorter than the data its header promises.

    The NetCDF library reads what lies beyond the end of such a file as zeros.

    Raises
    ------
    UnreadableSourceError
        Where bytes are missing.
    """
    promised = 0
    for variable in dataset.variables.values():
        stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
        if stored.kind not in "OUS":
            promised += variable.size * stored.itemsize
    size = path.stat().st_size
    if size < promised:
        raise UnreadableSourceError(
            f"the file is truncated: it has {size} bytes, and its variables need {promised}", where=str(path)
        )
