"""Wind components regridded as three-dimensional tangent vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from weathermill.errors import MissingVariableError
from weathermill.fields.cell_vertices import unit_vectors
from weathermill.fields.grids import grid_points


def vector_pairs(fields: xr.Dataset, vectors: bool | Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs (eastward, northward) to regrid as vectors.

    Parameters
    ----------
    fields
        Canonical fields.
    vectors
        True: every ``…u_component_of_wind…`` that has its ``v``. Pairs: those. False: none.

    Raises
    ------
    MissingVariableError
        Where a named component is absent.
    """
    if vectors is False:
        return []
    if vectors is True:
        names = [str(name) for name in fields.data_vars]
        pairs = [(name, name.replace("u_component_of_wind", "v_component_of_wind")) for name in names]
        return [(u, v) for u, v in pairs if u != v and v in fields.data_vars]
    for pair in vectors:
        for name in pair:
            if name not in fields.data_vars:
                raise MissingVariableError(f"the vector component {name} is not among the fields")
    return [tuple(pair) for pair in vectors]


def reaches_a_pole(grid: xr.Dataset) -> bool:
    """Return whether a curvilinear grid has points within three steps of a pole."""
    latitude = grid.latitude.values
    if latitude.ndim != 2 or min(latitude.shape) < 2:
        return False
    points = unit_vectors(latitude, grid.longitude.values)
    step = max(np.median(np.linalg.norm(np.diff(points, axis=axis), axis=-1)) for axis in (0, 1))
    return bool(np.radians(90.0 - np.abs(latitude).max()) < 3.0 * step)


def rotate_weights(
    row: np.ndarray, col: np.ndarray, s: np.ndarray, source: xr.Dataset, target: xr.Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r"""Return the matrix on stacked ``[u, v]`` that carries vectors, not components, from grid to grid.

    A tangent vector at source point j is :math:`u_j e_j + v_j n_j` with the unit vectors east
    :math:`e = (-\sin\lambda, \cos\lambda, 0)` and north
    :math:`n = (-\sin\varphi\cos\lambda, -\sin\varphi\sin\lambda, \cos\varphi)`. Weighted sums of such vectors are
    projected on east and north at target point i, so that each weight becomes a matrix of scalar products.

    Parameters
    ----------
    row, col, s
        Weights from 0.
    source, target
        Grids.

    Returns
    -------
    row, col, data, base
        Of a matrix twice as large each way; ``base`` is the scalar weight where a component meets itself, and
        zero elsewhere.
    """
    phi_i, lam_i = _angles(target)
    phi_j, lam_j = _angles(source)
    n_target, n_source = phi_i.size, phi_j.size
    phi_i, lam_i, phi_j, lam_j = phi_i[row], lam_i[row], phi_j[col], lam_j[col]
    turn = lam_i - lam_j
    cosine, sine = np.cos(turn), np.sin(turn)
    east_east = cosine
    east_north = np.sin(phi_j) * sine
    north_east = -np.sin(phi_i) * sine
    north_north = np.sin(phi_i) * np.sin(phi_j) * cosine + np.cos(phi_i) * np.cos(phi_j)
    zero = np.zeros_like(s)
    return (
        np.concatenate([row, row, row + n_target, row + n_target]),
        np.concatenate([col, col + n_source, col, col + n_source]),
        np.concatenate([s * east_east, s * east_north, s * north_east, s * north_north]),
        np.concatenate([s, zero, zero, s]),
    )


def _angles(grid: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    latitude, longitude = grid_points(grid)
    return np.radians(latitude), np.radians(longitude)
