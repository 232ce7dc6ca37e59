"""Spherical polygons with great-circle sides: area, orientation, convexity, splitting."""

from __future__ import annotations

import numpy as np
from numba import njit

# As ESMF: corners closer than this, in every coordinate, are one.
SAME_POINT = 1e-15


@njit(cache=True)
def triangle_area(a, b, c):
    """Signed area of a spherical triangle, positive counter-clockwise seen from outside, in steradians.

    tan(E/2) = a·(b×c) / (1 + a·b + b·c + c·a) (van Oosterom and Strackee, 1983), with the triple product
    taken from differences of the corners, so that small triangles keep their digits.
    """
    u0 = b[0] - a[0]
    u1 = b[1] - a[1]
    u2 = b[2] - a[2]
    v0 = c[0] - a[0]
    v1 = c[1] - a[1]
    v2 = c[2] - a[2]
    triple = a[0] * (u1 * v2 - u2 * v1) + a[1] * (u2 * v0 - u0 * v2) + a[2] * (u0 * v1 - u1 * v0)
    ab = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    bc = b[0] * c[0] + b[1] * c[1] + b[2] * c[2]
    ca = c[0] * a[0] + c[1] * a[1] + c[2] * a[2]
    return 2.0 * np.arctan2(triple, 1.0 + ab + bc + ca)


@njit(cache=True)
def polygon_area(corners, count):
    """Signed area of a spherical polygon, in steradians."""
    total = 0.0
    for k in range(1, count - 1):
        total += triangle_area(corners[0], corners[k], corners[k + 1])
    return total


@njit(cache=True)
def gather_polygon(nodes, elements, element, corners):
    """Copy the distinct corners of an element, counter-clockwise; how many there are."""
    count = 0
    for c in range(elements.shape[1]):
        node = elements[element, c]
        if node < 0:
            break
        if count > 0:
            same = True
            for axis in range(3):
                if abs(nodes[node, axis] - corners[count - 1, axis]) >= SAME_POINT:
                    same = False
            if same:
                continue
        for axis in range(3):
            corners[count, axis] = nodes[node, axis]
        count += 1
    while count > 1:
        same = True
        for axis in range(3):
            if abs(corners[count - 1, axis] - corners[0, axis]) >= SAME_POINT:
                same = False
        if not same:
            break
        count -= 1
    if count > 2 and polygon_area(corners, count) < 0.0:
        for c in range(count // 2):
            for axis in range(3):
                swap = corners[c, axis]
                corners[c, axis] = corners[count - 1 - c, axis]
                corners[count - 1 - c, axis] = swap
    return count


@njit(cache=True)
def turn(a, b, c):
    """Positive where the way a, b, c turns left on the sphere; in units of the product of the sides."""
    u0 = b[0] - a[0]
    u1 = b[1] - a[1]
    u2 = b[2] - a[2]
    v0 = c[0] - b[0]
    v1 = c[1] - b[1]
    v2 = c[2] - b[2]
    triple = b[0] * (u1 * v2 - u2 * v1) + b[1] * (u2 * v0 - u0 * v2) + b[2] * (u0 * v1 - u1 * v0)
    scale = np.sqrt((u0 * u0 + u1 * u1 + u2 * u2) * (v0 * v0 + v1 * v1 + v2 * v2))
    return triple / scale if scale > 0.0 else 0.0


@njit(cache=True)
def polygon_shapes(nodes, elements):
    """Count of distinct corners, area and convexity of each element.

    Parameters
    ----------
    nodes : numpy.ndarray
        float64, shape ``(n_nodes, 3)``.
    elements : numpy.ndarray
        int64, shape ``(n, n_corners)``, -1 after the last corner.

    Returns
    -------
    counts : numpy.ndarray
        int64, shape ``(n,)``.
    areas : numpy.ndarray
        float64, shape ``(n,)``, steradians.
    convex : numpy.ndarray
        bool, shape ``(n,)``.
    """
    n = elements.shape[0]
    counts = np.empty(n, np.int64)
    areas = np.zeros(n)
    convex = np.ones(n, np.bool_)
    corners = np.empty((elements.shape[1], 3))
    for element in range(n):
        count = gather_polygon(nodes, elements, element, corners)
        counts[element] = count
        if count < 3:
            continue
        areas[element] = abs(polygon_area(corners, count))
        for c in range(count):
            if turn(corners[c], corners[(c + 1) % count], corners[(c + 2) % count]) < -1e-12:
                convex[element] = False
    return counts, areas, convex


def split_concave(corners: np.ndarray) -> list[tuple[int, int, int]]:
    """Split a simple concave polygon into triangles by cutting off ears.

    Parameters
    ----------
    corners : numpy.ndarray
        float64, shape ``(n, 3)``, counter-clockwise.

    Returns
    -------
    list of tuple
        Indices of the corners of each triangle.

    Raises
    ------
    ValueError
        If the polygon crosses itself, so that no ear is left to cut.
    """
    left = list(range(len(corners)))
    triangles = []
    while len(left) > 3:
        for k in range(len(left)):
            a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
            if turn(corners[a], corners[b], corners[c]) <= 0.0:
                continue
            others = [corners[i] for i in left if i not in (a, b, c)]
            if any(_in_triangle(p, corners[a], corners[b], corners[c]) for p in others):
                continue
            triangles.append((a, b, c))
            del left[k]
            break
        else:
            raise ValueError("the polygon crosses itself")
    triangles.append(tuple(left))
    return triangles


def _in_triangle(p, a, b, c) -> bool:
    return all(np.dot(np.cross(u, v), p) > 0.0 for u, v in ((a, b), (b, c), (c, a)))
