from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import MissingVariableError
from weathermill.fields.grids import named_grid
from weathermill.fields.regridding import apply_weights, make_weights

U, V = "u_component_of_wind", "v_component_of_wind"


def rotation(grid: xr.Dataset, axis) -> tuple[np.ndarray, np.ndarray]:
    """Winds of a solid body that turns about any axis: exact everywhere, smooth across the poles."""
    phi, lam = np.meshgrid(np.radians(grid.latitude.values), np.radians(grid.longitude.values), indexing="ij")
    place = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], -1)
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)], -1)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], -1)
    wind = np.cross(np.broadcast_to(axis, place.shape), place)
    return (wind * east).sum(-1), (wind * north).sum(-1)


def winds(grid: xr.Dataset, axis, *, dtype=np.float64, chunk=None) -> xr.Dataset:
    u, v = rotation(grid, axis)
    fields = xr.Dataset(
        {
            name: (("time", "latitude", "longitude"), np.stack([w, 2 * w]).astype(dtype))
            for name, w in ((U, u), (V, v))
        },
        coords={"latitude": grid.latitude, "longitude": grid.longitude},
    )
    fields[U].attrs["units"] = "m s-1"
    return fields if chunk is None else fields.chunk(time=chunk)


@pytest.mark.parametrize("axis", [(0.0, 0.0, 30.0), (30.0, 0.0, 0.0), (10.0, -20.0, 15.0)])
@pytest.mark.parametrize("chunk", [None, 1])
def test_solid_body_rotation_over_the_poles(axis, chunk):
    source, target = named_grid("64x128_cells"), named_grid("31x60_poles")
    weights = make_weights(source, target, "bilinear")
    out = apply_weights(winds(source, axis, chunk=chunk), weights, vectors=True)
    u, v = rotation(target, axis)
    error = np.hypot(out[U][0] - u, out[V][0] - v)
    assert float(error.max()) < 0.05
    assert np.allclose(out[U][1], 2 * out[U][0]) and out[U].attrs["units"] == "m s-1"
    assert (out[U].chunks is None) == (chunk is None)


def test_components_by_themselves_fail_at_the_poles_where_vectors_do_not():
    source, target, axis = named_grid("64x128_cells"), named_grid("31x60_poles"), (30.0, 0.0, 0.0)
    weights = make_weights(source, target, "bilinear")
    u, v = rotation(target, axis)
    worst = {}
    for vectors in (False, True):
        out = apply_weights(winds(source, axis), weights, vectors=vectors)
        worst[vectors] = float(np.hypot(out[U][0] - u, out[V][0] - v).isel(latitude=[0, -1]).max())
    assert worst[False] > 25.0 and worst[True] < 0.05


def test_scalar_winds_on_pole_rows_are_told():
    source = named_grid("10x20_cells")
    for target, vectors, told in (
        ("7x12_poles", False, 1),
        ("7x12_poles", True, 0),
        ("6x12_cells", False, 0),
    ):
        findings = []
        weights = make_weights(source, named_grid(target), "bilinear")
        apply_weights(winds(source, (0, 0, 1)), weights, vectors=vectors, findings=findings)
        assert len(findings) == told and all("vectors" in finding.remedy for finding in findings)


def test_second_order_in_the_grid():
    target, axis, errors = named_grid("15x30_cells"), (10.0, -20.0, 15.0), []
    for n in (18, 36):
        source = named_grid(f"{n}x{2 * n}_cells")
        out = apply_weights(winds(source, axis), make_weights(source, target, "bilinear"), vectors=True)
        u, v = rotation(target, axis)
        errors.append(float(np.hypot(out[U][0] - u, out[V][0] - v).max()))
    assert errors[0] / errors[1] > 3.5


def test_missing_winds_are_missing_and_do_not_spread_far():
    source, target, axis = named_grid("64x128_cells"), named_grid("31x60_poles"), (10.0, -20.0, 15.0)
    fields = winds(source, axis, dtype=np.float32)
    fields[U][0, 20:30, 40:60] = fields[V][0, 20:30, 40:60] = np.nan
    for method in ("bilinear", "conservative"):
        out = apply_weights(fields, make_weights(source, target, method), vectors=True)
        gone = out[U][0].isnull()
        assert 0.005 < float(gone.mean()) < 0.1 and not out[U][1].isnull().any()
        assert np.array_equal(gone, out[V][0].isnull())
        u, v = rotation(target, axis)
        assert float(np.hypot(out[U][0] - u, out[V][0] - v).max()) < 2.0
        assert out[U].dtype == np.float32


def test_pairs_by_name():
    source, target = named_grid("10x20_cells"), named_grid("7x12_cells")
    fields = winds(source, (0, 0, 1)).rename({U: "east", V: "north"})
    weights = make_weights(source, target, "bilinear")
    out = apply_weights(fields, weights, vectors=[("east", "north")])
    expected = apply_weights(winds(source, (0, 0, 1)), weights, vectors=True)
    assert np.array_equal(out["east"], expected[U])
    assert list(out.data_vars) == ["east", "north"]
    with pytest.raises(MissingVariableError, match="west"):
        apply_weights(fields, weights, vectors=[("west", "north")])
    scalars = apply_weights(fields, weights, vectors=True)
    assert np.array_equal(scalars["east"], apply_weights(fields, weights)["east"])
