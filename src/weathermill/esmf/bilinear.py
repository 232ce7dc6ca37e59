"""Bilinear weights: where the ray through a point meets a quadrilateral or triangle in 3-D."""

from __future__ import annotations

import numpy as np
from numba import njit

from weathermill.esmf import search
from weathermill.esmf.search import STACK_SIZE, build_tree, element_boxes, find_overlaps

# As ESMF: how far outside an element, in its own coordinates from -1 to 1, a point still counts as inside,
# and how far a point that no element holds may lie from the nearest one.
INSIDE_TOLERANCE = 1e-10
FALLBACK_TOLERANCE = 1e-8
_CALLED = search.source_fingerprint(search)


@njit(cache=True)
def _solve3(a, b, c, r, x):
    """Solve ``x0 a + x1 b + x2 c = r`` by Cramer's rule; False where the matrix is singular."""
    bc0 = b[1] * c[2] - b[2] * c[1]
    bc1 = b[2] * c[0] - b[0] * c[2]
    bc2 = b[0] * c[1] - b[1] * c[0]
    det = a[0] * bc0 + a[1] * bc1 + a[2] * bc2
    if det == 0.0 or not np.isfinite(det):
        return False
    x[0] = (r[0] * bc0 + r[1] * bc1 + r[2] * bc2) / det
    rc0 = r[1] * c[2] - r[2] * c[1]
    rc1 = r[2] * c[0] - r[0] * c[2]
    rc2 = r[0] * c[1] - r[1] * c[0]
    x[1] = (a[0] * rc0 + a[1] * rc1 + a[2] * rc2) / det
    br0 = b[1] * r[2] - b[2] * r[1]
    br1 = b[2] * r[0] - b[0] * r[2]
    br2 = b[0] * r[1] - b[1] * r[0]
    x[2] = (a[0] * br0 + a[1] * br1 + a[2] * br2) / det
    return True


@njit(cache=True)
def _tangents(p, work):
    """Two unit vectors across `p`, in the first two rows of `work`."""
    least = 0
    for axis in range(1, 3):
        if abs(p[axis]) < abs(p[least]):
            least = axis
    # The axis that p leans to least, less its part along p.
    norm = np.sqrt(1.0 - p[least] * p[least])
    for axis in range(3):
        work[0, axis] = -p[least] * p[axis] / norm
    work[0, least] += 1.0 / norm
    work[1, 0] = p[1] * work[0, 2] - p[2] * work[0, 1]
    work[1, 1] = p[2] * work[0, 0] - p[0] * work[0, 2]
    work[1, 2] = p[0] * work[0, 1] - p[1] * work[0, 0]


@njit(cache=True)
def _outside(u, v):
    """How far element coordinates are beyond 0 to 1, doubled as ESMF's run from -1 to 1; negative inside."""
    return 2.0 * max(max(-u, u - 1.0), max(-v, v - 1.0))


@njit(cache=True)
def _start_in_quad(q, p, work, uv):
    """Solve for the element coordinates of `p` in the plane across it; False if it is on no such surface.

    There the surface is ``a + u b + v c + u v d``, and ``u`` solves a quadratic equation.
    """
    _tangents(p, work)
    ax = ay = bx = by = cx = cy = dx = dy = 0.0
    for axis in range(3):
        e = work[0, axis]
        f = work[1, axis]
        a = q[0, axis] - p[axis]
        b = q[1, axis] - q[0, axis]
        c = q[3, axis] - q[0, axis]
        d = q[0, axis] - q[1, axis] + q[2, axis] - q[3, axis]
        ax += a * e
        ay += a * f
        bx += b * e
        by += b * f
        cx += c * e
        cy += c * f
        dx += d * e
        dy += d * f
    square = bx * dy - by * dx
    linear = ax * dy - ay * dx + bx * cy - by * cx
    constant = ax * cy - ay * cx
    root = linear * linear - 4.0 * square * constant
    if root < 0.0:
        if root < -1e-12 * linear * linear:
            return False
        root = 0.0
    half = -0.5 * (linear + np.sqrt(root)) if linear >= 0.0 else -0.5 * (linear - np.sqrt(root))
    nearest = np.inf
    for which in range(2):
        if which == 0:
            if half == 0.0:
                continue
            u = constant / half
        else:
            if square == 0.0:
                continue
            u = half / square
        ex = cx + u * dx
        ey = cy + u * dy
        length = ex * ex + ey * ey
        # Where a side has shrunk to a point, all of its length is there.
        v = -((ax + u * bx) * ex + (ay + u * by) * ey) / length if length > 1e-30 else 0.0
        outside = _outside(u, v)
        if outside < nearest:
            nearest = outside
            uv[0] = u
            uv[1] = v
    return nearest < 0.1


@njit(cache=True)
def _locate_in_quad(q, p, work, uv):
    """Element coordinates (0 to 1) of the ray through `p` on the bilinear surface over `q`.

    Newton's method on ``q0 + u (q1 - q0) + v (q3 - q0) + u v (q0 - q1 + q2 - q3) = s p`` polishes what the
    quadratic equation gives, to the last digits; False where the ray misses the element.
    """
    if not _start_in_quad(q, p, work, uv):
        return False
    a = work[0]
    b = work[1]
    residual = work[2]
    step = work[3]
    u = uv[0]
    v = uv[1]
    s = 0.0
    for axis in range(3):
        s += 0.25 * (q[0, axis] + q[1, axis] + q[2, axis] + q[3, axis]) * p[axis]
    for _ in range(20):
        for axis in range(3):
            twist = q[0, axis] - q[1, axis] + q[2, axis] - q[3, axis]
            along_u = q[1, axis] - q[0, axis]
            along_v = q[3, axis] - q[0, axis]
            a[axis] = along_u + v * twist
            b[axis] = along_v + u * twist
            residual[axis] = s * p[axis] - (q[0, axis] + u * along_u + v * along_v + u * v * twist)
        if not _solve3(a, b, p, residual, step):
            break
        # p stands in the matrix with its sign, so its unknown is minus the change of s.
        u += step[0]
        v += step[1]
        s -= step[2]
        if not abs(u - uv[0]) + abs(v - uv[1]) < 1e-6:
            # Next to a side that has shrunk to a point the equations are nearly singular: keep the start.
            u = uv[0]
            v = uv[1]
            break
        if abs(step[0]) + abs(step[1]) < 1e-14:
            break
    uv[0] = u
    uv[1] = v
    return s > 0.0


@njit(cache=True)
def _locate_in_triangle(q, p, work, uv):
    """Element coordinates of the ray through `p` in the plane of a triangle."""
    a = work[0]
    b = work[1]
    residual = work[2]
    step = work[3]
    for axis in range(3):
        a[axis] = q[1, axis] - q[0, axis]
        b[axis] = q[2, axis] - q[0, axis]
        residual[axis] = -q[0, axis]
    if not _solve3(a, b, p, residual, step):
        return False
    uv[0] = step[0]
    uv[1] = step[1]
    return step[2] < 0.0


@njit(cache=True)
def _distinct(q, count):
    """How many corners differ from the one before."""
    kept = 0
    for c in range(count):
        previous = (c - 1) % count
        if (
            abs(q[c, 0] - q[previous, 0]) < 1e-15
            and abs(q[c, 1] - q[previous, 1]) < 1e-15
            and abs(q[c, 2] - q[previous, 2]) < 1e-15
        ):
            continue
        kept += 1
    return kept


@njit(cache=True)
def locate(points, active, nodes, elements, usable, boxes, items, order, called=_CALLED):
    """Find the element and the weights of each point.

    Parameters
    ----------
    points : numpy.ndarray
        float64, shape ``(n, 3)``, on the unit sphere.
    active : numpy.ndarray
        bool, shape ``(n,)``: points that are looked for.
    nodes, elements : numpy.ndarray
        As `weathermill.esmf.meshing.NodeMesh`.
    usable : numpy.ndarray
        bool, shape ``(n_elements,)``: elements that may be used (none of their corners masked).
    boxes, items, order : numpy.ndarray
        The tree over the elements.
    called : int, optional
        Never given: see `weathermill.esmf.search.source_fingerprint`.

    Returns
    -------
    owner : numpy.ndarray
        int64, shape ``(n,)``: the lowest element that holds the point; -1 where none does.
    weights : numpy.ndarray
        float64, shape ``(n, 4)``: weights of the element's corners.
    """
    n = points.shape[0]
    owner = np.full(n, -1, np.int64)
    weights = np.zeros((n, 4))
    found = np.empty(elements.shape[0], np.int64)
    stack = np.empty(STACK_SIZE, np.int64)
    box = np.empty(6)
    q = np.empty((4, 3))
    work = np.empty((4, 3))
    uv = np.empty(2)
    for k in range(n):
        if not active[k]:
            continue
        p = points[k]
        for axis in range(3):
            box[axis] = p[axis] - 1e-8
            box[axis + 3] = p[axis] + 1e-8
        count = find_overlaps(boxes, items, order, box, found, stack)
        inside = False
        best = -1
        nearest = np.inf
        for candidate in range(count):
            element = found[candidate]
            if not usable[element] or (inside and element > best):
                continue
            corners = 4 if elements[element, 3] >= 0 else 3
            for c in range(corners):
                for axis in range(3):
                    q[c, axis] = nodes[elements[element, c], axis]
            if _distinct(q, corners) < 3:
                continue
            if corners == 4:
                if not _locate_in_quad(q, p, work, uv):
                    continue
                u = uv[0]
                v = uv[1]
                outside = _outside(u, v)
            else:
                if not _locate_in_triangle(q, p, work, uv):
                    continue
                u = uv[0]
                v = uv[1]
                outside = max(max(-u, -v), u + v - 1.0)
            holds = outside <= INSIDE_TOLERANCE
            if not holds and (inside or outside > FALLBACK_TOLERANCE or outside >= nearest):
                continue
            inside = inside or holds
            best = element
            nearest = outside
            if corners == 4:
                weights[k, 0] = (1.0 - u) * (1.0 - v)
                weights[k, 1] = u * (1.0 - v)
                weights[k, 2] = u * v
                weights[k, 3] = (1.0 - u) * v
            else:
                weights[k, 0] = 1.0 - u - v
                weights[k, 1] = u
                weights[k, 2] = v
                weights[k, 3] = 0.0
        owner[k] = best
    return owner, weights


def usable_elements(mesh, node_mask):
    """Which elements of a mesh touch no masked point: bool, shape ``(n_elements,)``."""
    if node_mask is None:
        return np.ones(len(mesh.elements), dtype=bool)
    masked = np.concatenate([node_mask, np.zeros(len(mesh.nodes) - len(node_mask), dtype=bool)])
    return ~(masked[mesh.elements] & (mesh.elements >= 0)).any(axis=1)


def locate_points(points, active, mesh, usable):
    """Search all points in a mesh.

    Parameters
    ----------
    points : numpy.ndarray
        float64, shape ``(n, 3)``.
    active : numpy.ndarray
        bool, shape ``(n,)``.
    mesh : weathermill.esmf.meshing.NodeMesh
        The source.
    usable : numpy.ndarray
        bool over elements.

    Returns
    -------
    owner, weights : numpy.ndarray
        As `locate`.
    """
    tree = build_tree(element_boxes(mesh.nodes, mesh.elements))
    return locate(points, active, mesh.nodes, mesh.elements, usable, *tree)


def element_weights(owner, corner_weights, mesh):
    """Turn elements and weights of their corners into pairs; zero weights are kept.

    Returns
    -------
    row, col : numpy.ndarray
        int64, from 0: destination point and node of the mesh.
    weight : numpy.ndarray
        float64.
    """
    row = np.flatnonzero(owner >= 0)
    corners = mesh.elements[owner[row]]
    present = corners >= 0
    weight = corner_weights[row][present]
    row = np.broadcast_to(row[:, None], corners.shape)[present]
    return row, corners[present], weight


def spread_poles(row, col, weight, mesh, node_mask=None):
    """Hand the weights of pole nodes on to the points whose mean they are, and merge equal pairs."""
    n_points = len(mesh.nodes) - len(mesh.poles)
    for index, members in enumerate(mesh.poles):
        at_pole = col == n_points + index
        if not at_pole.any():
            continue
        if node_mask is not None:
            members = members[~node_mask[members]]
        share = np.repeat(weight[at_pole] / max(len(members), 1), len(members))
        row = np.concatenate([row[~at_pole], np.repeat(row[at_pole], len(members))])
        col = np.concatenate([col[~at_pole], np.tile(members, int(at_pole.sum()))])
        weight = np.concatenate([weight[~at_pole], share])
    return row, col, weight


def settle_pole_points(owner, weights, field_points, field_lon, mesh, shape, source_lon, usable, periodic):
    """Give destination points on a pole the source values of their own longitude.

    Where a source grid has a row of points on the pole, all its columns meet there, and a destination point
    on the pole lies in every one of them. ESMF takes an arbitrary one; values that differ along the row, such
    as wind components, then turn up at wrong longitudes.

    Parameters
    ----------
    owner, weights : numpy.ndarray
        From `locate`; changed in place.
    field_points, field_lon : numpy.ndarray
        The destination points as unit vectors, and their longitudes in degrees.
    mesh : weathermill.esmf.meshing.NodeMesh
        The source.
    shape : tuple of int
        ``(ny, nx)`` of the source grid.
    source_lon : numpy.ndarray
        Longitudes of the source points, in degrees, shape ``(ny * nx,)``.
    usable : numpy.ndarray
        bool over elements.
    periodic : bool
        Whether the source's last column neighbours the first.
    """
    ny, nx = shape
    if ny < 2 or nx < 2:
        return
    columns = nx if periodic else nx - 1
    for row, quad_row, first, second in ((0, 0, 0, 1), (ny - 1, ny - 2, 3, 2)):
        points = mesh.nodes[row * nx : (row + 1) * nx]
        if np.hypot(points[:, 0], points[:, 1]).max() > 1e-12:
            continue
        at_pole = np.flatnonzero(np.abs(field_points - points[0]).max(axis=1) < 1e-12)
        lon = source_lon[row * nx : (row + 1) * nx]
        width = np.diff(np.append(lon, lon[0]))[:columns]
        width = (width + 180.0) % 360.0 - 180.0
        if (np.sign(width) != np.sign(width[0])).any() or (width == 0.0).any():
            continue
        for k in at_pole:
            offset = np.where(
                width > 0.0, (field_lon[k] - lon[:columns]) % 360.0, -((lon[:columns] - field_lon[k]) % 360.0)
            )
            inside = offset / width <= 1.0 + INSIDE_TOLERANCE
            inside &= usable[quad_row * columns : (quad_row + 1) * columns]
            if not inside.any():
                continue
            column = int(np.argmax(inside))
            u = min(offset[column] / width[column], 1.0)
            owner[k] = quad_row * columns + column
            weights[k] = 0.0
            weights[k, first] = 1.0 - u
            weights[k, second] = u
