"""Forecasts from many initial times as a catalog entry: one Zarr store, written while they are made."""

from __future__ import annotations

import xarray as xr

from weathermill.datasets.local import LocalDataset, staged
from weathermill.errors import StoreError
from weathermill.forecasting.batches import ForecastStream


class ForecastsDataset(LocalDataset):
    """A Zarr v3 store (init_time, lead_time, ...); it bears its name only once it is whole.

    Example
    -------
    .. code-block:: yaml

        forecasts:
          type: weathermill.datasets.ForecastsDataset
          filepath: data/07_model_output/forecasts.zarr
    """

    def load(self) -> xr.Dataset:
        """Open the store lazily."""
        path = self._require(self._load_args.get("made_by", "forecast_batch"))
        try:
            return xr.open_zarr(path, consolidated=False, decode_timedelta=False)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"cannot be opened as a Zarr store: {error}",
                where=str(path),
                remedy="Delete it and run again.",
            ) from error

    def save(self, data: ForecastStream) -> None:
        """Make the forecasts and write each piece as it comes."""
        with staged(self._filepath) as partial:
            data.to_zarr(partial)
