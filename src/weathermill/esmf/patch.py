"""Patch weights: polynomials fitted around each corner of an element, blended over it.

Around each corner of the element that holds a point, a polynomial in two coordinates, of degree two in each, is
fitted to the linear interpolant on the elements that meet there (Khoei and Gharehbaghi, 2007; Hung et al., 2004,
after Zienkiewicz and Zhu, 1992); the values of the corners' polynomials at the point are blended by its bilinear
weights. As ESMF does: coordinates are those of the plane through the element's centre, and the fit is by least
squares at Gauss points.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import sparse

# Singular values smaller than this, times the number of samples, times the largest one are left out of the fit:
# the threshold at which ESMF's weights turn from one solution to the other.
CONDITION = 1e-7
CHUNK = 65536
_TERMS = 9
_TRIANGLE_RULES = {
    2: [[1 / 6, 1 / 6], [2 / 3, 1 / 6], [1 / 6, 2 / 3]],
    3: [[1 / 3, 1 / 3], [0.2, 0.2], [0.6, 0.2], [0.2, 0.6]],
    4: [
        [0.091576213509771, 0.091576213509771],
        [0.816847572980459, 0.091576213509771],
        [0.091576213509771, 0.816847572980459],
        [0.445948490915965, 0.445948490915965],
        [0.108103018168070, 0.445948490915965],
        [0.445948490915965, 0.108103018168070],
    ],
    5: [
        [1 / 3, 1 / 3],
        [0.101286507323456, 0.101286507323456],
        [0.797426985353087, 0.101286507323456],
        [0.101286507323456, 0.797426985353087],
        [0.470142064105115, 0.470142064105115],
        [0.059715871789770, 0.470142064105115],
        [0.470142064105115, 0.059715871789770],
    ],
}


def _sample_weights() -> tuple[np.ndarray, np.ndarray]:
    """Bilinear weights of the corners at the sampling points of quadrilaterals and triangles.

    Returns
    -------
    shapes : numpy.ndarray
        float64, shape ``(2, 6, 25, 4)``: kind (quadrilateral, triangle), order, point, corner.
    counts : numpy.ndarray
        int64, shape ``(2, 6)``: points of each rule.
    """
    shapes = np.zeros((2, 6, 25, 4))
    counts = np.zeros((2, 6), dtype=np.int64)
    for order in range(2, 6):
        u, v = (0.5 + 0.5 * x.ravel() for x in np.meshgrid(*[np.polynomial.legendre.leggauss(order)[0]] * 2))
        counts[0, order] = order**2
        shapes[0, order, : order**2] = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=1)
        u, v = np.array(_TRIANGLE_RULES[order]).T
        counts[1, order] = len(u)
        shapes[1, order, : len(u), :3] = np.stack([1 - u - v, u, v], axis=1)
    return shapes, counts


@njit(cache=True)
def _corner_count(elements, element):
    return 4 if elements[element, 3] >= 0 else 3


@njit(cache=True)
def _plane(nodes, elements, element, centre, axes):
    """Centre of an element and two axes of the plane across its normal."""
    corners = _corner_count(elements, element)
    a = nodes[elements[element, 0]]
    b = nodes[elements[element, 1]]
    c = nodes[elements[element, 2]]
    for axis in range(3):
        centre[axis] = (a[axis] + b[axis] + c[axis]) / 3.0
    if corners == 4:
        d = nodes[elements[element, 3]]
        for axis in range(3):
            centre[axis] = 0.25 * (a[axis] + b[axis] + c[axis] + d[axis])
        along_u = b + c - a - d
        along_v = c + d - a - b
    else:
        along_u = b - a
        along_v = c - a
    n = np.cross(along_u, along_v)
    n /= np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2)
    across = np.sqrt(n[1] ** 2 + n[2] ** 2)
    if across > 1e-8:
        axes[0, 0] = 0.0
        axes[0, 1] = n[2] / across
        axes[0, 2] = -n[1] / across
        axes[1, 0] = across
        axes[1, 1] = -n[0] * n[1] / across
        axes[1, 2] = -n[0] * n[2] / across
    else:
        across = np.sqrt(n[0] ** 2 + n[2] ** 2)
        axes[0, 0] = n[2] / across
        axes[0, 1] = 0.0
        axes[0, 2] = -n[0] / across
        axes[1, 0] = -n[1] * n[0] / across
        axes[1, 1] = across
        axes[1, 2] = -n[1] * n[2] / across


@njit(cache=True)
def _monomials(p, centre, axes, terms):
    x = 0.0
    y = 0.0
    for axis in range(3):
        x += (p[axis] - centre[axis]) * axes[0, axis]
        y += (p[axis] - centre[axis]) * axes[1, axis]
    k = 0
    power_x = 1.0
    for _ in range(3):
        power_y = 1.0
        for _ in range(3):
            terms[k] = power_x * power_y
            power_y *= y
            k += 1
        power_x *= x


@njit(cache=True)
def _fit(node, nodes, elements, usable, start, members, centre, axes, shapes, counts):
    """Fit the polynomial around a node: how its terms depend on the values at the nodes near it.

    Returns
    -------
    near : numpy.ndarray
        int64, shape ``(k,)``: nodes, some of them several times.
    response : numpy.ndarray
        float64, shape ``(9, k)``.
    """
    around = members[start[node] : start[node + 1]]
    around = around[usable[around]]
    orders = np.empty(len(around), np.int64)
    n_samples = 0
    n_near = 0
    for k in range(len(around)):
        kind = 4 - _corner_count(elements, around[k])
        order = 2
        while order < 5 and len(around) * counts[kind, order] < _TERMS:
            order += 1
        orders[k] = order
        n_samples += counts[kind, order]
        n_near += 4 - kind
    near = np.empty(n_near, np.int64)
    matrix = np.empty((n_samples, _TERMS))
    values = np.zeros((n_samples, n_near))
    p = np.empty(3)
    sample = 0
    first = 0
    for k in range(len(around)):
        corners = _corner_count(elements, around[k])
        for c in range(corners):
            near[first + c] = elements[around[k], c]
        for point in range(counts[4 - corners, orders[k]]):
            p[:] = 0.0
            for c in range(corners):
                weight = shapes[4 - corners, orders[k], point, c]
                values[sample, first + c] = weight
                for axis in range(3):
                    p[axis] += weight * nodes[near[first + c], axis]
            _monomials(p, centre, axes, matrix[sample])
            sample += 1
        first += corners
    u, s, vt = np.linalg.svd(matrix, False)
    for k in range(len(s)):
        s[k] = 1.0 / s[k] if s[k] > CONDITION * n_samples * s[0] else 0.0
    response = (vt.T * s) @ (np.ascontiguousarray(u.T) @ values)
    return near, response


@njit(cache=True)
def blend(order, owner, corner_weights, nodes, elements, usable, start, members, shapes, counts):
    """Make the weights of points in elements.

    Parameters
    ----------
    order : numpy.ndarray
        int64: the points that lie in elements, sorted by element.
    owner, corner_weights : numpy.ndarray
        Element and bilinear weights of each point.
    nodes, elements, usable : numpy.ndarray
        The mesh, and which of its elements may be used.
    start, members : numpy.ndarray
        The elements around node ``n`` are ``members[start[n]:start[n + 1]]``.
    shapes, counts : numpy.ndarray
        From `_sample_weights`.

    Returns
    -------
    row, col, weight : numpy.ndarray
        Points and nodes from 0; pairs come several times.
    """
    capacity = max(1024, 64 * len(order))
    row = np.empty(capacity, np.int64)
    col = np.empty(capacity, np.int64)
    weight = np.empty(capacity)
    used = 0
    centre = np.empty(3)
    axes = np.empty((2, 3))
    terms = np.empty(_TERMS)
    p = np.empty(3)
    begin = 0
    while begin < len(order):
        element = owner[order[begin]]
        end = begin
        while end < len(order) and owner[order[end]] == element:
            end += 1
        corners = _corner_count(elements, element)
        _plane(nodes, elements, element, centre, axes)
        for c in range(corners):
            near, response = _fit(
                elements[element, c], nodes, elements, usable, start, members, centre, axes, shapes, counts
            )
            for position in range(begin, end):
                k = order[position]
                p[:] = 0.0
                share = corner_weights[k, c]
                for other in range(corners):
                    for axis in range(3):
                        p[axis] += corner_weights[k, other] * nodes[elements[element, other], axis]
                _monomials(p, centre, axes, terms)
                while used + len(near) > capacity:
                    capacity *= 2
                    row = _grown(row, capacity)
                    col = _grown(col, capacity)
                    weight = _grown(weight, capacity)
                for j in range(len(near)):
                    value = 0.0
                    for term in range(_TERMS):
                        value += terms[term] * response[term, j]
                    row[used] = k
                    col[used] = near[j]
                    weight[used] = share * value
                    used += 1
        begin = end
    return row[:used].copy(), col[:used].copy(), weight[:used].copy()


@njit(cache=True)
def _grown(values, capacity):
    grown = np.empty(capacity, values.dtype)
    grown[: values.shape[0]] = values
    return grown


def patch_weights(owner, corner_weights, mesh, usable):
    """Make patch weights from a mesh to points.

    Parameters
    ----------
    owner, corner_weights : numpy.ndarray
        Element and bilinear weights of each point, from `weathermill.esmf.bilinear.locate_points`.
    mesh : weathermill.esmf.meshing.NodeMesh
        The source.
    usable : numpy.ndarray
        bool over elements.

    Returns
    -------
    row, col, weight : numpy.ndarray
        Points and nodes of the mesh, from 0; each pair once.
    """
    n_nodes = len(mesh.nodes)
    present = mesh.elements >= 0
    touched = mesh.elements[present]
    touching = np.broadcast_to(np.arange(len(mesh.elements))[:, None], present.shape)[present]
    members = touching[np.argsort(touched, kind="stable")]
    start = np.concatenate([[0], np.cumsum(np.bincount(touched, minlength=n_nodes))])
    inside = np.flatnonzero(owner >= 0)
    order = inside[np.argsort(owner[inside], kind="stable")]
    rules = _sample_weights()
    parts = []
    # Each point comes with up to 64 pairs, many of them the same: they are added up before there are too many.
    for first in range(0, len(order), CHUNK):
        row, col, weight = blend(
            order[first : first + CHUNK],
            owner,
            corner_weights,
            mesh.nodes,
            mesh.elements,
            usable,
            start,
            members,
            *rules,
        )
        points, row = np.unique(row, return_inverse=True)
        part = sparse.coo_matrix((weight, (row, col)), shape=(len(points), n_nodes)).tocsr().tocoo()
        parts.append((points[part.row], part.col.astype(np.int64), part.data))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return tuple(np.concatenate(values) for values in zip(*parts, strict=True))
