from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.esmf.polygons import (
    crosses_itself,
    polygon_area,
    split_concave,
    tidy_polygons,
    triangle_area,
)
from weathermill.esmf.sphere import unit_vectors


def _polygon(*lonlat):
    return unit_vectors(*np.array(lonlat, dtype=float).T)


def test_an_octant_is_an_eighth_of_the_sphere():
    octant = np.eye(3)
    assert triangle_area(*octant) == pytest.approx(np.pi / 2, rel=1e-15)
    assert triangle_area(*octant[::-1]) == pytest.approx(-np.pi / 2, rel=1e-15)


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_small_triangles_keep_their_digits(size):
    a, b, c = _polygon((0, 0), (np.rad2deg(size), 0), (0, np.rad2deg(size)))
    # The spherical excess of a right-angled triangle: tan(E/2) = tan(a/2) tan(b/2).
    exact = 2 * np.arctan(np.tan(size / 2) ** 2)
    assert triangle_area(a, b, c) == pytest.approx(exact, rel=1e-11)


@settings(max_examples=50, deadline=None)
@given(st.floats(-89, 88.9), st.floats(0.01, 50), st.floats(-180, 180), st.floats(0.01, 100))
def test_area_of_a_fine_polygon_is_that_of_the_zone(south, height, west, width):
    north = min(south + height, 89.9)
    lon = np.linspace(west, west + width, 400)
    corners = unit_vectors(
        np.concatenate([lon, lon[::-1]]), np.concatenate([np.full(400, south), np.full(400, north)])
    )
    exact = np.deg2rad(width) * (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south)))
    step = np.deg2rad(width / 400)
    assert polygon_area(corners, len(corners)) == pytest.approx(
        exact, rel=1e-6, abs=np.deg2rad(width) * step**2
    )


def test_tidying_drops_repeated_corners_and_turns_the_polygon():
    nodes = _polygon((0, 0), (0, 10), (10, 10), (10, 0), (10, 0))
    tidy, counts, areas, convex = tidy_polygons(nodes, np.array([[0, 1, 2, 3, 4, -1]]))
    assert counts.tolist() == [4]
    assert convex.tolist() == [True]
    assert polygon_area(nodes[tidy[0, :4]], 4) == pytest.approx(areas[0])
    assert (tidy[0, 4:] == -1).all()


def test_cells_at_the_pole_are_triangles():
    nodes = _polygon((0, 80), (30, 80), (30, 90), (0, 90))
    _, counts, areas, convex = tidy_polygons(nodes, np.array([[0, 1, 2, 3]]))
    assert counts.tolist() == [3]
    assert convex.all()
    assert areas[0] == pytest.approx(triangle_area(*nodes[:3]))


def test_degenerate_polygons_have_no_area():
    nodes = _polygon((0, 0), (10, 0), (20, 0))
    _, counts, areas, _ = tidy_polygons(nodes, np.array([[0, 1, 0, -1], [0, 1, 2, -1]]))
    assert counts.tolist() == [2, 3]
    assert areas.tolist() == [0.0, 0.0]


def test_concave_polygons_are_found_and_split():
    arrow = _polygon((0, 0), (10, 0), (10, 10), (8, 2))
    _, _, areas, convex = tidy_polygons(arrow, np.array([[0, 1, 2, 3]]))
    assert not convex[0]
    parts = split_concave(arrow)
    assert len(parts) == 2
    assert sum(triangle_area(*arrow[list(part)]) for part in parts) == pytest.approx(areas[0], rel=1e-12)


def test_splitting_leaves_out_corners_on_straight_sides():
    corners = _polygon((0, 0), (5, 0), (10, 0), (10, 10), (8, 2))
    parts = split_concave(corners)
    total = sum(triangle_area(*corners[list(part)]) for part in parts)
    assert total == pytest.approx(polygon_area(corners, 5), rel=1e-12)


def test_a_bow_tie_crosses_itself():
    assert crosses_itself(_polygon((0, 0), (10, 10), (10, 0), (0, 10)))
    assert not crosses_itself(_polygon((0, 0), (10, 0), (10, 10), (8, 2)))


def test_rounding_is_no_crossing():
    nearly = _polygon((0, 0), (10, 0), (10, 10), (5, 1e-6), (0, 10))
    assert not crosses_itself(nearly)
