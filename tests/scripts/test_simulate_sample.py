from __future__ import annotations

import json

import cds_netcdf
import netCDF4
import numpy as np
import pytest
import simulate_sample
import xarray as xr


@pytest.fixture(scope="module")
def sample():
    from pathlib import Path

    path = Path(__file__).parents[2] / "data" / "01_raw" / "speedy_t21_sample.nc"
    with xr.open_dataset(path) as stored:
        yield path, stored.load()


def test_sample_says_that_it_is_simulated(sample):
    path, stored = sample
    assert path.stat().st_size <= 8_000_000
    assert "SIMULATED" in stored.attrs["title"]
    assert "SIMULATION with jcm" in stored.attrs["source"]
    assert "Apache-2.0" in stored.attrs["license"]
    assert json.loads(stored.attrs["model_configuration"])["grid.spectral_truncation"] == 21


def test_sample_has_the_layout_of_the_climate_data_store(sample):
    path, stored = sample
    with netCDF4.Dataset(path) as dataset:
        assert dataset["valid_time"].dtype == np.int64
        assert dataset["expver"].dtype is str
        assert dataset["number"].shape == ()
    assert set(stored.data_vars) == {"z", "t", "u", "v", "q", "t2m", "u10", "v10", "msl"}
    assert stored["z"].dims == ("valid_time", "pressure_level", "latitude", "longitude")
    assert stored.sizes["valid_time"] >= 300
    assert (stored.sizes["latitude"], stored.sizes["longitude"]) == (32, 64)
    assert np.all(np.diff(stored["valid_time"].values) == np.timedelta64(6, "h"))
    assert np.all(np.diff(stored["latitude"].values) < 0)
    assert np.all(np.diff(stored["pressure_level"].values) < 0)


def test_sample_is_plausible(sample):
    _, stored = sample
    weights = np.cos(np.deg2rad(stored["latitude"]))

    def mean(field):
        return float(field.weighted(weights).mean())

    assert 284 < mean(stored["t2m"]) < 290
    assert 101_000 < mean(stored["msl"]) < 101_700
    assert 93_000 < float(stored["msl"].min()) < 100_000 < 103_000 < float(stored["msl"].max()) < 108_000
    assert 54_000 < mean(stored["z"].sel(pressure_level=500)) < 56_000
    jets = stored["u"].sel(pressure_level=250).mean(["valid_time", "longitude"])
    assert 20 < float(jets.sel(latitude=slice(60, 20)).max()) < 50
    assert 20 < float(jets.sel(latitude=slice(-20, -60)).max()) < 50
    assert float(jets.sel(latitude=slice(10, -10)).mean()) < 5
    assert float(stored["q"].min()) == 0.0
    assert 0.008 < float(stored["q"].max()) < 0.03
    for name in stored.data_vars:
        assert np.isfinite(stored[name].values).all(), name
    # The layer between 850 and 500 hPa obeys the hypsometric equation.
    thickness = stored["z"].sel(pressure_level=500) - stored["z"].sel(pressure_level=850)
    layer = 0.5 * (stored["t"].sel(pressure_level=500) + stored["t"].sel(pressure_level=850))
    ratio = thickness / (287.06 * layer * np.log(850 / 500))
    assert mean(ratio) == pytest.approx(1.0, abs=0.02)


def test_packing_is_small_beside_the_six_hour_change(sample):
    _, stored = sample
    latitude = stored["latitude"].values
    for name in stored.data_vars:
        values, scale = stored[name].values, stored[name].encoding["scale_factor"]
        for level in [values[:, k] for k in range(values.shape[1])] if values.ndim == 4 else [values]:
            occupied = np.unique(np.round(level.astype(np.float64) / scale).astype(int))
            step = np.diff(occupied).min() * scale
            assert step < 0.45 * cds_netcdf.tendency_std(level, latitude), name


def test_model_states_become_a_reanalysis():
    """A resting isothermal atmosphere over flat ground comes out as one, with jcm's output layout."""
    rows = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
    sigma = np.array([0.95, 0.835, 0.685, 0.51, 0.34, 0.2, 0.095, 0.025])
    full = (2, 8, 64, 32)
    dimensions = ("time", "level", "lon", "lat")
    temperature = 260.0
    heights = -287.0597 * temperature * np.log(sigma)
    block = xr.Dataset(
        {
            "u_wind": (dimensions, np.full(full, 3.0)),
            "v_wind": (dimensions, np.zeros(full)),
            "temperature": (dimensions, np.full(full, temperature)),
            "specific_humidity": (dimensions, np.zeros(full)),
            "geopotential": (dimensions, np.broadcast_to(heights[:, None, None], full)),
            "normalized_surface_pressure": (("time", "lon", "lat"), np.full((2, 64, 32), 1.0)),
            "surface_flux.t0": (("time", "lon", "lat"), np.full((2, 64, 32), 261.0)),
            "surface_flux.u0": (("time", "lon", "lat"), np.full((2, 64, 32), 2.85)),
            "surface_flux.v0": (("time", "lon", "lat"), np.zeros((2, 64, 32))),
        },
        coords={
            "lat": rows,
            "hybrid_a_full": ("level", np.zeros(8)),
            "hybrid_b_full": ("level", sigma),
        },
    )
    latitude = 87.1875 - 5.625 * np.arange(32)
    fields = simulate_sample.to_reanalysis(block, np.zeros((32, 64)), [850.0, 500.0, 250.0], latitude)
    assert fields["z"].shape == (2, 3, 32, 64)
    np.testing.assert_allclose(fields["t"], temperature, rtol=1e-5)
    expected = -287.0597 * temperature * np.log([0.85, 0.5, 0.25])
    np.testing.assert_allclose(fields["z"][0, :, 16, 0], expected, rtol=2e-4)
    np.testing.assert_allclose(fields["msl"], 100_000.0, rtol=1e-6)
    np.testing.assert_allclose(fields["u"][:, :, 4:-4], 3.0, rtol=1e-3)
    assert not fields["q"].any()
    block["hybrid_a_full"] = ("level", np.ones(8))
    with pytest.raises(ValueError, match="hybrid"):
        simulate_sample.to_reanalysis(block, np.zeros((32, 64)), [500.0], latitude)
