from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from weathermill.esmf import nearest
from weathermill.esmf.sphere import unit_vectors


def _random_points(n, seed):
    points = np.random.default_rng(seed).normal(size=(n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("n", [1, 5, 300])
@pytest.mark.parametrize("count", [1, 4, 8])
def test_neighbours_are_those_of_another_search(n, count):
    sources, targets = _random_points(n, 0), _random_points(100, 1)
    neighbours, squared = nearest.find_nearest(targets, None, sources, None, count)
    distance, index = cKDTree(sources).query(targets, k=[k + 1 for k in range(count)])
    present = np.isfinite(distance)
    np.testing.assert_array_equal(neighbours[present], index[present])
    np.testing.assert_allclose(np.sqrt(squared[present]), distance[present], rtol=1e-12)
    assert (neighbours[~present] == -1).all()


def test_ties_go_to_the_lowest_index():
    pole = unit_vectors(np.arange(0, 360, 10), np.full(36, 90.0))
    sources = np.concatenate([unit_vectors([0.0], [0.0]), pole])
    row, col, weight = nearest.nearest_source_weights(sources, unit_vectors([123.0], [89.0]))
    assert (row.tolist(), col.tolist(), weight.tolist()) == ([0], [1], [1.0])


def test_masked_points_take_no_part():
    sources, targets = _random_points(50, 2), _random_points(20, 3)
    source_mask = np.arange(50) % 2 == 0
    target_mask = np.arange(20) < 5
    row, col, _ = nearest.nearest_source_weights(sources, targets, source_mask, target_mask)
    assert (col % 2 == 1).all()
    assert row.tolist() == list(range(5, 20))


def test_nothing_to_search_gives_nothing():
    row, col, weight = nearest.nearest_source_weights(
        _random_points(4, 0), _random_points(3, 1), np.ones(4, bool)
    )
    assert len(row) == len(col) == len(weight) == 0


def test_sources_go_to_their_nearest_target():
    sources, targets = _random_points(60, 4), _random_points(7, 5)
    row, col, weight = nearest.nearest_target_weights(sources, targets)
    assert np.array_equal(np.sort(col), np.arange(60))
    np.testing.assert_array_equal(row[np.argsort(col)], cKDTree(targets).query(sources)[1])
    assert (weight == 1.0).all()


@pytest.mark.parametrize(("count", "exponent"), [(1, 2.0), (3, 1.0), (8, 2.0)])
def test_inverse_distance(count, exponent):
    sources, targets = _random_points(40, 6), _random_points(10, 7)
    active = np.arange(10) % 3 == 0
    row, col, weight = nearest.inverse_distance_weights(
        sources, targets, active, count=count, exponent=exponent
    )
    assert np.array_equal(np.unique(row), np.flatnonzero(active))
    distance, index = cKDTree(sources).query(targets[0], k=list(range(1, count + 1)))
    expected = distance**-exponent / (distance**-exponent).sum()
    mine = dict(zip(col[row == 0], weight[row == 0], strict=True))
    np.testing.assert_allclose([mine[k] for k in index], expected, rtol=1e-12)


def test_a_source_at_no_distance_takes_all():
    sources = _random_points(10, 8)
    _, col, weight = nearest.inverse_distance_weights(sources, sources[4:5], np.array([True]), count=3)
    assert col[np.argmax(weight)] == 4
    assert sorted(weight) == [0.0, 0.0, 1.0]
