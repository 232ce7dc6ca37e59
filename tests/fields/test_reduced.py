"""Reduced Gaussian grids as sources: refused by name, or expanded row by row."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, ParameterError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.geometry import gaussian_latitudes, octahedral_points, octahedral_rows
from weathermill.fields.looking import look_at
from weathermill.fields.opening import open_sources
from weathermill.fields.reduced import settle_reduced_grids
from weathermill.fields.rows import RowExpansion, rows_of
from weathermill.parameters import validate_parameters

N = 8
COUNTS = tuple(int(n) for n in octahedral_rows(N))


def wave(latitude, longitude, k: int = 3):
    """A zonal wave and a term that knows its row."""
    lam, phi = np.radians(longitude), np.radians(latitude)
    return 250.0 + 20.0 * np.cos(k * lam) * np.cos(phi) ** 2 + 5.0 * np.sin(phi)


def source(steps: int = 3) -> xr.Dataset:
    latitude, longitude = octahedral_points(N)
    times = np.datetime64("2020-01-01", "ns") + np.arange(steps) * np.timedelta64(6, "h")
    field = wave(latitude, longitude)
    values = field + np.arange(steps)[:, None, None] + np.array([0.0, 10.0])[:, None]
    return xr.Dataset(
        {"t": (("time", "level", "values"), values.astype(np.float32), {"units": "K"})},
        coords={
            "time": times,
            "level": ("level", [500.0, 850.0], {"units": "hPa"}),
            "latitude": ("values", latitude, {"units": "degrees_north"}),
            "longitude": ("values", longitude, {"units": "degrees_east"}),
        },
    )


def test_rows_are_recognised_by_their_points():
    rows, expansion = rows_of(*octahedral_points(N))
    np.testing.assert_allclose(rows, gaussian_latitudes(2 * N)[0])
    assert (expansion.counts, expansion.name, expansion.columns) == (COUNTS, "O8", 32)
    latitude, longitude = octahedral_points(N)
    # A station list, a full grid, and rows that do not begin at Greenwich are none.
    assert rows_of(latitude[:50], longitude[:50]) is None
    assert rows_of(np.repeat(latitude[::20][:8], 4), np.tile([0.0, 90.0, 180.0, 270.0], 8)) is None
    assert rows_of(latitude, longitude + 1.0) is None


def test_rows_are_interpolated_linearly_and_around_the_globe():
    _, longitude = octahedral_points(N)
    expansion = RowExpansion(COUNTS)
    values = np.random.default_rng(0).normal(size=(2, expansion.points))
    expanded = expansion(values)
    full = np.arange(32) * 360.0 / 32
    start = 0
    for row, count in enumerate(COUNTS):
        part = values[:, start : start + count]
        for field, got in zip(part, expanded[:, row], strict=True):
            expected = np.interp(full, longitude[start : start + count], field, period=360.0)
            np.testing.assert_allclose(got, expected, rtol=1e-12)
        start += count
    np.testing.assert_array_equal(expansion(np.full(expansion.points, 7.0)), 7.0)
    same = RowExpansion((32,) * 16)
    maps = values[:, :512]
    np.testing.assert_array_equal(same(maps), maps.reshape(2, 16, 32))


def test_the_error_of_a_smooth_wave_falls_with_the_square_of_the_spacing():
    errors = []
    for n in (32, 64):
        latitude, longitude = octahedral_points(n)
        expanded = RowExpansion(tuple(int(c) for c in octahedral_rows(n)))(wave(latitude, longitude))
        truth = wave(gaussian_latitudes(2 * n)[0][:, None], np.arange(4 * n)[None] * 90.0 / n)
        # The rows nearest to the poles have some twenty points on any octahedral grid.
        errors.append(np.abs(expanded - truth)[n // 2 : -n // 2].max())
    assert errors[1] < errors[0] / 3.0


def test_missing_points_stay_missing_and_spread_to_those_made_of_them():
    values = np.ones(RowExpansion(COUNTS).points)
    values[1] = np.nan
    row = RowExpansion(COUNTS)(values)[0]
    between = (np.arange(32) * 20 / 32 > 0) & (np.arange(32) * 20 / 32 < 2)
    np.testing.assert_array_equal(np.isnan(row), between)


def test_netcdf_of_points(tmp_path):
    source().to_netcdf(tmp_path / "o8.nc")
    opened = open_sources(tmp_path / "o8.nc")
    with pytest.raises(CoordinateError, match="reduced Gaussian grid O8") as caught:
        settle_reduced_grids(opened, "refuse")
    assert "ingest.reduced_grids" in caught.value.remedy and "F8" in caught.value.remedy
    with pytest.raises(CoordinateError) as caught:
        canonicalise(opened.datasets, variables=["temperature"])
    assert "ingest.reduced_grids" in caught.value.remedy
    findings = []
    settled = settle_reduced_grids(opened, "expand", findings)
    assert [f.severity for f in findings] == ["warning"] and "32 longitudes" in findings[0].message
    fields = canonicalise(settled.datasets, variables=["temperature"], levels=[850])
    assert fields["temperature"].shape == (3, 1, 16, 32)
    expected = RowExpansion(COUNTS)(source()["t"].values)
    np.testing.assert_array_equal(fields["temperature"][:, 0], expected[:, 1])
    part = settled.datasets[0]["t"][1:, 0].isel(longitude=slice(3, 20, 4), latitude=[2, 5])
    np.testing.assert_array_equal(part, expected[1:, 0][:, [2, 5], 3:20:4])
    np.testing.assert_array_equal(settled.datasets[0]["t"][2, 1, 4, 7], expected[2, 1, 4, 7])


def test_inspect_tells_the_parameter(tmp_path):
    source().to_netcdf(tmp_path / "o8.nc")
    look = look_at(tmp_path / "o8.nc")
    assert not look.errors and look.report is not None
    assert 'reduced_grids: "expand"' in look.to_text() and "O8" in look.to_text()


def test_the_parameter_is_checked():
    with pytest.raises(ParameterError, match=r"ingest\.reduced_grids"):
        validate_parameters({"ingest": {"variables": ["temperature"], "reduced_grids": "yes"}})


@pytest.mark.skipif(importlib.util.find_spec("eccodes") is None, reason="ecCodes is not installed")
def test_grib_messages(tmp_path):
    import eccodes

    path = tmp_path / "n32.grib"
    with path.open("wb") as file:
        for level in (500, 850):
            handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
            counts = tuple(int(n) for n in eccodes.codes_get_array(handle, "pl"))
            latitude = np.repeat(gaussian_latitudes(64)[0], counts)
            longitude = np.concatenate([np.arange(n) * 360.0 / n for n in counts])
            values = wave(latitude, longitude) + level / 100
            for key, value in {"shortName": "t", "level": level, "dataDate": 20200101}.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set(handle, "bitsPerValue", 24)
            eccodes.codes_set_values(handle, values)
            file.write(eccodes.codes_get_message(handle))
            eccodes.codes_release(handle)
    opened = open_sources(path)
    with pytest.raises(CoordinateError, match="reduced Gaussian grid N32") as caught:
        canonicalise(opened.datasets, variables=["temperature"], source_names=opened.names)
    assert "setgridtype,regular" in caught.value.remedy and "n32.grib" in caught.value.where
    settled = settle_reduced_grids(opened, "expand")
    fields = canonicalise(settled.datasets, variables=["temperature"], source_names=settled.names)
    assert fields["temperature"].shape == (1, 2, 64, 128)
    np.testing.assert_allclose(fields.latitude, gaussian_latitudes(64)[0], atol=1e-6)
    expected = RowExpansion(counts)(wave(latitude, longitude)) + 8.5
    np.testing.assert_allclose(fields["temperature"].sel(level=850)[0], expected, atol=1e-3)
