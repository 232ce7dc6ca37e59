"""Meshes over structured grids: nodes on the unit sphere and elements between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class NodeMesh(NamedTuple):
    """Elements between the points of a grid, for methods that interpolate between points."""

    nodes: np.ndarray
    """float64, shape (n_nodes, 3): the grid's points (first row of longitudes first), then pole nodes."""
    elements: np.ndarray
    """int64, shape (n_elements, 4): corners; triangles end with -1."""
    poles: list[np.ndarray]
    """For each pole node, the points whose mean it is."""


def grid_quads(nx: int, ny: int, *, periodic: bool) -> np.ndarray:
    """Quadrilaterals between the points of a grid of ``ny`` rows by ``nx`` columns, x fastest."""
    columns = np.arange(nx if periodic else nx - 1)
    rows = np.arange(ny - 1)[:, None] * nx
    right = (columns + 1) % nx
    quads = np.stack([rows + columns, rows + right, rows + nx + right, rows + nx + columns], axis=-1)
    return quads.reshape(-1, 4)


def point_mesh(points: np.ndarray, shape: tuple[int, int], *, periodic: bool, poles: bool) -> NodeMesh:
    """Connect the points of a grid.

    Parameters
    ----------
    points : numpy.ndarray
        float64, shape ``(ny * nx, 3)``.
    shape : tuple of int
        ``(ny, nx)``.
    periodic : bool
        Whether the last column neighbours the first.
    poles : bool
        Whether to close the gaps beyond the first and the last row by triangles to a pole node, which is
        the mean of the row, moved onto the sphere. Only a periodic grid is closed.

    Returns
    -------
    NodeMesh
    """
    ny, nx = shape
    quads = grid_quads(nx, ny, periodic=periodic)
    if not (poles and periodic and nx > 2):
        return NodeMesh(points, quads, [])
    nodes = [points]
    elements = [quads]
    rows = []
    for row in [0, ny - 1] if ny > 1 else []:
        members = np.arange(row * nx, (row + 1) * nx)
        mean = points[members].mean(axis=0)
        norm = np.linalg.norm(mean)
        collapsed = np.ptp(points[members], axis=0).max() < 1e-13
        if norm < 1e-12 or collapsed:
            continue
        pole = len(points) + len(rows)
        triangles = np.full((nx, 4), -1, dtype=np.int64)
        triangles[:, 0] = members
        triangles[:, 1] = np.roll(members, -1)
        triangles[:, 2] = pole
        nodes.append((mean / norm)[None])
        elements.append(triangles)
        rows.append(members)
    return NodeMesh(np.concatenate(nodes), np.concatenate(elements), rows)
