from __future__ import annotations

import numpy as np
import pytest

from weathermill.esmf import bilinear
from weathermill.esmf.meshing import point_mesh
from weathermill.esmf.sphere import unit_vectors


def _mesh(lon, lat, periodic=False, poles=False):
    grid = np.meshgrid(lon, lat)
    return point_mesh(unit_vectors(*grid), grid[0].shape, periodic=periodic, poles=poles)


def _locate(mesh, lon, lat, usable=None):
    points = unit_vectors(lon, lat)
    usable = np.ones(len(mesh.elements), dtype=bool) if usable is None else usable
    return bilinear.locate_points(points, np.ones(len(points), dtype=bool), mesh, usable)


def test_the_interpolated_position_lies_under_the_point():
    rng = np.random.default_rng(0)
    lon = np.sort(rng.uniform(-60, 60, 12))
    mesh = _mesh(lon, np.sort(rng.uniform(-70, 70, 9)))
    target = rng.uniform(-20, 20, 200), rng.uniform(-20, 20, 200)
    owner, weights = _locate(mesh, *target)
    found = owner >= 0
    assert found.any()
    assert (weights[found] >= -1e-9).all()
    np.testing.assert_allclose(weights[found].sum(axis=1), 1.0, atol=1e-13)
    position = (weights[found, :, None] * mesh.nodes[mesh.elements[owner[found]]]).sum(axis=1)
    position /= np.linalg.norm(position, axis=1, keepdims=True)
    np.testing.assert_allclose(position, unit_vectors(*target)[found], atol=1e-13)


def test_points_on_corners_take_the_lowest_element():
    mesh = _mesh([0, 10, 20], [0, 10, 20])
    owner, weights = _locate(mesh, [10.0, 0.0, 20.0], [10.0, 0.0, 20.0])
    assert owner.tolist() == [0, 0, 3]
    np.testing.assert_allclose(weights, [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]], atol=1e-12)


def test_points_outside_have_no_element():
    owner, _ = _locate(_mesh([0, 10, 20], [0, 10, 20]), [-5.0, 190.0, 10.0], [5.0, -10.0, -80.0])
    assert owner.tolist() == [-1, -1, -1]


def test_the_far_side_of_the_sphere_is_not_mistaken():
    mesh = _mesh([0, 120, 240], [-30, 60], periodic=True)
    owner, _ = _locate(mesh, [60.0], [10.0])
    assert owner[0] == 0


def test_poles_are_closed_by_the_mean_of_the_row():
    mesh = _mesh(np.arange(0, 360, 30), [-60, 0, 60], periodic=True, poles=True)
    owner, corner_weights = _locate(mesh, [17.0], [90.0])
    row, col, weight = bilinear.element_weights(owner, corner_weights, mesh)
    row, col, weight = bilinear.spread_poles(row, col, weight, mesh)
    total = np.bincount(col, weights=weight, minlength=36)
    np.testing.assert_allclose(total[24:], 1 / 12, atol=1e-14)
    assert not total[:24].any()


def test_masked_points_share_no_part_of_the_pole():
    mesh = _mesh(np.arange(0, 360, 30), [-60, 0, 60], periodic=True, poles=True)
    mask = np.zeros(36, dtype=bool)
    mask[24:27] = True
    usable = bilinear.usable_elements(mesh, mask)
    owner, corner_weights = _locate(mesh, [200.0], [88.0], usable)
    _, col, weight = bilinear.spread_poles(*bilinear.element_weights(owner, corner_weights, mesh), mesh, mask)
    assert weight.sum() == pytest.approx(1.0)
    assert not np.isin(col, [24, 25, 26]).any()


def test_only_periodic_grids_are_closed():
    assert len(_mesh([0, 10, 20], [50, 60], poles=True).poles) == 0
    assert len(_mesh(np.arange(0, 360, 30), [-90, 0, 60], periodic=True, poles=True).poles) == 1


def test_elements_with_a_masked_corner_are_not_used():
    mesh = _mesh([0, 10, 20], [0, 10, 20])
    mask = np.zeros(9, dtype=bool)
    mask[0] = True
    usable = bilinear.usable_elements(mesh, mask)
    assert usable.tolist() == [False, True, True, True]
    owner, _ = _locate(mesh, [5.0, 10.0], [5.0, 10.0], usable)
    assert owner.tolist() == [-1, 1]


def test_cells_that_narrow_to_a_point_are_searched():
    mesh = _mesh(np.arange(0, 360, 30), [60, 90], periodic=True)
    owner, weights = _locate(mesh, [45.0], [80.0])
    assert owner[0] == 1
    assert weights[0].sum() == pytest.approx(1.0)
    assert (weights[0] >= 0).all()
