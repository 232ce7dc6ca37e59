"""The WeatherBench 1 case on short stores of its layouts: the baseline rows come out, by their definitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from weathermill.fields.conventions import canonicalise
from weathermill.verification.times import year_fraction

LATITUDE, LONGITUDE = -87.1875 + 5.625 * np.arange(32), 5.625 * np.arange(64)
SHORT = {
    "ingest": {"start": "2015-01-01", "stop": "2017-03-01"},
    "splits": {
        "train": {"start": "2015-01-01", "stop": "2016-01-01"},
        "validation": {"start": "2016-01-01", "stop": "2017-01-01"},
        "test": {"start": "2017-01-01", "stop": "2017-03-01"},
    },
}


def fields():
    """Daily Z500 and T850 (time, latitude, longitude): an annual cycle that grows polewards and a travelling wave."""
    times = np.arange("2015-01-01", "2017-03-01", dtype="datetime64[D]").astype("datetime64[ns]")
    days = np.arange(len(times))
    wave = np.sin(4 * np.deg2rad(LONGITUDE) - 2 * np.pi * days[:, None] / 9)[:, None, :]
    annual = (np.cos(2 * np.pi * year_fraction(times))[:, None] * np.sin(np.deg2rad(LATITUDE)))[:, :, None]
    z, t = (
        mean + amplitude * wave + seasonal * annual
        for mean, amplitude, seasonal in ((5.4e4, 1200.0, 900.0), (275.0, 5.0, 6.0))
    )
    return times, z.astype(np.float32), t.astype(np.float32)


def weatherbench2_store(path):
    """The layout of WeatherBench 2 at low resolution: (time, level, longitude, latitude), latitudes ascending."""
    times, z, t = fields()
    levels = np.array([500, 850])
    dims = ("time", "level", "longitude", "latitude")
    stacked = {
        "geopotential": np.stack([z, np.full_like(z, 1.4e4)], axis=1),
        "temperature": np.stack([np.full_like(t, 250.0), t], axis=1),
    }
    units = {"geopotential": "m**2 s**-2", "temperature": "K"}
    xr.Dataset(
        {name: (dims, values.swapaxes(2, 3), {"units": units[name]}) for name, values in stacked.items()},
        coords={"time": times, "level": levels, "longitude": LONGITUDE, "latitude": LATITUDE},
        attrs={"title": "<i>simulated</i> waves"},
    ).chunk({"time": 100}).to_zarr(path, zarr_format=2, consolidated=True)


def expected_rows():
    times, z, t = fields()
    weights = np.cos(np.deg2rad(LATITUDE))
    weights = (weights / weights.mean())[:, None]
    first = int(np.searchsorted(times, np.datetime64("2017-01-01")))
    weeks = pd.DatetimeIndex(times).isocalendar().week.to_numpy()

    def rmse(error):
        return float(np.sqrt((error**2 * weights).mean()))

    rows = {}
    for name, values in (("geopotential_500", z.astype(float)), ("temperature_850", t.astype(float))):
        test = values[first:]
        for days in (3, 5):
            rows[("persistence", name, 24.0 * days)] = rmse(test[days:] - test[:-days])
            rows[("climatology", name, 24.0 * days)] = rmse(test - values[:first].mean(0))
            weekly = np.stack([values[:first][weeks[:first] == week].mean(0) for week in weeks[first:]])
            rows[("weekly climatology", name, 24.0 * days)] = rmse(test - weekly)
    return rows


def test_the_case_computes_the_published_rows_on_a_store_of_its_layout(project):
    weatherbench2_store(project.file("01_raw", "weatherbench1.zarr"))
    project.configure()
    project.run("prepare", "weatherbench1", env="weatherbench1", params=SHORT)
    folder = project.file("08_reporting", "weatherbench1")
    table = pd.read_csv(folder / "weatherbench1_baselines.csv")
    rows = table.set_index(["baseline", "channel", "lead_time_h"]).sort_index()
    expected = expected_rows()
    assert set(rows.index) == set(expected)
    for key, value in expected.items():
        assert rows.loc[key, "rmse"] == pytest.approx(value, rel=2e-4), key
    published = rows["published"]
    assert list(published.loc[("persistence", "geopotential_500")]) == [936, 1033]
    assert list(published.loc[("weekly climatology", "temperature_850")]) == [3.5, 3.5]

    page = (folder / "weatherbench1_baselines.html").read_text()
    for words in (
        "1033",
        "816",
        "3.50",
        "NOT THE PUBLISHED DATA",
        "States are 24 h apart",
        "2015-01-01 to 2016-12-31",
    ):
        assert words in page, words
    assert "<i>simulated</i>" not in page and "The grid is" not in page

    store = project.catalog(env="weatherbench1").load("tensors")
    assert store.grid_shape == (32, 64) and list(store.channels.names) == [
        "geopotential_500",
        "temperature_850",
    ]
    assert store.latitude[0] == pytest.approx(87.1875)


def test_the_files_of_weatherbench_1_give_the_same_fields(tmp_path):
    times, z, t = fields()
    sources = []
    for variable, level, values, units in (("z", 500, z, "m**2 s**-2"), ("t", 850, t, "K")):
        dataset = xr.Dataset(
            {variable: (("time", "lat", "lon"), values[:10], {"units": units})},
            coords={"time": times[:10], "lat": LATITUDE, "lon": LONGITUDE, "level": level},
        )
        dataset["level"].attrs["units"] = "millibars"
        sources.append(dataset)
    got = canonicalise(sources, variables=["geopotential_500", "temperature_850"])
    np.testing.assert_allclose(got["geopotential_500"], z[:10, ::-1], rtol=1e-6)
    np.testing.assert_allclose(got["temperature_850"], t[:10, ::-1], rtol=1e-6)
