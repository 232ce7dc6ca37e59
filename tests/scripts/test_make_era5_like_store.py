from __future__ import annotations

import subprocess
import sys

import make_era5_like_store
import numpy as np
import pytest
import synthetic_weather
import xarray as xr


@pytest.fixture
def make(tmp_path, capsys):
    def run(name="store.zarr", *options):
        path = tmp_path / name
        try:
            status = make_era5_like_store.main([str(path), *options])
        except SystemExit as stop:
            status = stop.code
        return path, status, capsys.readouterr().err

    return run


def test_runs_as_a_script(project_root, tmp_path):
    script = project_root / "scripts" / "make_era5_like_store.py"
    command = [sys.executable, str(script), str(tmp_path / "store.zarr"), "--grid", "9x12", "--steps", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC" in result.stdout
    assert (tmp_path / "store.zarr" / ".zmetadata").exists()


def test_layout_of_the_real_store(make):
    path, status, errors = make(
        "store.zarr", "--grid", "19x36", "--steps", "3", "--start", "2019-12-31T18:00"
    )
    assert status == 0, errors
    assert (path / ".zmetadata").exists()
    with xr.open_zarr(path, consolidated=True) as store:
        assert "SYNTHETIC" in store.attrs["title"]
        assert store["geopotential"].dims == ("time", "level", "latitude", "longitude")
        assert store["geopotential"].encoding["chunks"] == (1, 13, 19, 36)
        assert store["2m_temperature"].encoding["chunks"] == (1, 19, 36)
        assert store["latitude"].values[[0, -1]].tolist() == [90.0, -90.0]
        assert store["longitude"].values[[0, -1]].tolist() == [0.0, 350.0]
        assert store["level"].values.tolist() == [
            50,
            100,
            150,
            200,
            250,
            300,
            400,
            500,
            600,
            700,
            850,
            925,
            1000,
        ]
        assert store["time"].values[1] == np.datetime64("2020-01-01T00")
        assert all(store[name].dtype == np.float32 for name in store.data_vars)
        names = {name for name in store.data_vars if "time" in store[name].dims}
        assert len(names) == 5 + 9
        for name in names - {"sea_surface_temperature"}:
            assert np.isfinite(store[name].values).all(), name
        land = store["land_sea_mask"].values > 0.5
        assert np.isnan(store["sea_surface_temperature"].values[:, land]).all()
        assert 0.05 < land.mean() < 0.95


def test_fields_are_plausible_and_in_balance(make):
    path, _, _ = make("store.zarr", "--grid", "37x72", "--steps", "5", "--seed", "3")
    with xr.open_zarr(path) as store:
        store = store.load()
    weights = np.cos(np.deg2rad(store["latitude"]))

    def mean(field):
        return float(field.weighted(weights).mean())

    assert 280 < mean(store["2m_temperature"]) < 296
    assert 100_000 < mean(store["mean_sea_level_pressure"]) < 102_500
    assert 52_000 < mean(store["geopotential"].sel(level=500)) < 56_500
    assert 8 < mean(store["u_component_of_wind"].sel(level=200)) < 30
    assert float(store["specific_humidity"].min()) > 0
    assert 10 < mean(store["total_column_water_vapour"]) < 40
    # Hypsometric equation between 500 and 600 hPa.
    thickness = store["geopotential"].sel(level=500) - store["geopotential"].sel(level=600)
    layer = 0.5 * (store["temperature"].sel(level=500) + store["temperature"].sel(level=600))
    assert mean(thickness / (287.06 * layer * np.log(6 / 5))) == pytest.approx(1, abs=0.05)
    # Geostrophic wind at 45 degrees, from the zonal derivative of the geopotential.
    row = store["geopotential"].sel(level=300, latitude=45)
    slope = (row.roll(longitude=-1) - row.roll(longitude=1)) / (
        2 * np.deg2rad(5) * 6.371e6 * np.cos(np.pi / 4)
    )
    geostrophic = slope / (2 * 7.292e-5 * np.sin(np.pi / 4))
    wind = store["v_component_of_wind"].sel(level=300, latitude=45)
    assert np.corrcoef(geostrophic.values.ravel(), wind.values.ravel())[0, 1] > 0.95
    # It evolves: neither frozen nor white in time.
    change = store["geopotential"].sel(level=500).diff("time").std()
    assert 0.02 < float(change / store["geopotential"].sel(level=500).std("longitude").mean()) < 1.0


def test_low_resolution_layout_is_transposed_and_ascending(make):
    high, _, _ = make("high.zarr", "--grid", "16x32", "--steps", "2")
    low, status, errors = make(
        "low.zarr", "--grid", "16x32", "--steps", "2", "--layout", "lowres", "--zarr-format", "3"
    )
    assert status == 0, errors
    with xr.open_zarr(high) as first, xr.open_zarr(low) as second:
        assert second["temperature"].dims == ("time", "level", "longitude", "latitude")
        assert second["latitude"].values[0] == -84.375
        xr.testing.assert_allclose(
            first["temperature"],
            second["temperature"].sortby("latitude", ascending=False).transpose(*first["temperature"].dims),
        )


def test_unwritten_steps_at_both_ends(make):
    path, status, errors = make(
        "arco.zarr", "--grid", "9x12", "--steps", "4", "--unwritten", "40", "--levels", "500", "850"
    )
    assert status == 0, errors
    with xr.open_zarr(path) as store:
        assert store.sizes["time"] == 84
        assert store.attrs["valid_time_start"] == "2020-01-01"
        written = np.isfinite(store["temperature"].isel(level=0, latitude=0, longitude=0).values)
        assert written.tolist() == [False] * 40 + [True] * 4 + [False] * 40
    assert len([p for p in (path / "temperature").iterdir() if not p.name.startswith(".")]) == 4


def test_same_seed_same_store_and_other_seed_another(make):
    fields = []
    for name, seed in (("a.zarr", "1"), ("b.zarr", "1"), ("c.zarr", "2")):
        path, _, _ = make(name, "--grid", "9x12", "--steps", "2", "--seed", seed)
        with xr.open_zarr(path) as store:
            fields.append(store["u_component_of_wind"].values)
    np.testing.assert_array_equal(fields[0], fields[1])
    assert np.abs(fields[0] - fields[2]).max() > 1


def test_refuses_what_exists_and_bad_grids(make, tmp_path):
    (tmp_path / "store.zarr").mkdir()
    _, status, errors = make("store.zarr", "--grid", "9x12", "--steps", "1")
    assert status == 1
    assert "exists" in errors
    _, status, errors = make("other.zarr", "--grid", "nine")
    assert status == 2
    assert "181x360" in errors
    _, status, errors = make("other.zarr", "--grid", "1x2", "--steps", "1")
    assert status == 1
    _, status, errors = make("other.zarr", "--grid", "9x12", "--steps", "3", "--unwritten", "4")
    assert status == 1
    assert "whole days" in errors
    assert not (tmp_path / "other.zarr").exists()


def test_legendre_functions_are_orthonormal():
    nodes, gauss = np.polynomial.legendre.leggauss(40)
    table = synthetic_weather.legendre(np.rad2deg(np.arcsin(nodes)), 20)
    for order in (0, 1, 7, 20):
        gram = np.einsum("lj,kj,j->lk", table[order], table[order], gauss) / 2
        np.testing.assert_allclose(gram[order:, order:], np.eye(21 - order), atol=1e-12)


def test_noise_has_unit_variance_on_the_sphere():
    latitude, longitude = synthetic_weather.grid(32, 64)
    noise = synthetic_weather.SphericalNoise(latitude, longitude)
    generator = np.random.default_rng(0)
    weights = np.cos(np.deg2rad(latitude))[:, None]
    variances = [
        (noise.field(noise.coefficients(generator)) ** 2 * weights).mean() / weights.mean() for _ in range(60)
    ]
    assert np.mean(variances) == pytest.approx(1, abs=0.1)
