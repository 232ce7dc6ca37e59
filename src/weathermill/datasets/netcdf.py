"""Labelled arrays that fit in memory, in one NetCDF file."""

from __future__ import annotations

from typing import Any

import xarray as xr

from weathermill.datasets.local import LocalDataset, staged
from weathermill.errors import UnreadableSourceError


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
        path = self._require(self._load_args.get("made_by", "__default__"))
        try:
            return xr.load_dataset(path, engine="h5netcdf", decode_timedelta=True)
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableSourceError(f"cannot be read as NetCDF: {error}", where=str(path)) from error

    def save(self, data: xr.Dataset) -> None:
        """Write the dataset, compressed, under a temporary name first."""
        encoding: dict[str, dict[str, Any]] = {
            name: {"zlib": True, "complevel": 1}
            for name, variable in data.variables.items()
            if variable.dtype.kind in "fiu" and variable.ndim > 0
        }
        with staged(self._filepath) as partial:
            data.drop_encoding().to_netcdf(partial, engine="h5netcdf", encoding=encoding)
