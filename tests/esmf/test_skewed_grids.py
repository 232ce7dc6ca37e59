"""Grids as bad as they come: jittered, rotated, with concave cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from weathermill.esmf import bilinear, conservative
from weathermill.esmf.meshing import grid_quads, point_mesh
from weathermill.esmf.sphere import unit_vectors


def _jittered(rng, n, size, jitter):
    """A square of n by n points, moved about and turned to a random place."""
    x, y = np.meshgrid(np.linspace(-size, size, n), np.linspace(-size, size, n))
    step = 2 * size / (n - 1)
    x, y = (v + rng.uniform(-jitter, jitter, x.shape) * step for v in (x, y))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn[:, 0] *= np.sign(np.linalg.det(turn))
    return unit_vectors(x, y) @ turn, turn


@pytest.mark.parametrize("size", [1e-3, 1.0, 20.0, 70.0])
@pytest.mark.parametrize("seed", range(8))
def test_every_point_inside_is_found_and_interpolated(size, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 30))
    nodes, turn = _jittered(rng, n, size, rng.uniform(0.0, 0.45))
    mesh = point_mesh(nodes, (n, n), periodic=False, poles=False)
    inner = size - 1.2 * size / (n - 1)
    points = unit_vectors(*rng.uniform(-inner, inner, (2, 200))) @ turn
    everywhere = np.ones(200, dtype=bool)
    owner, weights = bilinear.locate_points(points, everywhere, mesh, np.ones(len(mesh.elements), dtype=bool))
    assert (owner >= 0).all()
    assert weights.min() > -1e-9
    position = (weights[:, :, None] * nodes[mesh.elements[owner]]).sum(axis=1)
    position /= np.linalg.norm(position, axis=1, keepdims=True)
    np.testing.assert_allclose(position, points, rtol=0.0, atol=1e-12)


def _overlaps(source, target):
    row, col, weight = conservative.conservative_weights(source, target)
    areas = np.bincount(target.cells, weights=target.areas, minlength=target.n_cells)
    return sparse.coo_matrix((weight * areas[row], (row, col)), (target.n_cells, source.n_cells)).toarray()


@pytest.mark.parametrize("size", [0.5, 5.0, 30.0, 60.0])
@pytest.mark.parametrize("seed", range(8))
def test_overlaps_with_a_whole_sphere_add_up_to_each_cell(size, seed):
    rng = np.random.default_rng(seed)
    n, rows, columns = (int(k) for k in (rng.integers(3, 14), rng.integers(3, 20), rng.integers(5, 40)))
    nodes, _ = _jittered(rng, n, size, rng.uniform(0.0, 0.45))
    patch = nodes, grid_quads(n, n, periodic=False)
    lon = (np.arange(columns) + rng.uniform(0, 0.3, columns)) * 360 / columns
    lat = np.concatenate([[-90], np.sort(rng.uniform(-85, 85, rows)), [90]])
    corners = np.meshgrid(np.append(lon, lon[0] + 360), lat)
    globe = unit_vectors(*corners), grid_quads(columns + 1, rows + 2, periodic=False)
    from_patch = _overlaps(conservative.cell_mesh(*patch, split=True), conservative.cell_mesh(*globe))
    to_patch = _overlaps(conservative.cell_mesh(*globe, split=True), conservative.cell_mesh(*patch))
    cells = conservative.cell_mesh(*patch)
    np.testing.assert_allclose(from_patch.sum(axis=0), cells.areas, rtol=1e-11)
    np.testing.assert_allclose(to_patch.sum(axis=1), cells.areas, rtol=1e-11)
    np.testing.assert_allclose(from_patch, to_patch.T, rtol=0.0, atol=1e-12 * cells.areas.max())
