from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

# For `grib_writing`.
sys.path.insert(0, str(Path(__file__).parent))

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def layouts() -> Path:
    return DATA / "layouts"


@pytest.fixture
def ecmwf_path() -> Path:
    return DATA / "ecmwf_sample" / "real_ecmwf_pl_6h_10deg.nc"


@pytest.fixture
def make_source():
    """A maker of plain CF sources: `make_source(n_time=…, names=…)`, each value a known function of its place."""

    def make(
        *,
        n_time: int = 6,
        start: str = "2020-01-01",
        step_hours: int = 6,
        levels: tuple[float, ...] | None = (500.0, 850.0),
        n_lat: int = 9,
        n_lon: int = 16,
        names: tuple[str, ...] = ("t",),
        units: str | None = "K",
        base: float = 250.0,
    ) -> xr.Dataset:
        times = np.datetime64(start, "ns") + np.arange(n_time) * np.timedelta64(step_hours, "h")
        latitude = np.linspace(90.0, -90.0, n_lat)
        longitude = np.arange(n_lon) * 360.0 / n_lon
        hours = (times - np.datetime64("2020-01-01", "ns")) / np.timedelta64(1, "h")
        shape = (n_time, len(levels or (1,)), n_lat, n_lon)
        value = (
            base
            + hours[:, None, None, None] / 10.0
            + np.asarray(levels or (0.0,))[None, :, None, None] / 100.0
            + latitude[None, None, :, None] / 10.0
            + longitude[None, None, None, :] / 1000.0
        )
        value = np.broadcast_to(value, shape).astype(np.float32)
        dims = ("time", "level", "latitude", "longitude")
        if levels is None:
            value, dims = value[:, 0], ("time", "latitude", "longitude")
        attrs = {} if units is None else {"units": units}
        coords = {
            "time": times,
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        }
        if levels is not None:
            coords["level"] = ("level", np.asarray(levels, dtype=np.float64), {"units": "hPa"})
        return xr.Dataset({name: (dims, value.copy(), attrs) for name in names}, coords=coords)

    return make


@pytest.fixture
def smooth_field():
    """A maker of a smooth scalar on a grid: a linear function of x, y and z plus a constant."""

    def make(grid: xr.Dataset, coefficients=(1.0, -2.0, 3.0), constant: float = 10.0) -> np.ndarray:
        latitude, longitude = grid.latitude.values, grid.longitude.values
        if latitude.ndim == 1:
            latitude, longitude = np.meshgrid(latitude, longitude, indexing="ij")
        phi, lam = np.radians(latitude), np.radians(longitude)
        x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
        return constant + coefficients[0] * x + coefficients[1] * y + coefficients[2] * z

    return make
