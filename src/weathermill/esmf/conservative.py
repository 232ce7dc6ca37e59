"""First-order conservative weights: areas of the overlaps of spherical polygons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from weathermill.esmf import polygons, search
from weathermill.esmf.polygons import crosses_itself, polygon_area, split_concave, tidy_polygons
from weathermill.esmf.search import STACK_SIZE, build_tree, element_boxes, find_overlaps

# A corner nearer than this to a side counts as on it: neighbours that share a side must not overlap by
# slivers of rounding.
ON_SIDE = 1e-14
_CALLED = search.source_fingerprint(polygons, search)


class CellMesh(NamedTuple):
    """Spherical polygons, counter-clockwise, and the cells they are parts of."""

    nodes: np.ndarray
    """float64, shape (n_nodes, 3)."""
    elements: np.ndarray
    """int64, shape (n_polygons, n_corners), -1 after the last corner."""
    counts: np.ndarray
    """int64, shape (n_polygons,): corners."""
    areas: np.ndarray
    """float64, shape (n_polygons,): steradians."""
    convex: np.ndarray
    """bool, shape (n_polygons,)."""
    cells: np.ndarray
    """int64, shape (n_polygons,): the cell each polygon belongs to."""
    n_cells: int


def cell_mesh(nodes, elements, mask=None, *, ignore_degenerate=False, split=False, what="grid") -> CellMesh:
    """Prepare cells: drop masked ones, check the others, and split concave ones where asked.

    Parameters
    ----------
    nodes, elements : numpy.ndarray
        Corners on the unit sphere, and the corners of each cell.
    mask : numpy.ndarray or None
        bool over cells, true where masked.
    ignore_degenerate : bool, optional
        Whether cells with fewer than three distinct corners are left out instead of refused.
    split : bool, optional
        Whether to split concave cells into triangles.
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
    tidy, counts, areas, convex = tidy_polygons(nodes, elements)
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
    for cell in np.flatnonzero(used & ~convex):
        if crosses_itself(nodes[tidy[cell, : counts[cell]]]):
            raise ValueError(
                f"cell {cell} (counted from 0) of the {what} is no polygon: its sides cross; mend its corners"
            )
    chosen = np.flatnonzero(used)
    if len(chosen) == len(elements):
        mesh = CellMesh(nodes, tidy, counts, areas, convex, chosen, len(elements))
    else:
        mesh = CellMesh(
            nodes, tidy[chosen], counts[chosen], areas[chosen], convex[chosen], chosen, len(elements)
        )
    return _split(mesh) if split and not mesh.convex.all() else mesh


def _split(mesh: CellMesh) -> CellMesh:
    """Replace concave polygons by triangles."""
    elements = [mesh.elements[mesh.convex]]
    cells = [mesh.cells[mesh.convex]]
    for k in np.flatnonzero(~mesh.convex):
        corners = mesh.elements[k, : mesh.counts[k]]
        triangles = np.array(split_concave(mesh.nodes[corners]))
        part = np.full((len(triangles), mesh.elements.shape[1]), -1, dtype=np.int64)
        part[:, :3] = corners[triangles]
        elements.append(part)
        cells.append(np.full(len(triangles), mesh.cells[k]))
    cells = np.concatenate(cells)
    tidy, counts, areas, convex = tidy_polygons(mesh.nodes, np.concatenate(elements))
    kept = areas > 0.0
    return CellMesh(
        mesh.nodes, tidy[kept], counts[kept], areas[kept], convex[kept], cells[kept], mesh.n_cells
    )


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
        n0 = normals[side, 0]
        n1 = normals[side, 1]
        n2 = normals[side, 2]
        a0 = clip[side, 0]
        a1 = clip[side, 1]
        a2 = clip[side, 2]
        before = (
            n0 * (subject[previous, 0] - a0)
            + n1 * (subject[previous, 1] - a1)
            + n2 * (subject[previous, 2] - a2)
        )
        if abs(before) < ON_SIDE:
            before = 0.0
        for c in range(n_subject):
            here = n0 * (subject[c, 0] - a0) + n1 * (subject[c, 1] - a1) + n2 * (subject[c, 2] - a2)
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
                scratch[kept, 0] = subject[c, 0]
                scratch[kept, 1] = subject[c, 1]
                scratch[kept, 2] = subject[c, 2]
                kept += 1
            previous = c
            before = here
        if kept < 3:
            return 0
        for c in range(kept):
            subject[c, 0] = scratch[c, 0]
            subject[c, 1] = scratch[c, 1]
            subject[c, 2] = scratch[c, 2]
        n_subject = kept
    return n_subject


@njit(cache=True)
def _gather(nodes, elements, k, count, corners):
    for c in range(count):
        node = elements[k, c]
        corners[c, 0] = nodes[node, 0]
        corners[c, 1] = nodes[node, 1]
        corners[c, 2] = nodes[node, 2]


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
def _relation(subject, n_subject, clip, normals, n_clip):
    """Where a polygon lies: 1 inside a convex one, -1 wholly beyond one of its sides, 0 not decided."""
    inside = 1
    for side in range(n_clip):
        n0 = normals[side, 0]
        n1 = normals[side, 1]
        n2 = normals[side, 2]
        highest = -1.0
        lowest = 1.0
        for c in range(n_subject):
            distance = (
                n0 * (subject[c, 0] - clip[side, 0])
                + n1 * (subject[c, 1] - clip[side, 1])
                + n2 * (subject[c, 2] - clip[side, 2])
            )
            highest = max(highest, distance)
            lowest = min(lowest, distance)
        if highest < ON_SIDE:
            return -1
        if lowest < -ON_SIDE:
            inside = 0
    return inside


@njit(cache=True)
def overlap_areas(
    nodes,
    elements,
    counts,
    areas,
    target_nodes,
    target_elements,
    target_counts,
    target_areas,
    target_convex,
    target_boxes,
    boxes,
    items,
    order,
    called=_CALLED,
):
    """Areas of the overlaps between polygons.

    Parameters
    ----------
    nodes, elements, counts, areas : numpy.ndarray
        The source polygons, all convex, over which the tree stands.
    target_nodes, target_elements, target_counts, target_areas, target_convex, target_boxes : numpy.ndarray
        The destination polygons, which may be concave, and their boxes.
    boxes, items, order : numpy.ndarray
        The tree.
    called : int, optional
        Never given: see `weathermill.esmf.search.source_fingerprint`.

    Returns
    -------
    row, col : numpy.ndarray
        int32: destination and source polygon, destinations ascending.
    area : numpy.ndarray
        float64, steradians, all positive.

    Notes
    -----
    Cutting a polygon by the sides of a convex one gives the right area even where the polygon is concave,
    for the parts of the result hang together by sides that are run through there and back. So a concave
    destination is cut by each source, instead of each source by the destination.
    """
    n_sources, n_corners = elements.shape
    n_target_corners = target_elements.shape[1]
    size = (n_corners + n_target_corners + 2) * (1 if target_convex.all() else n_corners + 1)
    capacity = max(1024, 2 * max(n_sources, target_elements.shape[0]))
    row = np.empty(capacity, np.int32)
    col = np.empty(capacity, np.int32)
    area = np.empty(capacity)
    used = 0
    found = np.empty(n_sources, np.int64)
    stack = np.empty(STACK_SIZE, np.int64)
    target = np.empty((n_target_corners, 3))
    normals = np.empty((n_target_corners, 3))
    source = np.empty((n_corners, 3))
    source_normals = np.empty((n_corners, 3))
    subject = np.empty((size, 3))
    scratch = np.empty((size, 3))
    for k in range(target_elements.shape[0]):
        n_target = target_counts[k]
        _gather(target_nodes, target_elements, k, n_target, target)
        convex = target_convex[k]
        if convex:
            _side_normals(target, n_target, normals)
        n_found = find_overlaps(boxes, items, order, target_boxes[k], found, stack)
        for candidate in range(n_found):
            j = found[candidate]
            n_source = counts[j]
            if convex:
                _gather(nodes, elements, j, n_source, subject)
                relation = _relation(subject, n_source, target, normals, n_target)
                if relation < 0:
                    continue
                overlap = areas[j]
                if relation == 0:
                    n_left = _clip(subject, n_source, target, normals, n_target, scratch)
                    overlap = polygon_area(subject, n_left)
            else:
                _gather(nodes, elements, j, n_source, source)
                _side_normals(source, n_source, source_normals)
                relation = _relation(target, n_target, source, source_normals, n_source)
                if relation < 0:
                    continue
                overlap = target_areas[k]
                if relation == 0:
                    subject[:n_target] = target[:n_target]
                    n_left = _clip(subject, n_target, source, source_normals, n_source, scratch)
                    overlap = polygon_area(subject, n_left)
            if overlap <= 0.0:
                continue
            if used == capacity:
                capacity *= 2
                row = _grown(row, capacity)
                col = _grown(col, capacity)
                area = _grown(area, capacity)
            row[used] = k
            col[used] = j
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
        Cells; those of the source convex.
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
        source.counts,
        source.areas,
        target.nodes,
        target.elements,
        target.counts,
        target.areas,
        target.convex,
        element_boxes(target.nodes, target.elements),
        *tree,
    )
    row = target.cells[row]
    col = source.cells[col]
    if normalise:
        whole = np.bincount(row, weights=area, minlength=target.n_cells)
    else:
        whole = np.bincount(target.cells, weights=target.areas, minlength=target.n_cells)
    return row, col, area / whole[row]
