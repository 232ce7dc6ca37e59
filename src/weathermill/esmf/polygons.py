"""Spherical polygons with great-circle sides: area, orientation, convexity, splitting."""

from __future__ import annotations

import numpy as np
from numba import njit

# As ESMF: corners closer than this, in every coordinate, are one.
SAME_POINT = 1e-15
# A polygon whose area is smaller than this share of its perimeter squared is a line: what is left is rounding.
FLAT = 1e-14
# Sides that cross by less than this are the rounding of coordinates to float32, not a crossing.
CROSSING = 1e-6


@njit(cache=True, inline="always")
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
    """Signed area of a spherical polygon, in steradians; concave ones too."""
    total = 0.0
    for k in range(1, count - 1):
        total += triangle_area(corners[0], corners[k], corners[k + 1])
    return total


@njit(cache=True)
def turn(a, b, c):
    """Sine of the angle by which the way a, b, c turns left on the sphere."""
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
def _same(a, b):
    return abs(a[0] - b[0]) < SAME_POINT and abs(a[1] - b[1]) < SAME_POINT and abs(a[2] - b[2]) < SAME_POINT


@njit(cache=True)
def tidy_polygons(nodes, elements):
    """Leave out repeated corners, and turn all polygons counter-clockwise.

    Parameters
    ----------
    nodes : numpy.ndarray
        float64, shape ``(n_nodes, 3)``.
    elements : numpy.ndarray
        int64, shape ``(n, n_corners)``, -1 after the last corner.

    Returns
    -------
    tidy : numpy.ndarray
        int64, shape ``(n, n_corners)``.
    counts : numpy.ndarray
        int64, shape ``(n,)``: distinct corners.
    areas : numpy.ndarray
        float64, shape ``(n,)``, steradians, not negative; 0 with fewer than three corners, or all on a line.
    convex : numpy.ndarray
        bool, shape ``(n,)``.
    """
    n, n_corners = elements.shape
    tidy = np.full((n, n_corners), -1, np.int64)
    counts = np.zeros(n, np.int64)
    areas = np.zeros(n)
    convex = np.ones(n, np.bool_)
    corners = np.empty((n_corners, 3))
    for k in range(n):
        count = 0
        for c in range(n_corners):
            node = elements[k, c]
            if node < 0:
                break
            if count > 0 and _same(nodes[node], corners[count - 1]):
                continue
            corners[count] = nodes[node]
            tidy[k, count] = node
            count += 1
        while count > 1 and _same(corners[count - 1], corners[0]):
            count -= 1
            tidy[k, count] = -1
        counts[k] = count
        if count < 3:
            continue
        area = polygon_area(corners, count)
        if area < 0.0:
            tidy[k, :count] = tidy[k, :count][::-1].copy()
            corners[:count] = corners[:count][::-1].copy()
            area = -area
        perimeter = 0.0
        for c in range(count):
            a = corners[c]
            b = corners[(c + 1) % count]
            perimeter += np.sqrt((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2 + (b[2] - a[2]) ** 2)
        if area < FLAT * perimeter * perimeter:
            continue
        areas[k] = area
        for c in range(count):
            if turn(corners[c], corners[(c + 1) % count], corners[(c + 2) % count]) < -1e-12:
                convex[k] = False
                break
    return tidy, counts, areas, convex


@njit(cache=True)
def _beyond(a, b, p):
    """Distance of `p` to the left of the great circle from `a` to `b`."""
    u0 = b[0] - a[0]
    u1 = b[1] - a[1]
    u2 = b[2] - a[2]
    x = a[1] * u2 - a[2] * u1
    y = a[2] * u0 - a[0] * u2
    z = a[0] * u1 - a[1] * u0
    scale = np.sqrt(x * x + y * y + z * z)
    if scale == 0.0:
        return 0.0
    return (x * (p[0] - a[0]) + y * (p[1] - a[1]) + z * (p[2] - a[2])) / scale


@njit(cache=True)
def crosses_itself(corners):
    """Whether sides of a polygon cross one another by more than rounding.

    Parameters
    ----------
    corners : numpy.ndarray
        float64, shape ``(n, 3)``.

    Returns
    -------
    bool
    """
    n = corners.shape[0]
    for i in range(n):
        a = corners[i]
        b = corners[(i + 1) % n]
        for j in range(i + 2, n):
            if (j + 1) % n == i:
                continue
            c = corners[j]
            d = corners[(j + 1) % n]
            # Sides on opposite halves of the sphere don't meet, though their great circles do.
            if a[0] * c[0] + a[1] * c[1] + a[2] * c[2] < 0.0:
                continue
            first = _beyond(a, b, c)
            second = _beyond(a, b, d)
            if first * second >= 0.0 or min(abs(first), abs(second)) < CROSSING:
                continue
            first = _beyond(c, d, a)
            second = _beyond(c, d, b)
            if first * second < 0.0 and min(abs(first), abs(second)) >= CROSSING:
                return True
    return False


def split_concave(corners: np.ndarray) -> list[tuple[int, int, int]]:
    """Split a simple concave polygon into triangles by cutting off ears.

    Parameters
    ----------
    corners : numpy.ndarray
        float64, shape ``(n, 3)``, counter-clockwise.

    Returns
    -------
    list of tuple
        Indices of the corners of each triangle; corners on a straight side give none.

    Raises
    ------
    ValueError
        If the polygon crosses itself, so that no ear is left to cut.
    """
    left = list(range(len(corners)))
    triangles = []
    while len(left) > 3:
        turns = [
            turn(corners[left[k - 1]], corners[left[k]], corners[left[(k + 1) % len(left)]])
            for k in range(len(left))
        ]
        straight = next((k for k, sine in enumerate(turns) if abs(sine) < 1e-12), None)
        if straight is not None:
            del left[straight]
            continue
        for k, sine in enumerate(turns):
            a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
            others = (corners[i] for i in left if i not in (a, b, c))
            if sine > 0.0 and not any(_holds(corners[a], corners[b], corners[c], p) for p in others):
                triangles.append((a, b, c))
                del left[k]
                break
        else:
            raise ValueError("the polygon crosses itself")
    triangles.append(tuple(left))
    return triangles


def _holds(a, b, c, p) -> bool:
    """Whether a triangle holds a point, its sides left out."""
    return min(_beyond(a, b, p), _beyond(b, c, p), _beyond(c, a, p)) > 1e-14
