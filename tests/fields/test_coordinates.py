from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, UnitsError
from weathermill.fields.coordinates import find_coordinate, standardise
from weathermill.fields.horizontal import clean_angles
from weathermill.fields.vertical import levels_in_hectopascals


def test_new_cds_layout(layouts):
    with xr.open_dataset(layouts / "cds_new_pl_realERA5.nc") as raw:
        clean = standardise(raw, "new")
        assert clean["t"].dims == ("time", "level", "latitude", "longitude")
        assert clean["level"].values.tolist() == [850.0, 500.0]
        assert set(map(str, clean.coords)) == {"time", "level", "latitude", "longitude"}


def test_valid_time_wins_over_time_and_reference_time():
    times = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    ds = xr.Dataset(
        coords={
            "valid_time": ("valid_time", times),
            "time": ((), times[0], {"standard_name": "forecast_reference_time"}),
            "latitude": [1.0, 0.0],
            "longitude": [0.0, 1.0],
        }
    )
    assert find_coordinate(ds, "time") == "valid_time"


@pytest.mark.parametrize(
    ("lat", "lon", "attrs"),
    [
        ("lat", "lon", {}),
        ("nav_lat", "nav_lon", {}),
        ("a", "b", {"standard_name": None}),
        ("y", "x", {"units": None}),
    ],
)
def test_horizontal_coordinates_are_found_by_name_standard_name_or_units(lat, lon, attrs):
    values = {"standard_name": ("latitude", "longitude"), "units": ("degrees_north", "degrees_east")}
    pair = [{key: values[key][i] for key in attrs} for i in range(2)]
    ds = xr.Dataset(
        {"t": ((lat, lon), np.zeros((3, 4)))},
        coords={lat: (lat, [1.0, 0.0, -1.0], pair[0]), lon: (lon, [0.0, 1.0, 2.0, 3.0], pair[1])},
    )
    assert standardise(ds, "x")["t"].dims == ("latitude", "longitude")


def test_projection_coordinates_are_no_latitudes():
    ds = xr.Dataset(
        {"t": (("y", "x"), np.zeros((3, 4)))},
        coords={
            "y": ("y", [0.0, 1e3, 2e3], {"units": "m"}),
            "x": ("x", [0.0, 1e3, 2e3, 3e3], {"units": "m"}),
        },
    )
    with pytest.raises(CoordinateError, match="no latitude is found; the coordinates are x, y"):
        standardise(ds, "model.nc")


def test_single_points_are_no_map():
    ds = xr.Dataset(
        {"t": ("cell", np.zeros(5))},
        coords={"lat": ("cell", np.arange(5.0)), "lon": ("cell", np.arange(5.0))},
    )
    with pytest.raises(CoordinateError, match="single points or a reduced grid"):
        standardise(ds, "icon.nc")
    ds = xr.Dataset(coords={"lat": (("j", "i"), np.zeros((3, 4))), "lon": (("i", "k"), np.zeros((4, 3)))})
    with pytest.raises(CoordinateError, match="longitude \\('i', 'k'\\)"):
        standardise(ds, "odd.nc")


def test_latitudes_beyond_the_pole_are_refused():
    ds = xr.Dataset(coords={"lat": [0.0, 95.0], "lon": [0.0, 1.0]})
    with pytest.raises(CoordinateError, match="beyond the poles"):
        standardise(ds, "x")


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([100000.0, 85000.0], "Pa", [1000.0, 850.0]),
        ([1000, 850], "millibars", [1000.0, 850.0]),
        ([1000, 850], None, [1000.0, 850.0]),
        ([100000.0, 85000.0], None, [1000.0, 850.0]),
        ([0.5, 0.1], "bar", [500.0, 100.0]),
    ],
)
def test_levels_become_hectopascals(values, units, expected):
    attrs = {} if units is None else {"units": units}
    levels = levels_in_hectopascals(xr.Variable("level", values, attrs), "x")
    assert levels.tolist() == pytest.approx(expected)


def test_levels_of_another_kind_are_no_pressure():
    with pytest.raises(UnitsError):
        levels_in_hectopascals(xr.Variable("level", [1.0, 2.0], {"units": "K"}), "x")
    ds = xr.Dataset(
        coords={
            "lev": ("lev", [0.9, 0.5], {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}),
            "lat": [1.0, 0.0],
            "lon": [0.0, 1.0],
        }
    )
    assert find_coordinate(ds, "level") is None


def test_bounds_are_no_fields(make_source):
    ds = make_source()
    ds["latitude"].attrs["bounds"] = "edges"
    ds["edges"] = (("latitude", "two"), np.zeros((9, 2)))
    ds["lon_bnds"] = (("longitude", "two"), np.zeros((16, 2)))
    assert set(map(str, standardise(ds, "x").data_vars)) == {"t"}


def test_float32_coordinates_become_exact():
    latitude = clean_angles(np.linspace(90, -90, 721, dtype=np.float32), full_turn=False)
    longitude = clean_angles((np.arange(1080) / 3.0).astype(np.float32), full_turn=True)
    assert np.array_equal(latitude, 90.0 - 0.25 * np.arange(721))
    assert np.allclose(longitude, np.arange(1080) * (360.0 / 1080), rtol=0, atol=1e-12)


def test_float64_coordinates_stay_to_the_last_digit():
    values = np.degrees(np.arcsin(np.linspace(-0.99, 0.99, 7)))
    assert np.array_equal(clean_angles(values, full_turn=False), values)
