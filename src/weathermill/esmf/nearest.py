"""Nearest-neighbour weights and extrapolation by distance."""

from __future__ import annotations

import numpy as np
from numba import njit

from weathermill.esmf import search
from weathermill.esmf.search import LEAF_SIZE, STACK_SIZE, build_tree, point_boxes

_CALLED = search.source_fingerprint(search)


@njit(cache=True)
def _box_distance(box, p):
    total = 0.0
    for axis in range(3):
        gap = max(box[axis] - p[axis], p[axis] - box[axis + 3])
        if gap > 0.0:
            total += gap * gap
    return total


@njit(cache=True)
def nearest_points(targets, active, points, count, boxes, order, called=_CALLED):
    """Find the nearest points of each target.

    Parameters
    ----------
    targets : numpy.ndarray
        float64, shape ``(n, 3)``.
    active : numpy.ndarray
        bool, shape ``(n,)``: targets that are searched for.
    points : numpy.ndarray
        float64, shape ``(m, 3)``, what is searched.
    count : int
        How many neighbours to find.
    boxes, order : numpy.ndarray
        Fields of the tree over `points`.
    called : int, optional
        Never given: see `weathermill.esmf.search.source_fingerprint`.

    Returns
    -------
    neighbours : numpy.ndarray
        int64, shape ``(n, count)``, nearest first, the lower index first where equally far; -1 where
        there are fewer.
    distances : numpy.ndarray
        float64, shape ``(n, count)``: squared chord lengths.
    """
    n = targets.shape[0]
    m = points.shape[0]
    first_leaf = boxes.shape[0] // 2
    neighbours = np.full((n, count), -1, np.int64)
    distances = np.full((n, count), np.inf)
    stack = np.empty(STACK_SIZE, np.int64)
    for k in range(n):
        if not active[k]:
            continue
        p = targets[k]
        depth = 1
        stack[0] = 0
        while depth > 0:
            depth -= 1
            node = stack[depth]
            if _box_distance(boxes[node], p) > distances[k, count - 1]:
                continue
            if node < first_leaf:
                left = 2 * node + 1
                right = 2 * node + 2
                # The nearer child is looked at first: it is pushed last.
                if _box_distance(boxes[left], p) < _box_distance(boxes[right], p):
                    left, right = right, left
                stack[depth] = left
                stack[depth + 1] = right
                depth += 2
                continue
            start = (node - first_leaf) * LEAF_SIZE
            for position in range(start, min(start + LEAF_SIZE, m)):
                point = order[position]
                distance = 0.0
                for axis in range(3):
                    gap = points[point, axis] - p[axis]
                    distance += gap * gap
                place = count
                while place > 0:
                    other = distances[k, place - 1]
                    closer = distance < other
                    # As ESMF, distances are compared to the last bit.
                    tied = distance == other and point < neighbours[k, place - 1]
                    if not (closer or tied or neighbours[k, place - 1] < 0):
                        break
                    place -= 1
                if place == count:
                    continue
                for later in range(count - 1, place, -1):
                    distances[k, later] = distances[k, later - 1]
                    neighbours[k, later] = neighbours[k, later - 1]
                distances[k, place] = distance
                neighbours[k, place] = point
    return neighbours, distances


def find_nearest(targets, active, points, usable, count=1):
    """Find the nearest usable points of each target; see `nearest_points`.

    Parameters
    ----------
    targets, points : numpy.ndarray
        float64, shape ``(n, 3)`` and ``(m, 3)``.
    active, usable : numpy.ndarray or None
        bool: targets to search for and points to search in; None for all.
    count : int, optional
        How many neighbours.

    Returns
    -------
    neighbours, distances : numpy.ndarray
        Indices into `points`, and squared chord lengths.
    """
    if active is None:
        active = np.ones(len(targets), dtype=bool)
    chosen = np.arange(len(points)) if usable is None else np.flatnonzero(usable)
    if len(chosen) == 0:
        return np.full((len(targets), count), -1), np.full((len(targets), count), np.inf)
    subset = np.ascontiguousarray(points[chosen])
    tree = build_tree(point_boxes(subset))
    neighbours, distances = nearest_points(targets, active, subset, count, tree.boxes, tree.order)
    return np.where(neighbours >= 0, chosen[neighbours], -1), distances


def nearest_source_weights(sources, targets, source_mask=None, target_mask=None):
    """Give each target the value of its nearest source.

    Parameters
    ----------
    sources, targets : numpy.ndarray
        float64, shape ``(m, 3)`` and ``(n, 3)``.
    source_mask, target_mask : numpy.ndarray or None
        bool, true where masked: such points take no part.

    Returns
    -------
    row, col, weight : numpy.ndarray
        From 0; weights are one.
    """
    neighbours, _ = find_nearest(
        targets,
        None if target_mask is None else ~target_mask,
        sources,
        None if source_mask is None else ~source_mask,
    )
    row = np.flatnonzero(neighbours[:, 0] >= 0)
    return row, neighbours[row, 0], np.ones(len(row))


def nearest_target_weights(sources, targets, source_mask=None, target_mask=None):
    """Hand each source to its nearest target, which sums what it gets.

    Parameters and returns as `nearest_source_weights`.
    """
    col, row, weight = nearest_source_weights(targets, sources, target_mask, source_mask)
    return row, col, weight


def inverse_distance_weights(sources, targets, active, source_mask=None, *, count=8, exponent=2.0):
    """Weights of the nearest sources by a power of the inverse distance.

    Parameters
    ----------
    sources, targets : numpy.ndarray
        float64, shape ``(m, 3)`` and ``(n, 3)``.
    active : numpy.ndarray
        bool, shape ``(n,)``: the targets that want weights.
    source_mask : numpy.ndarray or None
        bool, true where masked.
    count : int, optional
        How many sources each target takes.
    exponent : float, optional
        The power.

    Returns
    -------
    row, col, weight : numpy.ndarray
        From 0; the weights of a target sum to one. A source at no distance takes all.
    """
    neighbours, squared = find_nearest(
        targets, active, sources, None if source_mask is None else ~source_mask, count
    )
    row = np.flatnonzero(neighbours[:, 0] >= 0)
    neighbours = neighbours[row]
    squared = squared[row]
    present = neighbours >= 0
    with np.errstate(divide="ignore"):
        weight = np.where(present, squared ** (-0.5 * exponent), 0.0)
    hit = squared[:, 0] == 0.0
    weight[hit] = 0.0
    weight[hit, 0] = 1.0
    weight /= weight.sum(axis=1, keepdims=True)
    row = np.broadcast_to(row[:, None], neighbours.shape)[present]
    return row, neighbours[present], weight[present]
