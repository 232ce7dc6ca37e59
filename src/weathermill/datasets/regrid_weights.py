"""Regridding weights as a catalog entry, in ESMF's file layout."""

from __future__ import annotations

import xarray as xr

from weathermill.datasets.local import LocalDataset, staged
from weathermill.datasets.netcdf import write_netcdf
from weathermill.errors import RegridWeightsError
from weathermill.fields.regridding import RegridWeights


class RegridWeightsDataset(LocalDataset):
    """One NetCDF file of weights.

    With ``load_args: {missing_ok: true}`` a missing or damaged file loads as None, so that weights can be made anew.
    """

    @property
    def has_fingerprint(self) -> bool:
        """Weights that may be missing are only looked at, to be reused."""
        return not self._load_args.get("missing_ok", False)

    def load(self) -> RegridWeights | None:
        """Read the weights."""
        missing_ok = self._load_args.get("missing_ok", False)
        if missing_ok and not self._filepath.exists():
            return None
        path = self._require("regrid")
        try:
            return RegridWeights.from_dataset(xr.load_dataset(path, engine="h5netcdf"))
        except (OSError, ValueError, KeyError, RegridWeightsError) as error:
            if missing_ok:
                return None
            raise RegridWeightsError(f"cannot be read: {error}", where=str(path)) from error

    def save(self, data: RegridWeights) -> None:
        """Write the weights atomically; weights that are there already stay as they are."""
        known = RegridWeightsDataset(filepath=str(self._filepath), load_args={"missing_ok": True}).load()
        if known is not None and known.key == data.key:
            return
        with staged(self._filepath) as partial:
            write_netcdf(data.to_dataset(), partial)

    def _exists(self) -> bool:
        return bool(self._load_args.get("missing_ok", False)) or super()._exists()

    def lineage(self, data: RegridWeights) -> list[dict[str, str]]:
        """Describe the weights to the tracker."""
        return [{"name": "regrid_weights", "source": str(self._filepath), "digest": data.key}]
