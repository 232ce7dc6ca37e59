from __future__ import annotations

import numpy as np
import pytest

from weathermill.esmf import bilinear, patch
from weathermill.esmf.meshing import point_mesh
from weathermill.esmf.sphere import unit_vectors


def _weights(lon, lat, target, periodic=False, usable=None):
    grid = np.meshgrid(lon, lat)
    mesh = point_mesh(unit_vectors(*grid), grid[0].shape, periodic=periodic, poles=periodic)
    usable = np.ones(len(mesh.elements), dtype=bool) if usable is None else usable
    owner, corner_weights = bilinear.locate_points(target, np.ones(len(target), bool), mesh, usable)
    row, col, weight = patch.patch_weights(owner, corner_weights, mesh, usable)
    row, col, weight = bilinear.spread_poles(row, col, weight, mesh)
    matrix = np.zeros((len(target), len(grid[0].ravel())))
    np.add.at(matrix, (row, col), weight)
    return matrix, mesh.nodes[: matrix.shape[1]], corner_weights, owner, mesh


TARGET = unit_vectors(*np.random.default_rng(0).uniform(5, 35, (2, 60)))


def test_rows_sum_to_one_and_reach_beyond_the_element():
    matrix, *_ = _weights(np.arange(0, 45, 5), np.arange(0, 45, 5), TARGET)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-11)
    assert ((matrix != 0).sum(axis=1) >= 12).all()


def test_patch_is_smoother_than_bilinear():
    def function(p):
        return np.cos(6 * p[:, 0]) * p[:, 1] + np.sin(5 * p[:, 2])

    errors = {}
    for step in (5.0, 2.5):
        matrix, nodes, corner_weights, owner, mesh = _weights(
            np.arange(0, 41, step), np.arange(0, 41, step), TARGET
        )
        linear = (corner_weights * function(mesh.nodes)[mesh.elements[owner]]).sum(axis=1)
        truth = function(TARGET)
        errors[step] = (
            np.sqrt(np.mean((matrix @ function(nodes) - truth) ** 2)),
            np.sqrt(np.mean((linear - truth) ** 2)),
        )
    for by_patch, by_line in errors.values():
        assert by_patch < by_line


def test_a_point_is_not_an_element_of_masked_ones():
    n = 8
    usable = np.ones(n * n, dtype=bool)
    usable[:n] = False
    matrix, *_ = _weights(np.arange(0, 45, 5), np.arange(0, 45, 5), TARGET, usable=usable)
    # The first row of points touches unusable elements only.
    assert not matrix[:, : n + 1].any()


def test_over_the_poles_of_a_periodic_grid():
    target = unit_vectors([10.0, 100.0, 250.0], [88.0, -89.0, 90.0])
    matrix, *_ = _weights(np.arange(0, 360, 30), np.arange(-75, 76, 15), target, periodic=True)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-11)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2)])
def test_small_grids_have_enough_samples(shape):
    lat, lon = (np.linspace(0, 40, n) for n in shape)
    matrix, *_ = _weights(lon, lat, TARGET)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-10)


def test_chunks_do_not_matter(monkeypatch):
    whole, *_ = _weights(np.arange(0, 45, 5), np.arange(0, 45, 5), TARGET)
    monkeypatch.setattr(patch, "CHUNK", 7)
    chunked, *_ = _weights(np.arange(0, 45, 5), np.arange(0, 45, 5), TARGET)
    np.testing.assert_allclose(chunked, whole, rtol=0.0, atol=1e-14)
    nothing, *_ = _weights(np.arange(0, 45, 5), np.arange(0, 45, 5), unit_vectors([180.0], [0.0]))
    assert not nothing.any()
