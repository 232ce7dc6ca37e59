from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.coordinates import find_horizontal, standardise
from weathermill.fields.survey import Source


def nominal(shift: float = 10.0) -> xr.Dataset:
    """MOM6's layout: nominal axes yh and xh, and maps geolat and geolon that differ by ``shift`` degrees."""
    y, x = np.arange(-60.0, 61.0, 10.0), np.arange(0.0, 360.0, 30.0)
    wide_y, wide_x = np.meshgrid(y, x, indexing="ij")
    return xr.Dataset(
        {"tos": (("time", "yh", "xh"), np.zeros((1, y.size, x.size), np.float32), {"units": "degC"})},
        coords={
            "time": [np.datetime64("2020-01-01", "ns")],
            "yh": ("yh", y, {"units": "degrees_north", "long_name": "h point nominal latitude"}),
            "xh": ("xh", x, {"units": "degrees_east", "long_name": "h point nominal longitude"}),
            "geolat": (("yh", "xh"), wide_y + shift, {"standard_name": "latitude"}),
            "geolon": (("yh", "xh"), wide_x + shift, {"standard_name": "longitude"}),
        },
    )


def test_true_maps_go_before_nominal_axes():
    fields = canonicalise([nominal()], surface_variables=["sea_surface_temperature"])
    assert fields.latitude.dims == ("y", "x")
    assert (float(fields.latitude.min()), float(fields.latitude.max())) == (-50.0, 70.0)


def test_axes_stay_where_maps_say_the_same():
    assert find_horizontal(nominal(0.0)) == ("yh", "xh")
    turned = nominal(0.0)
    turned["geolon"] = turned["geolon"] - 360.0
    assert find_horizontal(turned) == ("yh", "xh")


def test_nominal_axes_alone_are_refused_unless_they_are_named():
    source = nominal().drop_vars(["geolat", "geolon"])
    with pytest.raises(CoordinateError, match=r"nominal(.|\n)*{yh: latitude, xh: longitude}"):
        canonicalise([source], surface_variables=["sea_surface_temperature"])
    names = {"yh": "latitude", "xh": "longitude"}
    fields = canonicalise([source], surface_variables=["sea_surface_temperature"], names=names)
    assert fields.latitude.values.tolist() == source.yh.values[::-1].tolist()


@pytest.mark.parametrize("units", ["radian", "radians", "rad"])
def test_radians_become_degrees(make_source, units):
    source = make_source(levels=None, names=("t2m",))
    expected = canonicalise([source], surface_variables=["2m_temperature"])
    for dtype in (np.float64, np.float32):
        turned = source.assign_coords(
            {
                axis: (axis, np.radians(source[axis].values).astype(dtype), {"units": units})
                for axis in ("latitude", "longitude")
            }
        )
        fields = canonicalise([turned], surface_variables=["2m_temperature"])
        for axis in ("latitude", "longitude"):
            np.testing.assert_allclose(fields[axis].values, expected[axis].values, rtol=0, atol=1e-9)
        assert np.array_equal(fields["2m_temperature"].values, expected["2m_temperature"].values)


@pytest.mark.parametrize(
    ("units", "scale"), [(None, 180.0 / np.pi), ("radian", 180.0 / np.pi), ("degrees", 1.0)]
)
def test_radians_of_maps_and_of_their_vertices_become_degrees(units, scale):
    source = nominal()
    vertices = np.stack([source.geolat.values] * 4, axis=-1) + np.array([-1.0, -1.0, 1.0, 1.0])
    source["lat_vertices"] = (("yh", "xh", "nv"), vertices / scale, {"units": units} if units else {})
    for name in ("geolat", "geolon"):
        attrs = {**source[name].attrs, "units": "radian"}
        source[name] = (("yh", "xh"), np.radians(source[name].values), attrs)
    source["geolat"].attrs["bounds"] = "lat_vertices"
    raw = Source(source, "x", 0).raw
    np.testing.assert_allclose(raw["lat_vertices"].values, vertices, atol=1e-9)
    assert (float(raw.geolat.min()), float(raw.geolat.max())) == (-50.0, 70.0)


def test_radians_that_say_nothing_are_refused_and_can_be_said(make_source):
    source = make_source(levels=None, names=("t2m",))
    for axis in ("latitude", "longitude"):
        source = source.assign_coords({axis: (axis, np.radians(source[axis].values))})
    with pytest.raises(CoordinateError, match="as radians do"):
        canonicalise([source], surface_variables=["2m_temperature"])
    said = {"latitude": "radian", "longitude": "radian"}
    fields = canonicalise([source], surface_variables=["2m_temperature"], units=said)
    assert fields.latitude.values[0] == pytest.approx(90.0, abs=1e-9)


@pytest.mark.parametrize(
    ("latitude", "longitude", "words"),
    [
        (np.arange(40), np.arange(80), "as indices do"),
        (np.linspace(0, 1, 40), np.linspace(0, 1, 80), "as shares of an extent do"),
        (np.linspace(-90, 90, 40), np.linspace(0.0, 720.0, 80), "more than once round"),
        (np.linspace(-90, 90, 40), np.linspace(0.0, 2.0e6, 80), "more than once round"),
    ],
)
def test_what_can_be_no_degrees_is_refused(latitude, longitude, words):
    coords = {"lat": latitude.astype(float), "lon": longitude.astype(float)}
    source = xr.Dataset({"t": (("lat", "lon"), np.zeros((40, 80)))}, coords=coords)
    with pytest.raises(CoordinateError, match=words):
        standardise(source, "x")


def test_a_small_region_is_a_region():
    source = xr.Dataset(
        {"t": (("lat", "lon"), np.zeros((13, 25)))},
        coords={
            "lat": ("lat", 47.0 + 0.25 * np.arange(13), {"units": "degrees_north"}),
            "lon": ("lon", 6.0 + 0.25 * np.arange(25), {"units": "degrees_east"}),
        },
    )
    assert standardise(source, "x").latitude.values[0] == 47.0


def test_metres_and_rotated_coordinates_are_no_latitudes():
    metres = {"units": "m"}
    coords = {"lat": ("lat", [0.0, 2e3, 4e3], metres), "lon": ("lon", [0.0, 2e3, 4e3], metres)}
    with pytest.raises(CoordinateError, match="is in 'm', which is no angle"):
        standardise(xr.Dataset({"t": (("lat", "lon"), np.zeros((3, 3)))}, coords=coords), "x")
    for units in ("degrees", "degrees_north"):
        attrs = {"standard_name": "grid_latitude", "units": units}
        for name in ("rlat", "lat"):
            coords = {name: (name, [0.0, 1.0], attrs), "lon": [0.0, 1.0]}
            with pytest.raises(CoordinateError, match="no latitude is found"):
                standardise(xr.Dataset({"t": ((name, "lon"), np.zeros((2, 2)))}, coords=coords), "x")


@pytest.mark.parametrize(
    ("north", "east"),
    [
        ("degree_north", "degree_east"),
        ("degrees_N", "degrees_E"),
        ("degreeN", "degreeE"),
        ("degrees north", "degrees east"),
        ("degN", "degE"),
        ("deg_n", "deg_e"),
        ("°N", "°E"),
    ],
)
def test_units_of_latitude_and_longitude_in_the_wild(north, east):
    source = xr.Dataset(
        {"t": (("a", "b"), np.zeros((3, 4)))},
        coords={
            "a": ("a", [1.0, 0.0, -1.0], {"units": north}),
            "b": ("b", [0.0, 1.0, 2.0, 3.0], {"units": east}),
        },
    )
    assert standardise(source, "x")["t"].dims == ("latitude", "longitude")


def test_fill_values_in_maps_of_longitude_are_refused():
    source = nominal()
    source["geolon"].values[0, 0] = 1e20
    with pytest.raises(CoordinateError, match="longitudes run from 10 to 1e"):
        standardise(source, "x")


@pytest.mark.parametrize(
    ("north", "east"),
    [("degrees_south", "degrees_east"), ("degrees_north", "degrees west"), ("degN", "degW")],
)
def test_degrees_to_the_south_and_west_are_refused(make_source, north, east):
    source = make_source()
    source.latitude.attrs["units"], source.longitude.attrs["units"] = north, east
    with pytest.raises(CoordinateError, match="to the west or south is not certain"):
        canonicalise([source], variables=["temperature"])
    said = {"latitude": "degrees_north", "longitude": "degrees_east"}
    fields = canonicalise([source], variables=["temperature"], units=said)
    assert fields.longitude.values[0] == 0.0
