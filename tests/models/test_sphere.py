from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import ModelError
from weathermill.models.boundary import Edges
from weathermill.models.sphere import SphereGrid, pole_points


def on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> torch.Tensor:
    """A function of the point on the sphere, so that it can be evaluated past the poles and the date line."""
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None, :]
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi) + 0 * lam
    return torch.tensor(1.3 * x - 0.7 * y + 0.4 * z + x * y - y * z**2 + 0.2 * x**3)[None, None]


def coordinates(rows: int, columns: int, poles: bool) -> tuple[np.ndarray, np.ndarray, float, float]:
    step = 180.0 / (rows - 1) if poles else 180.0 / rows
    first = 90.0 if poles else 90.0 - step / 2
    return first - step * np.arange(rows), np.arange(columns) * 360.0 / columns, step, 360.0 / columns


@pytest.mark.parametrize("poles", [True, False])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(8, 8, 3), (13, 20, 2), (31, 60, 3), (32, 64, 3), (9, 14, 1)]
)
def test_margins_and_halo_continue_a_function_on_the_sphere(rows, columns, depth, poles):
    latitude, longitude, dy, dx = coordinates(rows, columns, poles)
    grid = SphereGrid((rows, columns), depth, pole_points(latitude))
    assert grid.pole_points == (poles, poles)
    north, _, _ = grid.margins
    padded_rows, padded_columns = grid.padded_shape
    assert padded_rows % grid.stride == 0 and padded_columns % grid.stride == 0

    extended_latitude = latitude[0] + dy * north - dy * np.arange(padded_rows)
    extended_longitude = dx * np.arange(padded_columns)
    padded = grid.pad(on_sphere(latitude, longitude))
    torch.testing.assert_close(padded, on_sphere(extended_latitude, extended_longitude), rtol=0, atol=1e-12)
    torch.testing.assert_close(grid.crop(padded), on_sphere(latitude, longitude), rtol=0, atol=0)

    around_latitude = extended_latitude[0] + dy - dy * np.arange(padded_rows + 2)
    around_longitude = dx * (np.arange(padded_columns + 2) - 1)
    haloed = grid.halo(0).pad(padded)
    torch.testing.assert_close(haloed, on_sphere(around_latitude, around_longitude), rtol=0, atol=1e-12)


def test_halo_of_an_odd_number_of_longitudes_is_half_a_cell_off_at_the_pole_at_most():
    latitude, longitude, dy, dx = coordinates(16, 45, poles=False)
    grid = SphereGrid((16, 45), 1, pole_points(latitude))
    haloed = grid.halo(0).pad(grid.pad(on_sphere(latitude, longitude)))
    around_latitude = latitude[0] + dy - dy * np.arange(18)
    shifted = [on_sphere(around_latitude, dx * (np.arange(48) - 1) + offset) for offset in (-dx / 2, 0.0)]
    torch.testing.assert_close(haloed[..., 1:-1, :], shifted[1][..., 1:-1, :], rtol=0, atol=1e-12)
    torch.testing.assert_close(haloed[..., 0, :], shifted[0][..., 0, :], rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(8, 40), columns=st.integers(8, 40), depth=st.integers(1, 3), poles=st.booleans())
def test_halos_of_every_level_come_out_of_its_interior(rows, columns, depth, poles):
    latitude = coordinates(rows, columns, poles)[0]
    grid = SphereGrid((rows, columns), depth, pole_points(latitude))
    for level in range(depth + 1):
        halo = grid.halo(level)
        assert halo.shape == tuple(n // 2**level for n in grid.padded_shape)
        assert halo.is_ring == (columns % grid.stride == 0) or halo.period == halo.shape[1]
        index = torch.arange(halo.shape[0] * halo.shape[1], dtype=torch.float64).reshape(1, 1, *halo.shape)
        haloed = halo.pad(index)
        assert haloed.shape == (1, 1, halo.shape[0] + 2, halo.shape[1] + 2)
        torch.testing.assert_close(haloed[..., 1:-1, 1:-1], index, rtol=0, atol=0)


def test_zeros_surround_the_grid_where_asked():
    grid = SphereGrid((9, 10), 1, edges=Edges.uniform("zeros"))
    padded = grid.halo(0).pad(grid.pad(torch.ones(1, 1, 9, 10)))
    assert padded.shape == (1, 1, 12, 12) and padded.sum() == 90


@pytest.mark.parametrize(
    ("depth", "edges", "fewest"),
    [(3, Edges(), (4, 4)), (3, Edges.uniform("reflect"), (4, 5)), (5, Edges(), (12, 16))],
)
def test_a_grid_too_small_for_its_depth_is_refused_with_the_smallest_that_is_not(depth, edges, fewest):
    with pytest.raises(ModelError, match=f"too small.*it takes at least {fewest[0]} by {fewest[1]}\\."):
        SphereGrid((3, 3), depth, edges=edges)
    grid = SphereGrid(fewest, depth, edges=edges)
    haloed = grid.halo(0).pad(grid.pad(torch.ones(1, 1, *fewest)))
    assert haloed.shape[-2:] == tuple(n + 2 for n in grid.padded_shape)
    for smaller in ((fewest[0] - 1, fewest[1]), (fewest[0], fewest[1] - 1)):
        with pytest.raises(ModelError, match="too small"):
            SphereGrid(smaller, depth, edges=edges)
