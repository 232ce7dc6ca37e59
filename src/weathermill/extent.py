"""How far the rows and columns of a latitude-longitude grid reach: round the circle, to the poles, over the globe."""

from __future__ import annotations

import numpy as np


def is_global_longitude(longitude: np.ndarray) -> bool:
    """Return whether longitudes go round the whole circle, without a duplicated column.

    They do when the gap across the seam is positive and no wider than 1.5 times the widest step inside, while no
    step is wider than three times the median one.

    Parameters
    ----------
    longitude
        (n,) degrees, monotonic.
    """
    longitude = np.asarray(longitude, dtype=np.float64)
    if longitude.ndim != 1 or longitude.size < 3:
        return False
    steps = np.abs(np.diff(longitude))
    gap = 360.0 - np.abs(longitude[-1] - longitude[0])
    widest = steps.max()
    return bool(1e-6 * widest < gap <= 1.5 * widest and widest <= 3.0 * np.median(steps))


def reaches_poles(latitude: np.ndarray) -> tuple[bool, bool]:
    """Return whether the first and the last row reach a pole: whether no further row fits in between.

    They do when they lie on the pole or at most one step of the rows away from it. That distance is half a step on
    grids of cells, 0.77 steps on Gaussian grids and one step where the row of the pole itself was left out.

    Parameters
    ----------
    latitude
        (n,) degrees, monotonic in either direction. One row alone reaches a pole only if it lies on it.
    """
    latitude = np.asarray(latitude, dtype=np.float64)
    if latitude.ndim != 1 or latitude.size == 0:
        return False, False
    gaps = 90.0 - np.abs(latitude[[0, -1]])
    steps = np.abs(np.diff(latitude))[[0, -1]] if latitude.size > 1 else np.zeros(2)
    first, last = gaps <= steps * (1.0 + 1e-3) + 1e-6
    return bool(first), bool(last)


def is_globe(latitude: np.ndarray, longitude: np.ndarray) -> bool:
    """Return whether a grid goes round the circle and reaches both poles; coordinates in degrees, one-dimensional."""
    return is_global_longitude(longitude) and all(reaches_poles(latitude))
