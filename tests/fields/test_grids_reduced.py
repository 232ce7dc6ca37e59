"""Octahedral reduced Gaussian grids: lists of points to interpolate to, and to take nearest points from."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from weathermill.datasets.regrid_weights import RegridWeightsDataset
from weathermill.errors import GridError, ParameterError
from weathermill.fields.geometry import gaussian_latitudes, octahedral_areas, octahedral_number
from weathermill.fields.grids import (
    describe_grid,
    grid_corners,
    grid_hash,
    grid_of,
    is_point_list,
    named_grid,
    point_list,
)
from weathermill.fields.regrid_page import render_regrid_report
from weathermill.fields.regridding import apply_weights, make_weights, regrid_report
from weathermill.fields.weights import RegridWeights, grid_areas
from weathermill.parameters import RegridParameters, validate_parameters
from weathermill.pipelines.regrid.nodes import choose_target_grid


def linear(grid: xr.Dataset) -> np.ndarray:
    latitude, longitude = np.radians(grid.latitude), np.radians(grid.longitude)
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    return (2.0 * x - y + 3.0 * np.sin(latitude) + 0.0 * longitude).values


@pytest.fixture(scope="module")
def source():
    return named_grid("64x32")


@pytest.fixture(scope="module")
def target():
    return named_grid("O16")


@pytest.fixture(scope="module")
def bilinear(source, target):
    return make_weights(source, target, "bilinear")


@pytest.mark.parametrize(("n", "count"), [(32, 5_248), (96, 40_320), (320, 421_120), (640, 1_661_440)])
def test_points_and_areas(n, count):
    grid = named_grid(f"O{n}")
    assert is_point_list(grid) and grid.sizes == {"points": count}
    assert grid.latitude.dtype == grid.longitude.dtype == np.float64 and grid.attrs["grid"] == f"O{n}"
    areas = grid_areas(grid)
    assert areas.shape == (count,) and areas.min() > 0
    assert areas.sum() == pytest.approx(4 * np.pi, rel=1e-12)
    assert octahedral_number(grid.latitude.values, grid.longitude.values) == n


def test_rows_are_gaussian_and_begin_at_greenwich(target):
    latitude, weights = gaussian_latitudes(32)
    rows, counts = np.unique(target.latitude, return_counts=True)
    assert np.array_equal(rows[::-1], latitude)
    assert counts[:3].tolist() == counts[:-4:-1].tolist() == [20, 24, 28] and counts.max() == 4 * 16 + 16
    assert np.count_nonzero(target.longitude == 0.0) == 32 and float(target.longitude.max()) < 360.0
    bands = np.bincount(np.repeat(np.arange(32), counts), octahedral_areas(16))
    assert np.allclose(bands, 2 * np.pi * weights, rtol=1e-11)


def test_identity_and_description(target, tmp_path):
    assert describe_grid(target)["kind"] == "octahedral reduced Gaussian O16"
    assert describe_grid(target)["shape"] == [1_600]
    target.to_netcdf(tmp_path / "o16.nc")
    again = named_grid({"file": tmp_path / "o16.nc"})
    assert grid_hash(again) == grid_hash(grid_of(target)) == grid_hash(named_grid(target))
    assert named_grid({"name": "O16"}).identical(target)
    turned = point_list(target.latitude, target.longitude + 1.0)
    assert len({grid_hash(g) for g in (target, turned, named_grid("O17"), named_grid("N16"))}) == 4
    assert describe_grid(turned)["kind"] == "points" and not grid_areas(turned).any()
    with pytest.raises(GridError, match="no cells with corners"):
        grid_corners(target)
    with pytest.raises(GridError, match="beyond the poles"):
        point_list([91.0], [0.0])


@pytest.mark.parametrize("method", ["bilinear", "nearest_s2d", "patch"])
def test_weights_are_those_of_xesmf_and_keep_constants(method, source, target):
    import xesmf

    weights = make_weights(source, target, method)
    plain = [
        xr.Dataset(coords={"lat": (dims[0], g.latitude.values), "lon": (dims[1], g.longitude.values)})
        for g, dims in ((source, ("lat", "lon")), (target, ("points", "points")))
    ]
    expected = xesmf.Regridder(*plain, method, periodic=True, locstream_out=True).weights.data.todense()
    dense = np.zeros((weights.n_target, weights.n_source))
    dense[weights.row - 1, weights.col - 1] = weights.s
    assert np.array_equal(dense, np.asarray(expected))
    assert weights.target_shape == (target.sizes["points"],) and weights.mapped().all()
    fields = xr.Dataset(
        {"f": (("time", "latitude", "longitude"), np.full((3, 32, 64), 7.25, np.float32), {"units": "K"})},
        coords={"latitude": source.latitude, "longitude": source.longitude},
    )
    out = apply_weights(fields, weights, target)
    assert out["f"].dims == ("time", "points") and out["f"].dtype == np.float32
    assert out["f"].attrs == {"units": "K"} and np.allclose(out["f"], 7.25, rtol=1e-6)
    assert grid_hash(out) == grid_hash(target)
    assert f"32x64 to {target.sizes['points']}, weights" in out.attrs["regridding"]


def test_bilinear_keeps_linear_functions_to_second_order():
    target, errors = named_grid("O32"), []
    for name in ("2deg", "1deg"):
        source = named_grid(name)
        fields = xr.Dataset({"f": (("latitude", "longitude"), linear(source))}, coords=source.coords)
        out = apply_weights(fields, make_weights(source, target, "bilinear"))
        errors.append(float(np.abs(out["f"].values - linear(target)).max()))
    assert errors[1] < 2 * np.radians(1.0) ** 2 and errors[0] / errors[1] > 3.0


def test_missing_values_and_lazy_fields(source, bilinear):
    values = np.random.default_rng(0).standard_normal((5, 2, 32, 64))
    values[2, 1, 10, 20] = np.nan
    coords = {"latitude": source.latitude, "longitude": source.longitude}
    dims = ("time", "level", "latitude", "longitude")
    eager = apply_weights(xr.Dataset({"f": (dims, values)}, coords=coords), bilinear)["f"]
    lazy = apply_weights(
        xr.Dataset({"f": (dims, da.from_array(values, chunks=(2, 1, 32, 64)))}, coords=coords), bilinear
    )["f"]
    assert lazy.chunks == ((2, 2, 1), (1, 1), (bilinear.n_target,))
    assert lazy.dtype == np.float64 and np.array_equal(lazy.values, eager.values, equal_nan=True)
    touched = np.unique(bilinear.row[(bilinear.col == 10 * 64 + 20 + 1) & (bilinear.s != 0)]) - 1
    assert touched.size and np.array_equal(np.flatnonzero(np.isnan(eager.values[2, 1])), touched)
    assert int(np.isnan(eager).sum()) == touched.size


def test_winds_as_vectors(source, bilinear, target):
    """Solid-body rotation about an axis in the plane of the equator."""

    def winds(grid):
        latitude, longitude = xr.broadcast(np.radians(grid.latitude), np.radians(grid.longitude))
        return -np.sin(latitude) * np.cos(longitude), np.sin(longitude)

    names = ("u_component_of_wind", "v_component_of_wind")
    fields = xr.Dataset(dict(zip(names, winds(source), strict=True))).expand_dims(time=2)
    fields = fields.drop_vars(["latitude_bounds", "longitude_bounds"], errors="ignore")
    for given in (fields, fields.chunk(time=1)):
        out = apply_weights(given, bilinear, vectors=True)
        for name, expected in zip(names, winds(target), strict=True):
            assert out[name].dims == ("time", "points")
            assert np.abs(out[name].isel(time=0).values - expected.values).max() < 0.02


@pytest.mark.parametrize("lazy", [False, True])
def test_a_list_of_points_as_source(lazy, source, target):
    weights = make_weights(target, source, "nearest_s2d")
    values = linear(target)[None].astype(np.float32)
    # Fields name the dimension as they like.
    coords = {"lat": ("values", target.latitude.values), "lon": ("values", target.longitude.values)}
    fields = xr.Dataset({"f": (("time", "values"), values)}, coords=coords)
    out = apply_weights(fields.chunk(time=1) if lazy else fields, weights)["f"]
    assert out.dims == ("time", "latitude", "longitude") and out.dtype == np.float32
    assert np.abs(out[0].values - linear(source)).max() < 0.4
    assert np.array_equal(np.unique(weights.s), [1.0])


def test_masked_points_of_a_source_count_for_nothing(source, target):
    mask = target.latitude.values > 0
    weights = make_weights(target, source, "nearest_s2d", mask=mask)
    assert mask[weights.col - 1].all() and weights.mapped().all()
    again = RegridWeights.from_dataset(weights.to_dataset())
    assert np.array_equal(again.mask, weights.mask) and again.source_shape == weights.source_shape


def test_nearest_d2s_takes_means(source, target):
    for a, b in ((source, target), (target, source), (target, named_grid("O8"))):
        weights = make_weights(a, b, "nearest_d2s")
        assert weights.n_source == weights.s.size
        dims = ("points",) if is_point_list(a) else ("latitude", "longitude")
        fields = xr.Dataset({"f": (dims, np.full(weights.source_shape, 7.25))}, coords=a.coords)
        out = apply_weights(fields, weights)["f"]
        assert out.shape == weights.target_shape
        assert np.allclose(out.values[~np.isnan(out.values)], 7.25)


def test_methods_that_need_cells_or_neighbours_are_refused(source, target):
    for method in ("conservative", "conservative_normed"):
        with pytest.raises(GridError, match="O16 is a list of points without cell corners") as caught:
            make_weights(source, target, method)
        assert "bilinear" in str(caught.value) and "regular grid" in str(caught.value)
    for method in ("bilinear", "conservative"):
        with pytest.raises(GridError, match=r"which points are neighbours.*O16") as caught:
            make_weights(target, source, method)
        assert "nearest_s2d" in str(caught.value)


def test_weights_come_back_from_a_file(bilinear, tmp_path):
    data = bilinear.to_dataset()
    assert data["dst_grid_dims"].values.tolist() == [bilinear.n_target]
    assert data["src_grid_dims"].values.tolist() == [64, 32]
    store = RegridWeightsDataset(filepath=str(tmp_path / "weights.nc"))
    store.save(bilinear)
    again = store.load()
    assert again.target_shape == bilinear.target_shape and again.key == bilinear.key
    assert grid_hash(again.target) == again.target_hash and grid_hash(again.source) == again.source_hash
    assert all(np.array_equal(getattr(again, name), getattr(bilinear, name)) for name in ("row", "col", "s"))


def test_the_report_measures_points(source, bilinear):
    fields = xr.Dataset(
        {"f": (("time", "latitude", "longitude"), linear(source)[None] + 10.0)},
        coords={"latitude": source.latitude, "longitude": source.longitude, "time": [0]},
    )
    regridded = apply_weights(fields, bilinear)
    report = regrid_report(fields, regridded, bilinear)
    measured = report["variables"]["f"]
    assert measured["area_integral_error"] < 1e-3 and measured["conservation_error"] is None
    assert measured["pole_row_spread"] is None and measured["missing_area"] == [0.0, 0.0]
    assert 0.5 < report["effective_resolution_ratio"] < 1.5
    assert "octahedral reduced Gaussian O16" in render_regrid_report(report, fields, regridded)


def test_the_pipeline_refuses_lists_of_points(source, target, tmp_path):
    for spec in ("O96", {"name": "o96"}):
        with pytest.raises(ParameterError, match=r"reduced grid, and the network needs.*N96"):
            validate_parameters({"ingest": {"variables": ["temperature"]}, "regrid": {"target": spec}})
    target.to_netcdf(tmp_path / "points.nc")
    parameters = RegridParameters(target={"file": str(tmp_path / "points.nc")})
    with pytest.raises(GridError, match=r"latitude-longitude grid, and points.nc is a list of points"):
        choose_target_grid(source, parameters)
