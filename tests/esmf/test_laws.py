"""What must hold for any pair of grids."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def _edges_to_grid(lat_b, lon_b):
    """A grid from edges; the points are the middles."""
    return xr.Dataset(
        {
            "lat": ("lat", 0.5 * (lat_b[1:] + lat_b[:-1])),
            "lon": ("lon", 0.5 * (lon_b[1:] + lon_b[:-1])),
            "lat_b": ("lat_b", lat_b),
            "lon_b": ("lon_b", lon_b),
        }
    )


@st.composite
def global_grids(draw, max_lat=10, max_lon=14):
    """A grid over the whole sphere with uneven rows and columns, starting at any longitude."""
    n_lat, n_lon = draw(st.integers(3, max_lat)), draw(st.integers(5, max_lon))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lat_b = np.concatenate([[0.0], np.cumsum(rng.uniform(0.4, 1.0, n_lat))])
    lon_b = np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 1.0, n_lon))])
    lat_b = lat_b / lat_b[-1] * 180.0 - 90.0
    lon_b = lon_b / lon_b[-1] * 360.0 + rng.uniform(-200.0, 200.0)
    lat_b[-1] = 90.0
    grid = _edges_to_grid(lat_b, lon_b)
    return grid.isel(lat=slice(None, None, -1), lat_b=slice(None, None, -1)) if draw(st.booleans()) else grid


@st.composite
def regional_grids(draw):
    """A rotated patch of the sphere: curvilinear, and not periodic."""
    n_y, n_x = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x_b, y_b = np.meshgrid(np.linspace(-20, 20, n_x + 1), np.linspace(-15, 15, n_y + 1))
    x, y = (0.25 * (v[1:, 1:] + v[:-1, 1:] + v[1:, :-1] + v[:-1, :-1]) for v in (x_b, y_b))
    tilt, turn = rng.uniform(-80, 80), rng.uniform(0, 360)

    def rotate(lon, lat):
        from weathermill.esmf.sphere import unit_vectors

        p = unit_vectors(lon, lat)
        c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
        p = p @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        lon_out = np.rad2deg(np.arctan2(p[:, 1], p[:, 0])) + turn
        return lon_out.reshape(lon.shape), np.rad2deg(np.arcsin(np.clip(p[:, 2], -1, 1))).reshape(lon.shape)

    (lon, lat), (lon_b, lat_b) = rotate(x, y), rotate(x_b, y_b)
    return xr.Dataset(
        {
            "lon": (("y", "x"), lon),
            "lat": (("y", "x"), lat),
            "lon_b": (("y_b", "x_b"), lon_b),
            "lat_b": (("y_b", "x_b"), lat_b),
        }
    )


def _weights(source, target, method, periodic=True, **keywords):
    """The weights as a dense matrix; rows of unmapped points are zero."""
    import xesmf as xe

    regridder = xe.Regridder(source, target, method, periodic=periodic, **keywords)
    return regridder.weights.data.todense()


def _areas(grid):
    import xesmf as xe

    return xe.util.cell_area(grid.set_coords(list(grid.data_vars))).values.ravel()


def _points(grid):
    from weathermill.esmf.sphere import unit_vectors

    lon, lat = (grid.lon, grid.lat) if grid.lon.ndim == 2 else np.meshgrid(grid.lon, grid.lat)
    return unit_vectors(lon, lat)


@FEW
@given(source=global_grids(), target=st.one_of(global_grids(), regional_grids()))
def test_conservative_conserves_the_integral(source, target):
    field = np.random.default_rng(0).normal(size=source.sizes["lat"] * source.sizes["lon"])
    weights = _weights(source, target, "conservative")
    source_area, target_area = _areas(source), _areas(target)
    # Over the part of the sphere that the target covers: the whole of it, or the sum of its cells.
    overlap = target_area @ weights
    np.testing.assert_allclose(overlap.sum(), target_area.sum(), rtol=1e-12)
    np.testing.assert_allclose(target_area @ (weights @ field), overlap @ field, rtol=1e-12, atol=1e-13)
    if "lat" in target.dims:
        np.testing.assert_allclose(target_area.sum(), 4 * np.pi, rtol=1e-13)
        np.testing.assert_allclose(overlap, source_area, rtol=1e-11)
        scale = source_area @ np.abs(field)
        assert abs(target_area @ (weights @ field) - source_area @ field) <= 1e-12 * scale


@FEW
@given(
    source=st.one_of(global_grids(), regional_grids()),
    target=st.one_of(global_grids(), regional_grids()),
    method=st.sampled_from(["conservative_normed", "bilinear"]),
)
def test_rows_sum_to_one(source, target, method):
    total = _weights(source, target, method, periodic="lat" in source.dims).sum(axis=1)
    mapped = total != 0.0
    if method == "conservative_normed":
        # A sliver of overlap has few digits, and yet must be a mean.
        np.testing.assert_allclose(total[mapped], 1.0, rtol=0.0, atol=1e-12)
    else:
        np.testing.assert_allclose(total[mapped], 1.0, rtol=0.0, atol=1e-13)
    if "lat" in source.dims:
        assert mapped.all()


@FEW
@given(
    source=global_grids(),
    target=st.one_of(global_grids(), regional_grids()),
    method=st.sampled_from(["conservative", "conservative_normed", "bilinear", "patch", "nearest_s2d"]),
)
def test_constants_are_kept(source, target, method):
    weights = _weights(source, target, method)
    np.testing.assert_allclose(weights @ np.full(weights.shape[1], 273.15), 273.15, rtol=1e-11)


@FEW
@given(source=global_grids(max_lat=14, max_lon=20), target=st.one_of(global_grids(), regional_grids()))
def test_bilinear_keeps_linear_functions_to_second_order(source, target):
    points, positions = _points(source), _points(target)
    got = _weights(source, target, "bilinear") @ points
    length = np.linalg.norm(got, axis=1)
    # Beyond the last rows the pole's value is the mean of the row, which no linear function's need be.
    south, north = sorted([source.lat.values[0], source.lat.values[-1]])
    latitude = np.rad2deg(np.arcsin(positions[:, 2]))
    between = (latitude > south) & (latitude < north)
    # The interpolated position lies on the ray through the point, and inside the sphere by the sagitta at most.
    np.testing.assert_allclose((got / length[:, None])[between], positions[between], rtol=0.0, atol=1e-12)
    lon = np.append(source.lon.values, source.lon.values[0] + 360.0)
    step = np.deg2rad(max(np.abs(np.diff(source.lat.values)).max(), np.diff(lon).max()))
    assert (length[between] <= 1.0 + 1e-12).all()
    assert (1.0 - length[between] <= 0.25 * step**2).all()


def test_the_error_of_bilinear_falls_with_the_square_of_the_step():
    target = _edges_to_grid(np.linspace(-80, 80, 18), np.linspace(0, 360, 24))
    truth = _points(target) @ np.array([0.3, -1.0, 0.7])
    errors = []
    for n in (12, 24, 48):
        source = _edges_to_grid(np.linspace(-90, 90, n + 1), np.linspace(0, 360, 2 * n + 1))
        got = _weights(source, target, "bilinear") @ (_points(source) @ np.array([0.3, -1.0, 0.7]))
        errors.append(np.sqrt(np.mean((got - truth) ** 2)))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.25)


METHODS = st.sampled_from(["conservative", "conservative_normed", "bilinear", "patch"])


def _inside_elements(source, target):
    """Targets that lie in one element only: elsewhere patch weights depend on which element is taken."""
    weights = _weights(source, target, "bilinear")
    return (weights > 1e-6).sum(axis=1) == 4


def _compare(before, after, method, source, target):
    rows = _inside_elements(source, target) if method == "patch" else slice(None)
    np.testing.assert_allclose(after[rows], before[rows], rtol=0.0, atol=1e-10)


@FEW
@given(source=global_grids(), target=global_grids(), method=METHODS, turns=st.sampled_from([-1, 1, 2]))
def test_longitude_wrap_does_not_matter(source, target, method, turns):
    moved = target.assign(lon=target.lon + 360.0 * turns, lon_b=target.lon_b + 360.0 * turns)
    before, after = _weights(source, target, method), _weights(source, moved, method)
    _compare(before, after, method, source, target)


@FEW
@given(source=global_grids(), target=global_grids(), method=METHODS)
def test_latitude_order_does_not_matter(source, target, method):
    flipped = source.isel(lat=slice(None, None, -1), lat_b=slice(None, None, -1))
    n_lat, n_lon = source.sizes["lat"], source.sizes["lon"]
    before = _weights(source, target, method)
    after = _weights(flipped, target, method).reshape(-1, n_lat, n_lon)[:, ::-1].reshape(-1, n_lat * n_lon)
    _compare(before, after, method, source, target)


@FEW
@given(
    source=global_grids(),
    target=global_grids(),
    method=st.sampled_from(["conservative", "conservative_normed", "bilinear"]),
    angle=st.floats(-180.0, 180.0),
)
def test_a_rotation_about_the_axis_does_not_matter(source, target, method, angle):
    # Patch weights are left out: the axes of their polynomials are fixed in space, as ESMF's are.
    def rotate(grid):
        return grid.assign(lon=grid.lon + angle, lon_b=grid.lon_b + angle)

    before = _weights(source, target, method)
    after = _weights(rotate(source), rotate(target), method)
    np.testing.assert_allclose(after, before, rtol=0.0, atol=1e-10)


@FEW
@given(source=global_grids(), target=global_grids(), seed=st.integers(0, 2**32 - 1))
def test_masked_sources_give_nothing(source, target, seed):
    mask = np.random.default_rng(seed).uniform(size=(source.sizes["lat"], source.sizes["lon"])) > 0.4
    masked = source.assign(mask=(("lat", "lon"), mask.astype(int)))
    for method in ("conservative_normed", "bilinear", "nearest_s2d"):
        weights = _weights(masked, target, method)
        assert (weights[:, ~mask.ravel()] == 0.0).all()
        total = weights.sum(axis=1)
        np.testing.assert_allclose(total[total != 0.0], 1.0, atol=1e-12)
