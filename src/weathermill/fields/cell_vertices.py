"""Vertices of curvilinear cells: which of them lies at which corner of the grid, and the areas between them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from itertools import permutations

import numpy as np

from weathermill.errors import GridError

#: Vertices of neighbours count as one where they lie nearer than this share of the smaller cell's extent.
TOLERANCE = 0.05

# Corners of a cell in row j and column i of the grid: (j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i).
_LEFT, _RIGHT, _LOWER, _UPPER = (0, 3), (1, 2), (0, 1), (3, 2)

# Orders that go round the cell come first, that of the file before all.
_ORDERS = sorted(
    permutations(range(4)), key=lambda p: (abs(p[0] - p[2]) != 2 or abs(p[1] - p[3]) != 2, p != (0, 1, 2, 3))
)

_REMEDY = "Correct the vertices in the file, or use a method that needs none: bilinear, patch, nearest_s2d."


# Digests of vertices that are in the order of the corners and were found to be right: grids come back from stores, and
# looking at a million cells again takes seconds.
_proven: OrderedDict[bytes, None] = OrderedDict()


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return (..., 3) points on the unit sphere, float64, of latitudes and longitudes in degrees."""
    phi, lam = (np.radians(np.asarray(a, dtype=np.float64)) for a in (latitude, longitude))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def corners_of_vertices(
    latitude: np.ndarray, longitude: np.ndarray, centres: tuple[np.ndarray, np.ndarray], *, where: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a curvilinear grid from the vertices of its cells.

    CF fixes neither which vertex of a cell comes first nor whether rows run north or south, so that the order is
    found from the vertices that neighbours share: one order for all cells if that fits, else one for each cell.
    Vertices may coincide (at a pole), and longitudes may differ by full turns.

    Parameters
    ----------
    latitude, longitude
        (n, m, 4) degrees: the vertices of each cell, in any order.
    centres
        Latitudes and longitudes of the cells, (n, m) degrees.
    where
        The grid's name, for messages.

    Returns
    -------
    tuple of numpy.ndarray
        Latitudes, within -90 and 90, and longitudes, (n + 1, m + 1) float64 degrees.

    Raises
    ------
    GridError
        Where cells have another number of vertices than four, vertices are missing, neighbours do not share theirs,
        or cells do not enclose their centres.
    """
    latitude, longitude = (np.asarray(a, dtype=np.float64) for a in (latitude, longitude))
    shape = centres[0].shape
    if _digest(latitude, longitude, *centres) in _proven:
        return _joined(latitude), _joined(longitude)
    if latitude.shape != (*shape, 4) or longitude.shape != (*shape, 4):
        raise GridError(
            f"cells of a grid of {shape[0]} x {shape[1]} points need four vertices each; there are latitudes of the"
            f" shape {latitude.shape} and longitudes of the shape {longitude.shape}",
            where=where,
            remedy=_REMEDY,
        )
    missing = ~(np.isfinite(latitude) & np.isfinite(longitude)).all(axis=-1)
    beyond = np.abs(latitude).max(axis=-1) > 90.0 + 1e-3
    for bad, what in ((missing, "have vertices without a value"), (beyond, "have vertices beyond the poles")):
        if bad.any():
            raise GridError(f"{bad.sum()} cells {what}, {_first(bad)}", where=where, remedy=_REMEDY)
    latitude = np.clip(latitude, -90.0, 90.0)
    points = unit_vectors(latitude, longitude)
    extent = np.zeros(shape)
    for a in range(4):
        for b in range(a):
            extent = np.maximum(extent, _distance(points[..., a, :], points[..., b, :]))
    order = _common_order(points, extent)
    if order is None:
        order = _order_by_cell(points)
        points = np.take_along_axis(points, order[..., None], axis=2)
        apart = _apart(points, extent)
        if apart.any():
            raise GridError(
                f"vertices of {apart.sum()} cells lie apart from those of their neighbours, {_first(apart)}; so it is not"
                " known which vertex lies at which corner",
                where=where,
                remedy=_REMEDY,
            )
        latitude, longitude = (np.take_along_axis(a, order, axis=2) for a in (latitude, longitude))
    elif order != (0, 1, 2, 3):
        latitude, longitude, points = (a[:, :, list(order)] for a in (latitude, longitude, points))
    outside = _beyond_an_edge(points, unit_vectors(*centres))
    # A few cells of an ocean grid may be so bent that their centre lies beyond the line of an edge.
    if outside.mean() > 0.01:
        raise GridError(
            f"{outside.sum()} cells do not enclose their centres, {_first(outside)}: the vertices belong to other cells",
            where=where,
            remedy=_REMEDY,
        )
    corners = _joined(latitude), _joined(longitude)
    _proven[_digest(*map(vertices_of_corners, corners), *centres)] = None
    while len(_proven) > 16:
        _proven.popitem(last=False)
    return corners


def vertices_of_corners(corners: np.ndarray) -> np.ndarray:
    """Return (n, m, 4) vertices that go round each cell, of (n + 1, m + 1) corners."""
    return np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=-1)


def curvilinear_areas(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    r"""Return the areas of cells between great circles, on the unit sphere.

    Each cell is two triangles, whose spherical excess is
    :math:`\tan(E/2) = a\cdot(b\times c) / (1 + a\cdot b + b\cdot c + c\cdot a)` (Van Oosterom and Strackee, 1983).

    Parameters
    ----------
    latitude, longitude
        (n + 1, m + 1) corners in degrees.

    Returns
    -------
    numpy.ndarray
        (n, m) float64 steradians.
    """
    points = unit_vectors(latitude, longitude)
    a, b, c, d = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    return np.abs(_excess(a, b, c) + _excess(a, c, d))


def repeated_cells(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return which cells lie where an earlier one lies, such as the halo of an ocean grid.

    Parameters
    ----------
    latitude, longitude
        (n + 1, m + 1) corners in degrees.

    Returns
    -------
    numpy.ndarray
        (n, m) bool; of cells with one middle, to a hundredth of their width, the first is not marked.
    """
    from scipy.spatial import cKDTree

    points = unit_vectors(latitude, longitude)
    across = 0.5 * (points[:-1] + points[1:])
    along = 0.5 * (points[:, :-1] + points[:, 1:])
    middle = 0.5 * (along[:-1] + along[1:]).reshape(-1, 3)
    width = np.minimum(_distance(across[:, 1:], across[:, :-1]), _distance(along[1:], along[:-1])).ravel()
    pairs = cKDTree(middle).query_pairs(0.01 * np.median(width), output_type="ndarray")
    near = _distance(middle[pairs[:, 0]], middle[pairs[:, 1]]) < 0.01 * width[pairs].min(axis=1)
    repeated = np.zeros(middle.shape[0], dtype=bool)
    repeated[pairs[near].max(axis=1)] = True
    return repeated.reshape(latitude.shape[0] - 1, latitude.shape[1] - 1)


def _digest(*arrays: np.ndarray) -> bytes:
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(repr(np.shape(array)).encode())
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return digest.digest()


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = a - b
    return np.sqrt(np.einsum("...k,...k->...", difference, difference))


def _excess(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    # Differences of corners keep the digits of small cells, which the triple product of the corners would lose.
    volume = np.einsum("...k,...k->...", a, np.cross(b - a, c - a))
    dots = [np.einsum("...k,...k->...", p, q) for p, q in ((a, b), (b, c), (c, a))]
    return 2.0 * np.arctan2(volume, 1.0 + dots[0] + dots[1] + dots[2])


def _first(bad: np.ndarray) -> str:
    row, column = np.argwhere(bad)[0]
    return f"the first in row {row} and column {column} (counted from 0)"


def _common_order(points: np.ndarray, extent: np.ndarray) -> tuple[int, ...] | None:
    """Return the order of vertices by which all neighbours share theirs, or None."""
    if not _apart(points, extent).any():
        return (0, 1, 2, 3)
    beside, above = np.empty((4, 4)), np.empty((4, 4))
    across = TOLERANCE * np.minimum(extent[:, :-1], extent[:, 1:])
    along = TOLERANCE * np.minimum(extent[:-1], extent[1:])
    for a in range(4):
        for b in range(4):
            beside[a, b] = np.max(_distance(points[:, :-1, a], points[:, 1:, b]) - across, initial=-1.0)
            above[a, b] = np.max(_distance(points[:-1, :, a], points[1:, :, b]) - along, initial=-1.0)
    for p in _ORDERS:
        gaps = (beside[p[1], p[0]], beside[p[2], p[3]], above[p[3], p[0]], above[p[2], p[1]])
        if max(gaps) <= 0.0:
            return p
    return None


def _order_by_cell(points: np.ndarray) -> np.ndarray:
    """Return for each cell, (n, m, 4), the order in which its vertices lie nearest to those of its neighbours."""
    n, m = points.shape[:2]
    nearest = {side: np.zeros((n, m, 4)) for side in (_LEFT, _RIGHT, _LOWER, _UPPER)}
    for low, high, first, second in (
        (_RIGHT, _LEFT, np.s_[:, :-1], np.s_[:, 1:]),
        (_UPPER, _LOWER, np.s_[:-1], np.s_[1:]),
    ):
        nearest[high][second] = np.inf
        for a in range(4):
            between = _distance(points[first][:, :, a, None], points[second])
            nearest[low][first][..., a] = between.min(axis=2)
            nearest[high][second] = np.minimum(nearest[high][second], between)
    best = np.full((n, m), np.inf)
    order = np.zeros((n, m, 4), dtype=np.intp)
    for p in _ORDERS:
        cost = sum(values[..., p[corner]] for side, values in nearest.items() for corner in side)
        better = cost < best - 1e-12
        best[better], order[better] = cost[better], p
    return order


def _apart(points: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Return which cells do not share their corners with the next row or column."""
    apart = np.zeros(extent.shape, dtype=bool)
    across = TOLERANCE * np.minimum(extent[:, :-1], extent[:, 1:])
    along = TOLERANCE * np.minimum(extent[:-1], extent[1:])
    for here, there in zip(_RIGHT, _LEFT, strict=True):
        apart[:, :-1] |= _distance(points[:, :-1, here], points[:, 1:, there]) > across
    for here, there in zip(_UPPER, _LOWER, strict=True):
        apart[:-1] |= _distance(points[:-1, :, here], points[1:, :, there]) > along
    return apart


def _beyond_an_edge(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return which centres lie beyond an edge of their cell by more than a quarter of the cell's width from there."""
    middle = points.mean(axis=2)
    normals = [np.cross(points[:, :, k], points[:, :, (k + 1) % 4] - points[:, :, k]) for k in range(4)]
    turn = np.sign(sum(np.einsum("...k,...k->...", normal, middle) for normal in normals))
    beyond = np.zeros(turn.shape, dtype=bool)
    for normal in normals:
        width = np.abs(np.einsum("ijk,ijvk->ijv", normal, points)).max(axis=2)
        beyond |= turn * np.einsum("...k,...k->...", normal, centres) < -0.25 * width - 1e-12
    return beyond


def _joined(vertices: np.ndarray) -> np.ndarray:
    """Return (n + 1, m + 1) corners of (n, m, 4) vertices that are in the order of the corners."""
    n, m, _ = vertices.shape
    corners = np.empty((n + 1, m + 1))
    corners[:-1, :-1] = vertices[:, :, 0]
    corners[:-1, -1] = vertices[:, -1, 1]
    corners[-1, -1] = vertices[-1, -1, 2]
    corners[-1, :-1] = vertices[-1, :, 3]
    return corners
