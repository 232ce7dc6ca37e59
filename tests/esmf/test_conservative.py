from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.esmf.conservative import cell_mesh, conservative_weights
from weathermill.esmf.sphere import unit_vectors

# Near the equator and this small, the sphere is flat to the last digits compared.
SCALE = 1e-4


def _mesh(polygons, **options):
    longest = max(len(polygon) for polygon in polygons)
    elements = np.full((len(polygons), longest), -1, dtype=np.int64)
    nodes, count = [], 0
    for k, polygon in enumerate(polygons):
        elements[k, : len(polygon)] = count + np.arange(len(polygon))
        nodes.append(np.asarray(polygon, dtype=float) * SCALE)
        count += len(polygon)
    return cell_mesh(unit_vectors(*np.concatenate(nodes).T), elements, **options)


@st.composite
def stars(draw):
    """A simple polygon, mostly concave, around a random middle."""
    n = draw(st.integers(3, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    angle = (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * 2 * np.pi / n
    radius = rng.uniform(0.3, 1.0, n)
    middle = rng.uniform(-0.5, 0.5, 2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + middle


@settings(max_examples=80, deadline=None)
@given(stars(), stars())
def test_overlaps_are_those_of_plane_geometry(first, second):
    source, target = _mesh([first], split=True), _mesh([second])
    row, _, weight = conservative_weights(source, target)
    exact = shapely.Polygon(first).intersection(shapely.Polygon(second)).area / shapely.Polygon(second).area
    assert (row == 0).all()
    assert weight.sum() == pytest.approx(exact, abs=1e-7)


def test_normalised_weights_are_means_over_the_covered_part():
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    shifted = [(0.25, 0.5), (1.25, 0.5), (1.25, 1.5), (0.25, 1.5)]
    plain = conservative_weights(_mesh([square]), _mesh([shifted]))[2]
    normed = conservative_weights(_mesh([square]), _mesh([shifted]), normalise=True)[2]
    assert plain.sum() == pytest.approx(0.375, abs=1e-7)
    assert normed.sum() == pytest.approx(1.0, abs=1e-15)


def test_neighbours_that_share_a_side_do_not_overlap():
    cells = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for y in range(4) for x in range(4)]
    row, col, weight = conservative_weights(_mesh(cells), _mesh(cells))
    np.testing.assert_array_equal(row, col)
    np.testing.assert_allclose(weight, 1.0, rtol=1e-9)


def test_degenerate_cells_are_refused_by_number():
    with pytest.raises(ValueError, match=r"1 cell\(s\) of the source are degenerate.*cell 1"):
        _mesh([[(0, 0), (1, 0), (0, 1)], [(0, 0), (1, 1), (1, 1)]], what="source")


def test_degenerate_cells_are_left_out_when_asked_or_masked():
    cells = [[(0, 0), (1, 0), (0, 1)], [(0, 0), (1, 1), (1, 1)]]
    assert _mesh(cells, ignore_degenerate=True).cells.tolist() == [0]
    assert _mesh(cells, mask=np.array([False, True])).cells.tolist() == [0]


def test_cells_whose_sides_cross_are_refused():
    bow_tie = [(0, 0), (3000, 3000), (3000, 0), (0, 4000)]
    with pytest.raises(ValueError, match="sides cross"):
        _mesh([bow_tie])


def test_many_overlaps_grow_the_result():
    cells = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for y in range(40) for x in range(40)]
    slices = [[(0, y), (40, y), (40, y + 0.1), (0, y + 0.1)] for y in np.arange(0, 39, 0.37)]
    row, _, weight = conservative_weights(_mesh(cells), _mesh(slices))
    assert len(row) > 4000
    np.testing.assert_allclose(np.bincount(row, weights=weight), 1.0, rtol=1e-6)
