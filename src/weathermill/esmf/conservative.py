"""First-order conservative weights: areas of the overlaps of spherical polygons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from weathermill.esmf.polygons import gather_polygon, polygon_area, polygon_shapes, split_concave
from weathermill.esmf.search import STACK_SIZE, build_tree, element_boxes, find_overlaps

# A corner nearer than this to a side counts as on it: neighbours that share a side must not overlap by
# slivers of rounding.
ON_SIDE = 1e-14


class CellMesh(NamedTuple):
    """Convex spherical polygons and the cells they are parts of."""

    nodes: np.ndarray
    """float64, shape (n_nodes, 3)."""
    elements: np.ndarray
    """int64, shape (n_polygons, n_corners), -1 after the last corner."""
    cells: np.ndarray
    """int64, shape (n_polygons,): the cell each polygon belongs to."""
    areas: np.ndarray
    """float64, shape (n_cells,): steradians; 0 for cells that take no part."""


def cell_mesh(nodes, elements, mask=None, *, ignore_degenerate=False, what="grid") -> CellMesh:
    """Prepare cells: drop masked ones, check the others, split concave ones.

    Parameters
    ----------
    nodes, elements : numpy.ndarray
        Corners on the unit sphere, and the corners of each cell.
    mask : numpy.ndarray or None
        bool over cells, true where masked.
    ignore_degenerate : bool, optional
        Whether cells with fewer than three distinct corners are left out instead of refused.
    what : str, optional
        What the cells are of, for error messages.

    Returns
    -------
    CellMesh

    Raises
    ------
    ValueError
        If a cell is degenerate or crosses itself.
    """
    counts, areas, convex = polygon_shapes(nodes, elements)
    used = np.ones(len(elements), dtype=bool) if mask is None else ~mask
    degenerate = used & ((counts < 3) | (areas == 0.0))
    if degenerate.any():
        if not ignore_degenerate:
            bad = np.flatnonzero(degenerate)
            raise ValueError(
                f"{len(bad)} cell(s) of the {what} are degenerate: they have fewer than three distinct corners "
                f"or no area (the first is cell {bad[0]}, counted from 0); mask them, mend their corners, or "
                "pass ignore_degenerate=True to leave them out"
            )
        used &= ~degenerate
    areas = np.where(used, areas, 0.0)
    cells = np.flatnonzero(used & convex)
    concave = np.flatnonzero(used & ~convex)
    if len(concave) == 0:
        return CellMesh(nodes, elements if len(cells) == len(elements) else elements[cells], cells, areas)
    parts = [elements[cells]]
    owners = [cells]
    corners = np.empty((elements.shape[1], 3))
    for cell in concave:
        count = gather_polygon(nodes, elements, cell, corners)
        try:
            triangles = split_concave(corners[:count])
        except ValueError as error:
            raise ValueError(
                f"cell {cell} (counted from 0) of the {what} is no polygon: its sides cross; mend its corners"
            ) from error
        first = len(nodes)
        nodes = np.concatenate([nodes, corners[:count]])
        part = np.full((len(triangles), elements.shape[1]), -1, dtype=elements.dtype)
        part[:, :3] = first + np.array(triangles)
        parts.append(part)
        owners.append(np.full(len(triangles), cell))
    return CellMesh(nodes, np.concatenate(parts), np.concatenate(owners), areas)


@njit(cache=True)
def _clip(subject, n_subject, clip, normals, n_clip, scratch):
    """Cut a polygon by the sides of a convex one (Sutherland and Hodgman, 1974), in place.

    Returns
    -------
    int
        How many corners are left in `subject`.
    """
    for side in range(n_clip):
        kept = 0
        previous = n_subject - 1
        before = 0.0
        for axis in range(3):
            before += normals[side, axis] * (subject[previous, axis] - clip[side, axis])
        if abs(before) < ON_SIDE:
            before = 0.0
        for c in range(n_subject):
            here = 0.0
            for axis in range(3):
                here += normals[side, axis] * (subject[c, axis] - clip[side, axis])
            if abs(here) < ON_SIDE:
                here = 0.0
            if before * here < 0.0:
                t = before / (before - here)
                x = subject[previous, 0] + t * (subject[c, 0] - subject[previous, 0])
                y = subject[previous, 1] + t * (subject[c, 1] - subject[previous, 1])
                z = subject[previous, 2] + t * (subject[c, 2] - subject[previous, 2])
                norm = 1.0 / np.sqrt(x * x + y * y + z * z)
                scratch[kept, 0] = x * norm
                scratch[kept, 1] = y * norm
                scratch[kept, 2] = z * norm
                kept += 1
            if here >= 0.0:
                for axis in range(3):
                    scratch[kept, axis] = subject[c, axis]
                kept += 1
            previous = c
            before = here
        if kept < 3:
            return 0
        for c in range(kept):
            for axis in range(3):
                subject[c, axis] = scratch[c, axis]
        n_subject = kept
    return n_subject


@njit(cache=True)
def _side_normals(corners, count, normals):
    """Unit normals, pointing inwards, of the planes through the sides of a counter-clockwise polygon."""
    for c in range(count):
        d = (c + 1) % count
        u0 = corners[d, 0] - corners[c, 0]
        u1 = corners[d, 1] - corners[c, 1]
        u2 = corners[d, 2] - corners[c, 2]
        x = corners[c, 1] * u2 - corners[c, 2] * u1
        y = corners[c, 2] * u0 - corners[c, 0] * u2
        z = corners[c, 0] * u1 - corners[c, 1] * u0
        norm = 1.0 / np.sqrt(x * x + y * y + z * z)
        normals[c, 0] = x * norm
        normals[c, 1] = y * norm
        normals[c, 2] = z * norm


@njit(cache=True)
def overlap_areas(nodes, elements, target_nodes, target_elements, target_boxes, boxes, items, order):
    """Areas of the overlaps between convex polygons.

    Parameters
    ----------
    nodes, elements : numpy.ndarray
        The source polygons, over which the tree stands.
    target_nodes, target_elements, target_boxes : numpy.ndarray
        The destination polygons and their boxes.
    boxes, items, order : numpy.ndarray
        The tree.

    Returns
    -------
    row, col : numpy.ndarray
        int64: destination and source polygon, destinations ascending.
    area : numpy.ndarray
        float64, steradians, all positive.
    """
    n_sources, n_corners = elements.shape
    size = n_corners + target_elements.shape[1] + 2
    capacity = max(1024, 4 * max(n_sources, target_elements.shape[0]))
    row = np.empty(capacity, np.int64)
    col = np.empty(capacity, np.int64)
    area = np.empty(capacity)
    used = 0
    found = np.empty(n_sources, np.int64)
    stack = np.empty(STACK_SIZE, np.int64)
    target = np.empty((target_elements.shape[1], 3))
    normals = np.empty((target_elements.shape[1], 3))
    subject = np.empty((size, 3))
    scratch = np.empty((size, 3))
    for k in range(target_elements.shape[0]):
        n_target = gather_polygon(target_nodes, target_elements, k, target)
        _side_normals(target, n_target, normals)
        count = find_overlaps(boxes, items, order, target_boxes[k], found, stack)
        for candidate in range(count):
            source = found[candidate]
            n_subject = gather_polygon(nodes, elements, source, subject)
            # Most candidates lie wholly inside, or wholly beyond one side.
            inside = True
            beyond = False
            for side in range(n_target):
                highest = -1.0
                lowest = 1.0
                for c in range(n_subject):
                    distance = 0.0
                    for axis in range(3):
                        distance += normals[side, axis] * (subject[c, axis] - target[side, axis])
                    highest = max(highest, distance)
                    lowest = min(lowest, distance)
                if highest < ON_SIDE:
                    beyond = True
                    break
                if lowest < -ON_SIDE:
                    inside = False
            if beyond:
                continue
            if not inside:
                n_subject = _clip(subject, n_subject, target, normals, n_target, scratch)
                if n_subject < 3:
                    continue
            overlap = polygon_area(subject, n_subject)
            if overlap <= 0.0:
                continue
            if used == capacity:
                capacity *= 2
                row = _grown(row, capacity)
                col = _grown(col, capacity)
                area = _grown(area, capacity)
            row[used] = k
            col[used] = source
            area[used] = overlap
            used += 1
    return row[:used].copy(), col[:used].copy(), area[:used].copy()


@njit(cache=True)
def _grown(values, capacity):
    grown = np.empty(capacity, values.dtype)
    grown[: values.shape[0]] = values
    return grown


def conservative_weights(source: CellMesh, target: CellMesh, *, normalise: bool = False):
    """Make first-order conservative weights (Jones, 1999).

    Parameters
    ----------
    source, target : CellMesh
        Cells.
    normalise : bool, optional
        Whether a destination value is the mean over the part of the cell that sources cover, or the
        integral over it divided by the whole cell's area (the default).

    Returns
    -------
    row, col : numpy.ndarray
        int64, from 0: destination and source cell. Parts of one cell give several entries of one pair.
    weight : numpy.ndarray
        float64.
    """
    tree = build_tree(element_boxes(source.nodes, source.elements))
    row, col, area = overlap_areas(
        source.nodes,
        source.elements,
        target.nodes,
        target.elements,
        element_boxes(target.nodes, target.elements),
        *tree,
    )
    row = target.cells[row]
    col = source.cells[col]
    if normalise:
        covered = np.bincount(row, weights=area, minlength=len(target.areas))
    else:
        covered = target.areas
    return row, col, area / covered[row]
