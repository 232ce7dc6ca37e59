from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import GridError, ParameterError, RegridWeightsError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.geometry import polygon_areas
from weathermill.fields.grids import build_grid, grid_corners, grid_hash, named_grid
from weathermill.fields.regridding import (
    METHODS,
    RegridWeights,
    apply_weights,
    make_weights,
    operator_of,
    regrid_report,
    weights_key,
)


def dataset(values: np.ndarray, grid: xr.Dataset, name: str = "f", dims=("time",)) -> xr.Dataset:
    coords = {"latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset({name: ((*dims, "latitude", "longitude"), values, {"units": "K"})}, coords=coords)


@pytest.fixture(scope="module")
def source():
    return named_grid("64x32")


@pytest.fixture(scope="module")
def target():
    return named_grid("31x60_poles")


@pytest.fixture(scope="module")
def made(source, target):
    cache: dict[str, RegridWeights] = {}

    def make(method: str) -> RegridWeights:
        if method not in cache:
            cache[method] = make_weights(source, target, method)
        return cache[method]

    return make


@pytest.mark.parametrize("method", METHODS)
def test_constants_are_kept(method, made, source, target):
    fields = dataset(np.full((3, 32, 64), 7.25, dtype=np.float32), source)
    out = apply_weights(fields, made(method), target)
    values = out["f"].values
    if method == "nearest_d2s":
        values = values[~np.isnan(values)]
    assert np.allclose(values, 7.25, rtol=1e-6)
    assert out["f"].dtype == np.float32 and out["f"].attrs == {"units": "K"}
    assert out["f"].dims == ("time", "latitude", "longitude")
    assert grid_hash(out) == grid_hash(target)
    assert method in out.attrs["regridding"]


def test_agrees_with_xesmf_applying_its_own_weights(made, source, target, smooth_field):
    import xesmf

    rows, columns = grid_corners(source)
    a = xr.Dataset(
        coords={
            "lat": source.latitude.values,
            "lon": source.longitude.values,
            "lat_b": rows,
            "lon_b": columns,
        }
    )
    rows, columns = grid_corners(target)
    b = xr.Dataset(
        coords={
            "lat": target.latitude.values,
            "lon": target.longitude.values,
            "lat_b": rows,
            "lon_b": columns,
        }
    )
    field = smooth_field(source)
    for method in ("bilinear", "conservative", "nearest_s2d"):
        expected = xesmf.Regridder(a, b, method, periodic=True)(field)
        out = apply_weights(dataset(field[None], source), made(method), target)
        assert np.allclose(out["f"][0], expected, rtol=1e-13)


def test_conservative_keeps_the_integral_over_its_cells(made, source, target):
    field = np.random.default_rng(0).standard_normal((32, 64))
    out = apply_weights(dataset(field[None], source), made("conservative"), target)["f"].values[0]
    before = (field * polygon_areas(*grid_corners(source))).sum()
    after = (out * polygon_areas(*grid_corners(target))).sum()
    scale = (np.abs(field) * polygon_areas(*grid_corners(source))).sum()
    assert abs(after - before) / scale < 1e-12


@settings(max_examples=8, deadline=None)
@given(
    n_lat=st.integers(6, 14),
    n_lon=st.integers(8, 20),
    poles=st.booleans(),
    shift=st.floats(0, 30).map(lambda v: round(v, 2)),
)
def test_laws_hold_for_any_pair_of_global_grids(n_lat, n_lon, poles, shift):
    spec = f"{n_lat}x{max(n_lat, n_lon)}_{'poles' if poles else 'cells'}"
    source = named_grid({"name": spec, "longitude_start": shift})
    target = named_grid("7x12_cells")
    weights = make_weights(source, target, "conservative")
    assert np.allclose(weights.row_sums(), 1.0, atol=1e-11)
    field = np.random.default_rng(n_lat).standard_normal((1, *weights.source_shape))
    report = regrid_report(dataset(field, source), apply_weights(dataset(field, source), weights), weights)
    assert report["variables"]["f"]["conservation_error"] < 1e-12
    bilinear = make_weights(source, target, "bilinear")
    assert np.allclose(bilinear.row_sums(), 1.0, atol=1e-11)


def test_bilinear_keeps_linear_functions_to_second_order(smooth_field):
    errors = []
    target = named_grid("15x30_cells")
    for n in (18, 36, 72):
        source = named_grid(f"{n}x{2 * n}_cells")
        out = apply_weights(
            dataset(smooth_field(source)[None], source), make_weights(source, target, "bilinear")
        )
        errors.append(float(np.abs(out["f"][0] - smooth_field(target)).max()))
    assert errors[0] / errors[1] > 3.5 and errors[1] / errors[2] > 3.5


def test_results_do_not_heed_wrap_or_order_of_the_source(smooth_field, target):
    source = named_grid("64x32")
    field = np.random.default_rng(5).standard_normal((32, 64))
    expected = {
        m: apply_weights(dataset(field[None], source), make_weights(source, target, m))["f"]
        for m in ("bilinear", "conservative")
    }
    wrapped = build_grid(source.latitude.values, np.sort((source.longitude.values + 180) % 360 - 180))
    rolled = np.roll(field, 32, axis=1)
    flipped = build_grid(source.latitude.values[::-1], source.longitude.values)
    for grid, values in ((wrapped, rolled), (flipped, field[::-1].copy())):
        for method, reference in expected.items():
            out = apply_weights(dataset(values[None], grid), make_weights(grid, target, method))["f"]
            assert np.allclose(out, reference, atol=1e-11), method


@pytest.mark.parametrize("method", ["bilinear", "conservative", "nearest_s2d"])
def test_weights_do_not_change_when_both_grids_turn_about_the_axis(method):
    # A point on a pole is equally near to a whole row, where rounding decides.
    name = "6x12_cells" if method == "nearest_s2d" else "7x12_poles"
    source, target = named_grid("10x20_cells"), named_grid({"name": name, "longitude_start": 1.25})
    reference = make_weights(source, target, method)
    for turn in (17.25, 180.0):
        grids = [
            build_grid(
                grid.latitude.values,
                grid.longitude.values + turn,
                longitude_bounds=grid_corners(grid)[1] + turn,
            )
            for grid in (source, target)
        ]
        turned = make_weights(*grids, method)
        a, b = (
            scipy.sparse.csr_matrix((w.s, (w.row - 1, w.col - 1)), shape=(w.n_target, w.n_source))
            for w in (reference, turned)
        )
        assert abs(a - b).max() < 1e-12


def test_periodicity_comes_from_the_coordinates(source, smooth_field):
    between = build_grid(np.array([20.0, 10.0]), np.array([354.375 + 1.0, 354.375 + 4.0]))
    weights = make_weights(source, between, "bilinear")
    assert weights.mapped().all()
    out = apply_weights(dataset(smooth_field(source)[None], source), weights)["f"][0]
    assert np.allclose(out, smooth_field(between), atol=0.01)


def test_unmapped_points_are_missing_not_zero(smooth_field):
    region = named_grid({"latitude": [60, 30], "longitude": [0, 40], "step": 5})
    wider = named_grid({"latitude": [70, 20], "longitude": [350, 50], "step": 5})
    for method in ("bilinear", "conservative", "conservative_normed", "patch"):
        out = apply_weights(dataset(smooth_field(region)[None], region), make_weights(region, wider, method))[
            "f"
        ][0]
        inside = out.sel(latitude=slice(55, 35)).isel(longitude=slice(3, 10))
        assert not inside.isnull().any()
        assert np.isnan(out.values[0]).all() and np.isnan(out.values[:, 0]).all()
        assert float(out.min()) > 5.0, "no value is diluted by zeros"


def test_cells_that_the_source_covers_in_part_are_not_diluted():
    region = build_grid(np.array([45.0, 35.0]), np.array([5.0, 15.0]))
    half = build_grid(np.array([40.0, 30.0, 20.0]), np.array([10.0, 22.0]))
    weights = make_weights(region, half, "conservative")
    sums = weights.row_sums()
    assert np.any((sums > 0.1) & (sums < 0.9))
    out = apply_weights(dataset(np.full((1, 2, 2), 3.0), region), weights)["f"].values.ravel()
    assert np.allclose(out[sums >= 0.5], 3.0) and np.isnan(out[sums < 0.5]).all()
    strict = apply_weights(dataset(np.full((1, 2, 2), 3.0), region), weights, minimum_valid=0.99)[
        "f"
    ].values.ravel()
    assert np.isnan(strict[sums < 0.98]).all()


def test_masked_and_missing_sources_leave_coasts_undiluted(source, target, made):
    rng = np.random.default_rng(2)
    land = np.zeros((32, 64), dtype=bool)
    land[8:20, 10:40] = True
    field = np.where(land, np.nan, 20.0 + rng.uniform(-1, 1, (32, 64)))
    missing = apply_weights(dataset(field[None], source), made("conservative"))["f"].values[0]
    masked = make_weights(source, target, "conservative_normed", mask=~land)
    assert masked.key != made("conservative_normed").key
    by_mask = apply_weights(dataset(np.nan_to_num(field)[None], source), masked, minimum_valid=1e-6)[
        "f"
    ].values[0]
    both = ~np.isnan(missing)
    assert np.allclose(missing[both], by_mask[both], rtol=1e-12)
    assert np.nanmin(missing) > 18.9 and np.nanmax(missing) < 21.1
    inside = apply_weights(dataset(land.astype(float)[None], source), made("conservative"))["f"].values[0]
    assert np.array_equal(np.isnan(missing), inside > 0.5 + 1e-12)


def test_missing_values_that_vary_in_time(source, made):
    field = np.random.default_rng(3).uniform(1, 2, (6, 32, 64)).astype(np.float32)
    field[2, 5:9, 7:12] = np.nan
    out = apply_weights(dataset(field, source), made("conservative"))["f"]
    clean = apply_weights(dataset(np.nan_to_num(field, nan=1.5), source), made("conservative"))["f"]
    for t in range(6):
        assert bool(out[t].isnull().any()) == (t == 2)
        valid = ~np.isnan(out.values[t])
        if t != 2:
            assert np.array_equal(out.values[t], clean.values[t])
        assert valid.mean() > 0.97


def test_lazy_input_gives_the_same_lazily(source, made):
    field = np.random.default_rng(4).standard_normal((10, 2, 32, 64)).astype(np.float32)
    eager = apply_weights(dataset(field, source, dims=("time", "level")), made("bilinear"))["f"]
    lazy = dataset(da.from_array(field, chunks=(3, 2, 32, 64)), source, dims=("time", "level"))
    out = apply_weights(lazy, made("bilinear"))["f"]
    assert out.chunks[0] == (3, 3, 3, 1) and out.dtype == np.float32
    assert np.array_equal(out.values, eager.values)


def test_maps_in_pieces_are_joined_and_told(source, made):
    field = np.random.default_rng(4).standard_normal((4, 32, 64)).astype(np.float32)
    lazy = dataset(da.from_array(field, chunks=(2, 8, 16)), source)
    findings = []
    out = apply_weights(lazy, made("bilinear"), findings=findings)["f"]
    assert out.chunks == ((2, 2), (31,), (60,))
    assert len(findings) == 1 and "whole maps" in findings[0].message
    assert np.array_equal(out.values, apply_weights(dataset(field, source), made("bilinear"))["f"].values)


def test_integers_are_promoted(source, made):
    whole = np.arange(32 * 64).reshape(1, 32, 64) % 5
    out = apply_weights(dataset(whole.astype(np.int64), source), made("bilinear"))["f"]
    expected = apply_weights(dataset(whole.astype(np.float64), source), made("bilinear"))["f"]
    assert out.dtype == np.float64 and np.array_equal(out, expected)


def test_static_fields_and_others_pass(source, made):
    fields = dataset(np.ones((2, 32, 64), np.float32), source)
    fields["oro"] = (("latitude", "longitude"), np.ones((32, 64), np.float32))
    fields["index"] = ("time", [1, 2])
    out = apply_weights(fields, made("conservative"))
    assert out["oro"].dims == ("latitude", "longitude") and out["index"].values.tolist() == [1, 2]
    assert list(out.data_vars) == ["f", "oro", "index"]


def test_order_of_dimensions_is_of_no_account(source, made):
    field = np.random.default_rng(4).standard_normal((3, 32, 64))
    fields = dataset(field, source)
    turned = fields.transpose("longitude", "time", "latitude")
    xr.testing.assert_equal(apply_weights(turned, made("bilinear")), apply_weights(fields, made("bilinear")))


def test_a_duplicated_meridian_in_the_fields_is_dropped(source, made, smooth_field):
    fields = dataset(smooth_field(source)[None], source)
    again = fields.isel(longitude=[0]).assign_coords(longitude=[360.0])
    findings = []
    out = apply_weights(xr.concat([fields, again], "longitude"), made("bilinear"), findings=findings)
    assert np.array_equal(out["f"], apply_weights(fields, made("bilinear"))["f"])
    assert any("repeat the meridian" in f.message for f in findings)


def test_weights_serve_only_their_own_grids(made, source, target):
    weights = made("bilinear")
    fields = dataset(np.ones((1, 32, 64)), source)
    shifted = fields.assign_coords(longitude=fields.longitude + 1.0)
    with pytest.raises(RegridWeightsError, match="another source grid"):
        apply_weights(shifted, weights)
    with pytest.raises(RegridWeightsError, match="another source grid"):
        apply_weights(fields.isel(latitude=slice(1, None)), weights)
    with pytest.raises(RegridWeightsError, match="another target grid"):
        apply_weights(fields, weights, named_grid("30x60"))


def test_the_key_tells_grids_masks_methods_and_options_apart(source, target):
    mask = np.ones((32, 64), bool)
    other = mask.copy()
    other[0, 0] = False
    keys = {
        weights_key(source, target, "bilinear"),
        weights_key(target, source, "bilinear"),
        weights_key(source, target, "conservative"),
        weights_key(source, target, "bilinear", mask),
        weights_key(source, target, "bilinear", other),
        weights_key(source, target, "bilinear", extrap_method="nearest_s2d"),
    }
    assert len(keys) == 6
    assert weights_key(source, target, "bilinear", mask.astype(int)) == weights_key(
        source, target, "bilinear", mask
    )


def test_the_file_layout_is_that_of_esmf_and_comes_back(tmp_path, made, source):
    weights = make_weights(source, named_grid("31x60_poles"), "conservative", mask=np.eye(32, 64) == 0)
    path = tmp_path / "w.nc"
    weights.to_dataset().to_netcdf(path)
    file = xr.load_dataset(path)
    assert {"row", "col", "S", "xc_a", "yc_a", "xc_b", "yc_b", "area_a", "area_b", "frac_a", "frac_b"} <= set(
        file
    )
    assert {"mask_a", "mask_b", "src_grid_dims", "dst_grid_dims"} <= set(file)
    assert file["src_grid_dims"].values.tolist() == [64, 32] and file["dst_grid_dims"].values.tolist() == [
        60,
        31,
    ]
    assert dict(file.sizes)["n_a"] == 2048 and dict(file.sizes)["n_b"] == 1860
    assert file["row"].min() >= 1 and file["row"].max() <= 1860
    assert float((file["frac_b"] * file["area_b"]).sum()) == pytest.approx(
        float((file["frac_a"] * file["area_a"]).sum())
    )
    assert np.array_equal(file["frac_a"] < 1e-9, np.eye(32, 64).ravel() == 1)
    back = RegridWeights.from_dataset(file)
    for name in ("row", "col", "s", "mask"):
        assert np.array_equal(getattr(back, name), getattr(weights, name))
    for name in ("key", "method", "provider", "source_hash", "target_hash", "source_shape", "attrs"):
        assert getattr(back, name) == getattr(weights, name)
    assert grid_hash(back.source) == weights.source_hash and grid_hash(back.target) == weights.target_hash


def test_xesmf_itself_reads_the_file(tmp_path, made, source, target, smooth_field):
    import xesmf

    path = tmp_path / "w.nc"
    made("bilinear").to_dataset().to_netcdf(path)
    grids = [
        xr.Dataset(coords={"lat": g.latitude.values, "lon": g.longitude.values}) for g in (source, target)
    ]
    regridder = xesmf.Regridder(*grids, "bilinear", periodic=True, weights=str(path))
    field = smooth_field(source)
    ours = apply_weights(dataset(field[None], source), made("bilinear"))["f"][0]
    assert np.allclose(regridder(field), ours, rtol=1e-13)


@pytest.mark.parametrize("damage", ["value", "index", "missing", "method", "nan"])
def test_damaged_weights_are_refused(made, damage):
    file = made("bilinear").to_dataset().copy(deep=True)
    if damage == "value":
        file["S"][17] += 1e-3
    elif damage == "index":
        file["col"][17] = 99999
    elif damage == "missing":
        file = file.drop_vars("row")
    elif damage == "method":
        file.attrs["method"] = "guess"
    else:
        file["S"][17] = np.nan
    with pytest.raises(RegridWeightsError):
        RegridWeights.from_dataset(file)


def test_what_cannot_be_regridded_is_refused(source, target):
    with pytest.raises(ParameterError, match="'spline' is unknown"):
        make_weights(source, target, "spline")
    with pytest.raises(GridError, match="mask has the shape"):
        make_weights(source, target, "bilinear", mask=np.ones((3, 3)))


def test_a_source_coarser_than_the_target_is_told(source):
    findings = []
    make_weights(source, named_grid("64x128_cells"), "bilinear", findings=findings)
    assert any("2 times coarser" in f.message for f in findings)


def test_targets_outside_the_source_are_told_or_refused():
    region = named_grid({"latitude": [60, 30], "longitude": [0, 40], "step": 5})
    findings = []
    wider = named_grid({"latitude": [70, 20], "longitude": [350, 50], "step": 5})
    weights = make_weights(region, wider, "bilinear", findings=findings)
    outside = int((~weights.mapped()).sum())
    assert outside > 50
    assert any(
        f"{outside} of {weights.n_target} target points get no value: they lie outside" in f.message
        for f in findings
    )
    with pytest.raises(GridError, match="no target point lies within"):
        make_weights(
            region, named_grid({"latitude": [-30, -60], "longitude": [100, 140], "step": 5}), "bilinear"
        )


def test_subsampling_and_aliasing_are_told():
    findings = []
    make_weights(named_grid("37x72_poles"), named_grid("19x36_poles"), "bilinear", findings=findings)
    assert any("plain subsampling" in f.message and "conservative" in f.remedy for f in findings)
    findings = []
    make_weights(named_grid("64x128_cells"), named_grid("13x26_cells"), "bilinear", findings=findings)
    assert any("aliased" in f.message for f in findings)
    findings = []
    make_weights(named_grid("37x72_poles"), named_grid("19x36_poles"), "conservative", findings=findings)
    assert findings == []


def test_real_fields_to_a_grid_that_differs_in_every_trait(ecmwf_path):
    raw = xr.open_dataset(ecmwf_path)
    fields = canonicalise([raw], variables=["temperature", "geopotential"])
    target = named_grid("16x30_cells")
    weights = make_weights(fields, target, "conservative")
    out = apply_weights(fields, weights, target)
    matrix = scipy.sparse.csr_matrix((weights.s, (weights.row - 1, weights.col - 1)))
    expected = matrix @ fields.temperature.isel(time=3).sel(level=500).values.astype(float).ravel()
    assert np.allclose(out.temperature.isel(time=3).sel(level=500).values.ravel(), expected, rtol=1e-6)
    report = regrid_report(fields, out, weights)
    assert report["largest_conservation_error"] < 1e-7
    assert report["largest_overshoot"] == 0.0
    assert report["variables"]["temperature"]["missing_area"] == [0.0, 0.0]


def test_a_curvilinear_source(smooth_field):
    y, x = np.meshgrid(np.linspace(20, 60, 41), np.linspace(0, 60, 61), indexing="ij")
    grid = xr.Dataset(
        coords={"latitude": (("y", "x"), y + 0.02 * x), "longitude": (("y", "x"), x + 0.05 * y)}
    )
    fields = xr.Dataset({"f": (("time", "y", "x"), smooth_field(grid)[None])}, coords=grid.coords)
    target = named_grid({"latitude": [50, 30], "longitude": [10, 50], "step": 2})
    out = apply_weights(fields, make_weights(grid, target, "bilinear"))["f"]
    assert out.dims == ("time", "latitude", "longitude")
    assert np.allclose(out[0], smooth_field(target), atol=2e-3)


def test_a_curvilinear_target(source, smooth_field):
    y, x = np.meshgrid(np.linspace(-40, 40, 9), np.linspace(10, 300, 30), indexing="ij")
    grid = xr.Dataset(coords={"latitude": (("y", "x"), y + 0.01 * x), "longitude": (("y", "x"), x)})
    out = apply_weights(dataset(smooth_field(source)[None], source), make_weights(source, grid, "bilinear"))[
        "f"
    ]
    assert out.dims == ("time", "y", "x") and out["latitude"].dims == ("y", "x")
    assert np.allclose(out[0], smooth_field(grid), atol=0.02)


def test_the_operator_shares_its_matrix_between_blocks(source, made):
    lazy = dataset(da.zeros((50, 32, 64), chunks=(1, 32, 64), dtype=np.float32), source)
    out = apply_weights(lazy, made("conservative"))["f"]
    graph = dict(out.__dask_graph__())
    assert sum("regrid-" in str(key) for key in graph) == 1
    assert operator_of(made("conservative")).n_source == 2048


@pytest.mark.parametrize(
    "case",
    [
        "01_regular_conservative",
        "03_regular_bilinear_periodic",
        "06_regular_nearest_s2d_periodic",
        "10_polepoints_conservative",
        "13_gaussian_bilinear_periodic",
        "20_regional_bilinear",
        "22_regional_conservative_normed",
        "34_lon180_to_lon360_bilinear_periodic",
    ],
)
def test_agrees_with_weights_that_real_esmf_made(layouts, case):
    """Our way through xESMF, with periodicity and corners of our own, against files from ESMF 8.9."""
    with xr.open_dataset(layouts.parent / "esmf_reference" / f"{case}.nc") as file:
        reference = file.load()
    grids = []
    for end in ("src", "dst"):
        bounds = {}
        if f"{end}_lat_b" in reference:
            bounds = {
                "latitude_bounds": reference[f"{end}_lat_b"].values,
                "longitude_bounds": reference[f"{end}_lon_b"].values,
            }
        grids.append(build_grid(reference[f"{end}_lat"].values, reference[f"{end}_lon"].values, **bounds))
    weights = make_weights(*grids, reference.attrs["method"])
    ours = scipy.sparse.csr_matrix(
        (weights.s, (weights.row - 1, weights.col - 1)), shape=(weights.n_target, weights.n_source)
    )
    theirs = scipy.sparse.csr_matrix(
        (reference["S"], (reference["row"] - 1, reference["col"] - 1)), shape=ours.shape
    )
    assert abs(ours - theirs).max() < 1e-10


@pytest.mark.parametrize("method", ["bilinear", "patch"])
def test_a_band_of_latitudes_makes_up_no_polar_caps(method, target):
    longitude = np.arange(0, 360, 7.5)
    for latitude, held in (
        (np.arange(40, -41, -5.0), (-40, 40)),
        (np.arange(90, -1, -5.0), (0, 90)),
        (np.arange(-2.5, -88, -5.0), (-90, -2.5)),
        (np.arange(87.5, -88, -5.0), (-90, 90)),
    ):
        weights = make_weights(build_grid(latitude, longitude), target, method)
        rows = target.latitude.values[weights.mapped().reshape(31, 60).all(axis=1)]
        inside = target.latitude.values[(target.latitude >= held[0]) & (target.latitude <= held[1])]
        assert rows.tolist() == inside.tolist()
        assert not weights.mapped().reshape(31, 60)[~np.isin(target.latitude, inside)].any()
