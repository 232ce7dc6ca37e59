from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import GridError, SourceNotFoundError
from weathermill.fields.grids import (
    build_grid,
    cell_areas,
    describe_grid,
    grid_corners,
    grid_hash,
    grid_of,
    has_pole_points,
    named_grid,
)


@pytest.mark.parametrize(
    ("name", "shape", "poles", "first"),
    [
        ("1deg", (180, 360), False, 89.5),
        ("1deg_poles", (181, 360), True, 90.0),
        ("1.5deg", (120, 240), False, 89.25),
        ("1.5deg_poles", (121, 240), True, 90.0),
        ("0.25deg", (720, 1440), False, 89.875),
        ("0.25deg_poles", (721, 1440), True, 90.0),
        ("31x60", (31, 60), True, 90.0),
        ("31x60_poles", (31, 60), True, 90.0),
        ("31x60_cells", (31, 60), False, 90.0 - 90.0 / 31),
        ("64x32", (32, 64), False, 87.1875),
        ("240x121", (121, 240), True, 90.0),
        ("721x1440", (721, 1440), True, 90.0),
        ("N32", (64, 128), False, 87.8637988),
        ("F80", (160, 320), False, 89.1415194),
    ],
)
def test_grids_by_name(name, shape, poles, first):
    grid = named_grid(name)
    assert (grid.sizes["latitude"], grid.sizes["longitude"]) == shape
    assert has_pole_points(grid.latitude.values) is poles
    assert float(grid.latitude[0]) == pytest.approx(first, abs=1e-6)
    assert np.all(np.diff(grid.latitude) < 0) and np.all(np.diff(grid.longitude) > 0)
    assert float(grid.longitude[0]) == 0.0
    areas = cell_areas(grid.latitude.values, grid.longitude.values)
    assert areas.sum() == pytest.approx(4 * np.pi, rel=1e-13)
    rows, columns = grid_corners(grid)
    assert rows[0] == 90.0 and rows[-1] == -90.0 and columns[-1] - columns[0] == pytest.approx(360.0)
    assert grid.latitude.attrs["bounds"] == "latitude_bounds"
    assert grid.latitude_bounds.shape == (shape[0], 2)


def test_boxes():
    grid = named_grid({"latitude": [34, 72], "longitude": [-25, 45], "step": 0.25})
    assert grid.latitude.values[[0, -1]].tolist() == [72.0, 34.0]
    assert grid.longitude.values[[0, -1]].tolist() == [-25.0, 45.0]
    assert grid.sizes["latitude"] == 153 and grid.sizes["longitude"] == 281
    across = named_grid({"latitude": [10, -10], "longitude": [350, 10], "step": [5, 10]})
    assert across.longitude.values.tolist() == [350.0, 360.0, 370.0]
    assert across.latitude.values.tolist() == [10.0, 5.0, 0.0, -5.0, -10.0]


def test_points_and_turned_grids():
    grid = named_grid({"latitude": [0, 10, 30], "longitude": [0, 90, 180, 270]})
    assert grid.latitude.values.tolist() == [30.0, 10.0, 0.0]
    turned = named_grid({"name": "1deg", "longitude_start": 0.5})
    assert turned.longitude.values[[0, -1]].tolist() == [0.5, 359.5]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("one degree", "unknown"),
        ("0.7deg", "does not divide"),
        ("O1", "out of reach"),
        ({"name": "O8", "longitude_start": 1}, "begin at Greenwich"),
        ("1x2", "at least 2 rows"),
        ({"latitude": [0, 10]}, "cannot be made of the keys"),
        ({"latitude": [0, 10], "longitude": [0, 10], "step": 3}, "do not lead"),
        ({"latitude": [0, 10], "longitude": [0, 10], "step": -1}, "positive"),
        ({"latitude": [0, 10, 20], "longitude": [0, 90, 360]}, "same meridian twice"),
    ],
)
def test_what_is_no_grid(spec, said):
    with pytest.raises(GridError, match=said):
        named_grid(spec)


def test_a_grid_from_a_file(tmp_path):
    named_grid("N16").to_netcdf(tmp_path / "grid.nc")
    grid = named_grid({"file": tmp_path / "grid.nc"})
    assert grid_hash(grid) == grid_hash(named_grid("N16"))
    with pytest.raises(SourceNotFoundError, match="does not exist"):
        named_grid({"file": tmp_path / "absent.nc"})
    (tmp_path / "bad.nc").write_bytes(b"nothing")
    with pytest.raises(GridError, match="cannot be read"):
        named_grid({"file": tmp_path / "bad.nc"})


def test_a_curvilinear_grid_from_a_file(tmp_path):
    y, x = np.meshgrid(np.arange(4.0), np.arange(5.0), indexing="ij")
    ds = xr.Dataset(coords={"nav_lat": (("j", "i"), 50 + y), "nav_lon": (("j", "i"), 5 + x + 0.1 * y)})
    ds["nav_lat"].attrs["bounds"], ds["nav_lon"].attrs["bounds"] = "lat_v", "lon_v"
    offsets = [(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)]
    ds["lat_v"] = (("j", "i", "v"), np.stack([50 + y + dy for dy, _ in offsets], -1))
    ds["lon_v"] = (("j", "i", "v"), np.stack([5 + x + dx + 0.1 * (y + dy) for dy, dx in offsets], -1))
    ds.to_netcdf(tmp_path / "ocean.nc")
    grid = named_grid({"file": tmp_path / "ocean.nc"})
    assert grid.latitude.dims == ("y", "x")
    rows, columns = grid_corners(grid)
    assert rows.shape == (5, 6) and columns.shape == (5, 6)
    assert rows[:, 0].tolist() == [49.5, 50.5, 51.5, 52.5, 53.5]
    assert np.allclose(columns[0], 5 + np.arange(6) - 0.5 - 0.05)
    assert describe_grid(grid)["kind"] == "curvilinear"
    with pytest.raises(GridError, match="without cell vertices"):
        grid_corners(grid.drop_vars(["latitude_bounds", "longitude_bounds"]))


def test_bounds_of_a_file_win_over_inferred_ones():
    ds = xr.Dataset(
        coords={
            "lat": ("lat", [60.0, 0.0, -60.0], {"bounds": "lat_bnds"}),
            "lon": ("lon", [0.0, 120.0, 240.0]),
            "lat_bnds": (("lat", "b"), [[20.0, 90.0], [-20.0, 20.0], [-90.0, -20.0]]),
        }
    )
    assert grid_corners(grid_of(ds))[0].tolist() == [90.0, 20.0, -20.0, -90.0]


def test_a_duplicated_meridian_leaves_the_grid():
    longitude = np.arange(0, 361, 10.0)
    ds = xr.Dataset(coords={"lat": np.linspace(80, -80, 9), "lon": longitude})
    findings = []
    grid = grid_of(ds, findings=findings)
    assert grid.sizes["longitude"] == 36 and "360" in findings[0].message


def test_the_hash_is_of_the_geometry_alone():
    grid = named_grid("31x60")
    same = build_grid(grid.latitude.values + 1e-10, grid.longitude.values, name="another name")
    assert grid_hash(grid) == grid_hash(same) == grid_hash(grid_of(grid.assign_attrs(x="y")))
    others = [
        named_grid("30x60"),
        named_grid({"name": "31x60", "longitude_start": 3}),
        build_grid(grid.latitude.values[::-1], grid.longitude.values),
        build_grid(grid.latitude.values, grid.longitude.values, latitude_bounds=np.linspace(90, -90, 32)),
    ]
    assert len({grid_hash(g) for g in [grid, *others]}) == 5


def test_the_hash_survives_the_ways_of_computing_the_same_points():
    for name in ("1.5deg", "64x32", "N48", "0.25deg_poles"):
        grid = named_grid(name)
        n = grid.sizes["longitude"]
        again = build_grid(grid.latitude.values.astype(np.float64), np.linspace(0, 360, n, endpoint=False))
        assert grid_hash(again) == grid_hash(grid)
