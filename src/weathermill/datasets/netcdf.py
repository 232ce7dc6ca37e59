"""Labelled arrays that fit in memory, in one NetCDF file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import xarray as xr

from weathermill.datasets.local import LocalDataset, staged
from weathermill.errors import UnreadableSourceError

#: A larger dataset is not put together in memory.
_IN_MEMORY = 2**28


def write_netcdf(data: xr.Dataset, path: Path, encoding: Mapping[str, Any] | None = None) -> None:
    """Write a NetCDF file so that a full disk is an error.

    HDF5 crashes the whole process when it closes a file that it could not write. Therefore it writes to memory, and
    the file is written from there; what is too large for that is only begun where the disk has room for all of it.

    Parameters
    ----------
    data
        What to write.
    path
        The file.
    encoding
        Of `xarray.Dataset.to_netcdf`.

    Raises
    ------
    OSError
        If the disk is full, or the file cannot be written.
    """
    if data.nbytes <= _IN_MEMORY:
        data = data.compute()
        # Versions of xarray before 2025.9 cannot. Threads: with a cluster, xarray would look for a lock of its own there.
        with contextlib.suppress(ValueError), dask.config.set(scheduler="threads"):
            path.write_bytes(data.to_netcdf(None, engine="h5netcdf", encoding=encoding))
            return
    if data.nbytes > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    data.to_netcdf(path, engine="h5netcdf", encoding=encoding)


class NetCDFDataset(LocalDataset):
    """One NetCDF file, read whole, written atomically.

    Example
    -------
    .. code-block:: yaml

        statistics:
          type: weathermill.datasets.NetCDFDataset
          filepath: data/04_feature/statistics.nc
    """

    def load(self) -> xr.Dataset:
        """Read the file into memory."""
        made_by = self._load_args.get("made_by", "__default__")
        path = self._require(made_by)
        try:
            return xr.load_dataset(path, engine="h5netcdf", decode_timedelta=True)
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableSourceError(
                f"cannot be read as NetCDF: {error}",
                where=str(path),
                remedy=f"Run `kedro run --params force={made_by}`, which makes it again.",
            ) from error

    def save(self, data: xr.Dataset) -> None:
        """Write the dataset, compressed, under a temporary name first."""
        encoding: dict[str, dict[str, Any]] = {
            name: {"zlib": True, "complevel": 1}
            for name, variable in data.variables.items()
            if variable.dtype.kind in "fiu" and variable.ndim > 0
        }
        with staged(self._filepath) as partial:
            write_netcdf(data.drop_encoding(), partial, encoding)
