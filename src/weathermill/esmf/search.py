"""Spatial search: a bounding-box tree over elements or points on the sphere.

The tree is a complete binary tree over the elements in Morton order; node ``k`` has the children ``2k + 1``
and ``2k + 2``. Boxes are float32, rounded outwards, so that a tree over a million cells takes 30 MB.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numba import njit

LEAF_SIZE = 4
STACK_SIZE = 128
_MARGIN = np.float32(3e-7)


def source_fingerprint(*files: str | ModuleType) -> int:
    """Checksum of source files, for kernels that call kernels of other modules.

    Numba keeps compiled kernels until their own file changes, whatever becomes of those they call; but the
    default of an argument is part of the type they are kept under, so one that changes with the other files
    makes them anew.

    Parameters
    ----------
    files : str or module
        Paths, or modules.

    Returns
    -------
    int
    """
    checksum = 0
    for file in files:
        path = Path(file if isinstance(file, str) else file.__file__)
        checksum = zlib.crc32(path.read_bytes() if path.is_file() else b"", checksum)
    return checksum


class Tree(NamedTuple):
    """A bounding-box tree; the fields are what the compiled kernels take."""

    boxes: np.ndarray
    """float32, shape (n_nodes, 6): lower then upper corner of each node's box."""
    items: np.ndarray
    """float32, shape (n, 6): the boxes of the elements in tree order."""
    order: np.ndarray
    """int64, shape (n,): element at each position in tree order."""


@njit(cache=True)
def _morton_codes(boxes):
    n = boxes.shape[0]
    codes = np.empty(n, np.int64)
    for k in range(n):
        code = 0
        for axis in range(3):
            centre = 0.5 * (np.float64(boxes[k, axis]) + np.float64(boxes[k, axis + 3]))
            cell = np.int64((centre + 1.0) * 0.5 * 32767.0)
            cell = min(max(cell, 0), 32767)
            cell = (cell | (cell << 16)) & 0x0000FF0000FF
            cell = (cell | (cell << 8)) & 0x00F00F00F00F
            cell = (cell | (cell << 4)) & 0x0C30C30C30C3
            cell = (cell | (cell << 2)) & 0x249249249249
            code |= cell << axis
        codes[k] = code
    return codes


@njit(cache=True)
def _fill_nodes(items, n_leaves):
    nodes = np.empty((2 * n_leaves - 1, 6), np.float32)
    n = items.shape[0]
    for leaf in range(n_leaves):
        node = n_leaves - 1 + leaf
        for axis in range(3):
            nodes[node, axis] = np.float32(np.inf)
            nodes[node, axis + 3] = np.float32(-np.inf)
        for k in range(leaf * LEAF_SIZE, min((leaf + 1) * LEAF_SIZE, n)):
            for axis in range(3):
                nodes[node, axis] = min(nodes[node, axis], items[k, axis])
                nodes[node, axis + 3] = max(nodes[node, axis + 3], items[k, axis + 3])
    for node in range(n_leaves - 2, -1, -1):
        for axis in range(3):
            nodes[node, axis] = min(nodes[2 * node + 1, axis], nodes[2 * node + 2, axis])
            nodes[node, axis + 3] = max(nodes[2 * node + 1, axis + 3], nodes[2 * node + 2, axis + 3])
    return nodes


def build_tree(boxes: np.ndarray) -> Tree:
    """Build a tree over boxes.

    Parameters
    ----------
    boxes : numpy.ndarray
        float32, shape ``(n, 6)``: lower and upper corners, as `element_boxes` and `point_boxes` make them.

    Returns
    -------
    Tree
    """
    order = np.argsort(_morton_codes(boxes), kind="stable")
    items = boxes[order]
    n_leaves = 1
    while n_leaves * LEAF_SIZE < len(boxes):
        n_leaves *= 2
    return Tree(_fill_nodes(items, n_leaves), items, order)


def point_boxes(points: np.ndarray) -> np.ndarray:
    """Boxes of points: float32, shape ``(n, 6)``."""
    return np.hstack([points.astype(np.float32) - _MARGIN, points.astype(np.float32) + _MARGIN])


@njit(cache=True)
def element_boxes(nodes, elements):
    """Boxes around the spherical polygons that elements span.

    Parameters
    ----------
    nodes : numpy.ndarray
        float64, shape ``(n_nodes, 3)``, on the unit sphere.
    elements : numpy.ndarray
        Integers, shape ``(n, n_corners)``; -1 fills the rows of elements with fewer corners.

    Returns
    -------
    numpy.ndarray
        float32, shape ``(n, 6)``.

    Notes
    -----
    A point of the polygon is a point of the corners' convex hull, pushed out to the sphere by at most
    ``1 - cos(radius)``, where ``radius`` is that of a cap which holds all corners.
    """
    n, n_corners = elements.shape
    boxes = np.empty((n, 6), np.float32)
    for k in range(n):
        count = 0
        centre = np.zeros(3)
        low = np.full(3, np.inf)
        high = np.full(3, -np.inf)
        for c in range(n_corners):
            node = elements[k, c]
            if node < 0:
                break
            count += 1
            for axis in range(3):
                x = nodes[node, axis]
                centre[axis] += x
                low[axis] = min(low[axis], x)
                high[axis] = max(high[axis], x)
        norm = np.sqrt(centre[0] ** 2 + centre[1] ** 2 + centre[2] ** 2)
        cosine = 1.0
        for c in range(count):
            node = elements[k, c]
            dot = centre[0] * nodes[node, 0] + centre[1] * nodes[node, 1] + centre[2] * nodes[node, 2]
            cosine = min(cosine, dot / norm if norm > 0.0 else -1.0)
        bulge = 2.0 if cosine <= 0.0 else 1.0 - cosine
        for axis in range(3):
            boxes[k, axis] = np.float32(low[axis] - bulge) - _MARGIN
            boxes[k, axis + 3] = np.float32(high[axis] + bulge) + _MARGIN
    return boxes


@njit(cache=True)
def find_overlaps(boxes, items, order, box, found, stack):
    """Find the elements whose boxes overlap a box.

    Parameters
    ----------
    boxes, items, order : numpy.ndarray
        The fields of a `Tree`.
    box : numpy.ndarray
        Shape ``(6,)``: lower and upper corner.
    found : numpy.ndarray
        int64, at least as long as the number of elements; receives the elements, in tree order.
    stack : numpy.ndarray
        int64 scratch of `STACK_SIZE`.

    Returns
    -------
    int
        How many were found.
    """
    first_leaf = boxes.shape[0] // 2
    n = order.shape[0]
    count = 0
    depth = 1
    stack[0] = 0
    while depth > 0:
        depth -= 1
        node = stack[depth]
        if (
            boxes[node, 0] > box[3]
            or boxes[node, 3] < box[0]
            or boxes[node, 1] > box[4]
            or boxes[node, 4] < box[1]
            or boxes[node, 2] > box[5]
            or boxes[node, 5] < box[2]
        ):
            continue
        if node < first_leaf:
            stack[depth] = 2 * node + 1
            stack[depth + 1] = 2 * node + 2
            depth += 2
            continue
        start = (node - first_leaf) * LEAF_SIZE
        for k in range(start, min(start + LEAF_SIZE, n)):
            if (
                items[k, 0] <= box[3]
                and items[k, 3] >= box[0]
                and items[k, 1] <= box[4]
                and items[k, 4] >= box[1]
                and items[k, 2] <= box[5]
                and items[k, 5] >= box[2]
            ):
                found[count] = order[k]
                count += 1
    return count
