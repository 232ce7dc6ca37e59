"""Coordinates on the unit sphere."""

from __future__ import annotations

import numpy as np

_DEGREE = np.pi / 180.0


def unit_vectors(lon, lat, *, degrees: bool = True) -> np.ndarray:
    """Turn longitudes and latitudes into points on the unit sphere.

    Parameters
    ----------
    lon, lat : array_like
        Coordinates of the same shape, in degrees or radians. Latitudes beyond the poles are moved onto
        them: corners inferred for a grid that has points on the poles run past them.
    degrees : bool, optional
        Whether the coordinates are in degrees (the default) or radians.

    Returns
    -------
    numpy.ndarray
        float64, shape ``(size, 3)``, points in C order.

    Raises
    ------
    ValueError
        If a coordinate is not finite.
    """
    lon = np.ravel(np.asarray(lon, dtype=np.float64))
    lat = np.ravel(np.asarray(lat, dtype=np.float64))
    quarter = 90.0 if degrees else 0.5 * np.pi
    scale = _DEGREE if degrees else 1.0
    # The colatitude makes every point of a pole row the same point exactly, which cos(90°) would not.
    colatitude = (quarter - np.clip(lat, -quarter, quarter)) * scale
    sine = np.sin(colatitude)
    sine[lat <= -quarter] = 0.0
    points = np.empty((lon.size, 3))
    points[:, 0] = np.cos(lon * scale) * sine
    points[:, 1] = np.sin(lon * scale) * sine
    points[:, 2] = np.cos(colatitude)
    if not np.isfinite(points).all():
        bad = int(np.argmin(np.isfinite(points).all(axis=1)))
        raise ValueError(
            f"coordinates must be finite, but point {bad} (counted from 0, longitude fastest) lies at "
            f"longitude {lon[bad]}, latitude {lat[bad]}; fill or mask missing coordinates first"
        )
    return points


def east_north(lon, lat) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors to the east and to the north.

    Parameters
    ----------
    lon, lat : array_like
        Degrees, shape ``(n,)``.

    Returns
    -------
    east, north : numpy.ndarray
        float64, shape ``(n, 3)``.
    """
    lon = np.asarray(lon, dtype=np.float64) * _DEGREE
    lat = np.asarray(lat, dtype=np.float64) * _DEGREE
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    return east, north
