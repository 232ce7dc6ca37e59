from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import GridError
from weathermill.fields.cell_vertices import (
    corners_of_vertices,
    curvilinear_areas,
    repeated_cells,
    unit_vectors,
    vertices_of_corners,
)
from weathermill.fields.geometry import polygon_areas
from weathermill.fields.grids import build_grid, grid_corners, grid_hash, grid_of, named_grid
from weathermill.fields.regridding import apply_weights, make_weights, regrid_report
from weathermill.fields.weights import RegridWeights, grid_areas

RINGS = [p for p in permutations(range(4)) if abs(p[0] - p[2]) == 2]


def edges(region: bool, northward: bool):
    rows = np.linspace(30, 60, 7) if region else np.linspace(-90, 90, 19)
    columns = np.linspace(160, 200, 9) if region else np.linspace(0, 360, 37)
    return rows if northward else rows[::-1], columns


def curvilinear(rows, columns, order=(0, 1, 2, 3), *, transposed=False, wrapped=False) -> xr.Dataset:
    """Return latitude-longitude cells as a file has a curvilinear grid, with the vertices in any order."""
    corners = np.meshgrid(rows, columns, indexing="ij")
    dims = ("j", "i")
    ds = xr.Dataset()
    for name, corner in zip(("lat", "lon"), corners, strict=True):
        vertices = vertices_of_corners(corner)
        centres = vertices.mean(-1)
        if wrapped and name == "lon":
            vertices, centres = (np.mod(a + 180, 360) - 180 for a in (vertices, centres))
        ds[f"{name}_v"] = ((*dims, "nv"), vertices[..., list(order)])
        units = {"lat": "degrees_north", "lon": "degrees_east"}[name]
        ds.coords[name] = (dims, centres, {"units": units, "bounds": f"{name}_v"})
    if transposed:
        ds = ds.transpose("nv", "i", "j")
        ds["lon"], ds["lon_v"] = ds["lon"].transpose("j", "i"), ds["lon_v"].transpose("j", "nv", "i")
    return ds


@pytest.mark.parametrize("region", [True, False])
@pytest.mark.parametrize("northward", [True, False])
def test_the_order_of_vertices_is_found_from_those_that_neighbours_share(region, northward):
    rows, columns = edges(region, northward)
    expected = polygon_areas(rows, columns)
    for order in permutations(range(4)):
        latitude, longitude = grid_corners(grid_of(curvilinear(rows, columns, order)))
        assert np.array_equal(latitude, np.broadcast_to(rows[:, None], latitude.shape)), order
        assert np.array_equal(longitude, np.broadcast_to(columns, longitude.shape)), order
        assert np.allclose(curvilinear_areas(latitude, longitude), expected, rtol=1e-9), order
    assert len(RINGS) == 8


def test_swapped_dimensions_and_longitudes_that_wrap():
    rows, columns = edges(False, False)
    plain = grid_corners(grid_of(curvilinear(rows, columns)))
    swapped = grid_of(curvilinear(rows, columns, (2, 3, 0, 1), transposed=True, wrapped=True))
    assert swapped.latitude.shape == (36, 18)
    there = unit_vectors(*grid_corners(swapped))
    assert np.allclose(there, unit_vectors(*plain).transpose(1, 0, 2), atol=1e-15)


@pytest.mark.parametrize("region", [True, False])
@pytest.mark.parametrize(
    ("northward", "order"),
    [(True, (0, 1, 2, 3)), (False, (3, 2, 1, 0)), (False, (1, 0, 3, 2)), (True, (2, 1, 0, 3))],
)
def test_means_over_curvilinear_cells_are_those_over_the_same_plain_cells(region, northward, order):
    rows, columns = edges(region, northward)
    grid = grid_of(curvilinear(rows, columns, order))
    plain = build_grid(
        0.5 * (rows[1:] + rows[:-1]),
        0.5 * (columns[1:] + columns[:-1]),
        latitude_bounds=rows,
        longitude_bounds=columns,
    )
    target = named_grid(
        {"latitude": [55, 35], "longitude": [165, 195], "step": 5} if region else "12x24_cells"
    )
    weights, expected = (
        make_weights(grid, target, "conservative"),
        make_weights(plain, target, "conservative"),
    )
    phi, lam = np.radians(grid.latitude.values), np.radians(grid.longitude.values)
    field = np.stack([280 + 20 * np.sin(phi) + 5 * np.cos(2 * lam) * np.cos(phi), np.full(phi.shape, 7.0)])
    fields = xr.Dataset({"f": (("time", "y", "x"), field)}, coords=grid.coords)
    out = apply_weights(fields, weights)
    same = apply_weights(
        xr.Dataset({"f": (("time", "latitude", "longitude"), field)}, coords=plain.coords), expected
    )
    assert np.allclose(out.f[1], 7.0, rtol=1e-13)
    assert np.allclose(out.f, same.f, rtol=1e-12)
    assert np.allclose(grid_areas(grid), grid_areas(plain, great_circles=True), rtol=1e-9)
    assert regrid_report(fields, out, weights)["largest_conservation_error"] < 1e-12
    again = RegridWeights.from_dataset(weights.to_dataset())
    assert grid_hash(again.source) == weights.source_hash == grid_hash(grid_of(fields))


def bipolar(n=9, m=36):
    """Return corners of a northern hemisphere with two poles on the equator and a fold over the geographic pole.

    Rows run from the equator to the great circle through 0E, the pole and 180E, along which the first half of the last
    row meets its second half; at the grid's poles two vertices of a cell coincide.
    """
    i, j = np.arange(m + 1), np.arange(n + 1)[:, None]
    first = i <= m // 2
    a = np.pi * np.where(first, i, m - i) / (m // 2)
    b = np.where(first, 0.5 * np.pi * j / n, np.pi - 0.5 * np.pi * j / n)
    x, y, z = np.broadcast_to(np.cos(a), b.shape), np.sin(a) * np.cos(b), np.sin(a) * np.sin(b)
    return np.degrees(np.arcsin(np.clip(z, -1, 1))), np.degrees(np.arctan2(y, x))


def centres_of(latitude, longitude):
    middle = vertices_of_corners(unit_vectors(latitude, longitude)[..., 0]).mean(-1)
    y, z = (vertices_of_corners(unit_vectors(latitude, longitude)[..., k]).mean(-1) for k in (1, 2))
    return np.degrees(np.arctan2(z, np.hypot(middle, y))), np.degrees(np.arctan2(y, middle))


@pytest.mark.parametrize("by_cell", [False, True])
def test_a_grid_folded_over_the_pole(by_cell):
    corners = bipolar()
    vertices = [vertices_of_corners(a) for a in corners]
    generator = np.random.default_rng(4)
    turned = np.array(RINGS)[generator.integers(8, size=(9, 36)) if by_cell else np.full((9, 36), 5)]
    found = corners_of_vertices(*(np.take_along_axis(v, turned, 2) for v in vertices), centres_of(*corners))
    assert np.allclose(unit_vectors(*found), unit_vectors(*corners), atol=1e-14)
    assert curvilinear_areas(*found).sum() == pytest.approx(2 * np.pi, rel=1e-12)


def test_the_halo_of_an_ocean_grid_counts_once():
    latitude, longitude = bipolar()
    # Two columns are repeated across the seam, and the row beyond the fold is the last one, turned round.
    wide = [np.concatenate([a[:, -2:-1], a, a[:, 1:2]], axis=1) for a in (latitude, longitude)]
    halo = [np.concatenate([a, a[-2:-1, ::-1]]) for a in wide]
    vertices, centres = [vertices_of_corners(a) for a in halo], centres_of(*halo)
    grid = xr.Dataset(
        {f"{name}_v": (("j", "i", "v"), v) for name, v in zip(("lat", "lon"), vertices, strict=True)},
        coords={
            name: (("j", "i"), c, {"bounds": f"{name}_v"})
            for name, c in zip(("lat", "lon"), centres, strict=True)
        },
    )
    assert repeated_cells(*grid_corners(grid_of(grid))).sum() == 10 * 38 - 9 * 36
    findings = []
    target = named_grid({"latitude": [75, 15], "longitude": [0, 345], "step": 15})
    weights = make_weights(grid, target, "conservative", findings=findings)
    assert np.allclose(weights.row_sums(), 1.0, atol=1e-9)
    assert any("56 cells of the source repeat others" in f.message for f in findings)


def test_source_cells_that_overlap_are_refused():
    rows, columns = edges(True, True)
    grid = curvilinear(rows, np.concatenate([columns[:5], columns[2:]]) + np.r_[np.zeros(5), np.full(7, 0.3)])
    grid["lon_v"][:, 4] = np.array([180.0, 170.3, 170.3, 180.0])
    with pytest.raises(GridError, match="cover target cells up to"):
        make_weights(
            grid, named_grid({"latitude": [55, 35], "longitude": [165, 190], "step": 5}), "conservative"
        )


def test_vertices_that_nearly_coincide_and_vertices_that_do_not():
    rows, columns = edges(False, False)
    generator = np.random.default_rng(1)
    corners = np.meshgrid(rows, columns, indexing="ij")
    centres = [vertices_of_corners(a).mean(-1) for a in corners]
    vertices = [vertices_of_corners(a)[..., [3, 2, 1, 0]] for a in corners]
    near = [v + 0.05 * generator.uniform(-1, 1, v.shape) for v in vertices]
    found = corners_of_vertices(np.clip(near[0], -90, 90), near[1], centres)
    assert np.abs(found[0] - corners[0]).max() <= 0.05 and np.abs(found[1] - corners[1]).max() <= 0.05
    apart = [v + 2.0 * generator.uniform(-1, 1, v.shape) for v in vertices]
    with pytest.raises(
        GridError, match="lie apart from those of their neighbours, the first in row 0 and column 0"
    ):
        corners_of_vertices(np.clip(apart[0], -90, 90), apart[1], centres)
    with pytest.raises(GridError, match="648 cells do not enclose their centres"):
        corners_of_vertices(*(np.roll(v, 1, axis=1) for v in vertices), centres)
    with pytest.raises(GridError, match="four vertices each"):
        corners_of_vertices(*(v[..., :3] for v in vertices), centres)
    vertices[1][2, 3, 1] = np.nan
    with pytest.raises(
        GridError, match="1 cells have vertices without a value, the first in row 2 and column 3"
    ):
        corners_of_vertices(*vertices, centres)


def test_vertices_that_make_no_cells_are_told_and_leave_other_methods_alone():
    rows, columns = edges(True, True)
    grid = curvilinear(rows, columns)
    grid["lat_v"] = grid["lat_v"] + np.random.default_rng(2).uniform(-2, 2, grid["lat_v"].shape)
    findings = []
    source = grid_of(grid, findings=findings)
    assert "conservative methods cannot be used" in findings[0].message and "bilinear" in findings[0].remedy
    target = named_grid({"latitude": [55, 35], "longitude": [165, 195], "step": 5})
    weights = make_weights(source, target, "bilinear")
    assert not grid_areas(source).any() and RegridWeights.from_dataset(weights.to_dataset())
    with pytest.raises(GridError, match="lie apart"):
        make_weights(source, target, "conservative")


def plain(latitude, longitude, latitude_bounds=None, longitude_bounds=None) -> xr.Dataset:
    ds = xr.Dataset(
        coords={"lat": ("lat", np.array(latitude, float)), "lon": ("lon", np.array(longitude, float))}
    )
    for name, bounds in (("lat", latitude_bounds), ("lon", longitude_bounds)):
        if bounds is not None:
            ds[f"{name}_bnds"] = ((name, "bnds"), np.array(bounds, float))
            ds[name].attrs["bounds"] = f"{name}_bnds"
    return ds


def test_bounds_come_in_any_order():
    rows = np.array([[90.0, 50.0], [50.0, -10.0], [-10.0, -90.0]])
    latitude, longitude = [70.0, 20.0, -50.0], [0.0, 90.0, 180.0, 270.0]
    columns = np.array([[315.0, 45.0], [45.0, 135.0], [135.0, 225.0], [225.0, 315.0]])
    mixed = rows.copy()
    mixed[1] = mixed[1][::-1]
    for bounds in (rows, rows[:, ::-1], mixed):
        for around in (columns, columns[:, ::-1], columns - 360.0, np.mod(columns + 180, 360) - 180):
            got = grid_corners(grid_of(plain(latitude, longitude, bounds, around)))
            assert got[0].tolist() == [90.0, 50.0, -10.0, -90.0]
            assert got[1].tolist() == [-45.0, 45.0, 135.0, 225.0, 315.0]
    upward = grid_corners(
        grid_of(plain(latitude[::-1], longitude, rows[::-1], columns).transpose("bnds", ...))
    )
    assert upward[0].tolist() == [-90.0, -10.0, 50.0, 90.0]


@pytest.mark.parametrize(
    ("axis", "bounds", "said"),
    [
        (
            "lat",
            [[-90, -10], [-10, 50], [50, 90]],
            "do not enclose the points of 2 cells, such as 70 between",
        ),
        ("lat", [[90, 50], [45, -10], [-10, -90]], "50 and 45 between cells 0 and 1"),
        ("lat", [[90, 50], [55, -10], [-10, -90]], "leave gaps or overlap"),
        ("lat", [[90, np.nan], [50, -10], [-10, -90]], "missing in part"),
        ("lat", [[90, 69], [69, 20], [20, 20]], "overlap"),
        ("lon", [[30, 60], [60, 130], [130, 330]], "longitude bounds do not enclose the points of 1 cells"),
        ("lon", [[-190, 60], [60, 130], [130, 250]], "overlap"),
    ],
)
def test_bounds_that_make_no_cells_are_refused(axis, bounds, said):
    given = {"latitude_bounds": bounds} if axis == "lat" else {"longitude_bounds": bounds}
    with pytest.raises(GridError, match=said) as caught:
        grid_of(plain([70, 20, -50], [0, 90, 180], **given), name="grid.nc")
    assert caught.value.where == "grid.nc" and "bounds" in caught.value.remedy


def test_bounds_in_float32_of_a_fine_grid_and_bounds_in_radians():
    longitude = np.arange(330, 340, 0.01)
    bounds = np.stack([longitude - 0.005, longitude + 0.005], -1).astype(np.float32)
    corners = grid_corners(grid_of(plain([10, 9], longitude, None, bounds)))[1]
    assert np.abs(corners[:-1] + 0.005 - longitude).max() < 5e-5
    ds = plain(np.radians([70, 20]), np.radians([10, 20]), np.radians([[90, 50], [50, -10]]))
    for name in ("lat", "lon"):
        ds[name].attrs["units"] = "radians"
    grid = grid_of(ds)
    assert np.allclose(grid_corners(grid)[0], [90, 50, -10]) and np.allclose(grid.longitude, [10, 20])
