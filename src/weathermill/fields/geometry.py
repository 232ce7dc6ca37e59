"""Cells on the sphere: corners between points, exact areas, and what the coordinates say about a grid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from weathermill.errors import GridError
from weathermill.extent import is_global_longitude


def _ascending_steps(values: np.ndarray, what: str) -> np.ndarray:
    steps = np.diff(values)
    if values.ndim != 1 or values.size == 0:
        raise GridError(f"{what} must be one-dimensional and not empty, not of shape {values.shape}")
    if values.size > 1 and not (np.all(steps > 0) or np.all(steps < 0)):
        raise GridError(f"{what} is not strictly monotonic: {np.array2string(values, threshold=8)}")
    return steps


def latitude_corners(latitude: np.ndarray) -> np.ndarray:
    """Return the latitudes between cells, clipped to the poles.

    Corners lie midway between points, and half a step beyond the outermost ones. Where the latitudes are a
    Gaussian set, corners are those whose differences of sines are the Gaussian quadrature weights.

    Parameters
    ----------
    latitude
        (n,) degrees, monotonic in either direction.

    Returns
    -------
    numpy.ndarray
        (n + 1,) float64 degrees, in the direction of ``latitude``.

    Raises
    ------
    GridError
        Where the latitudes are not monotonic, lie beyond the poles, or are fewer than two.
    """
    latitude = np.asarray(latitude, dtype=np.float64)
    steps = _ascending_steps(latitude, "latitude")
    if latitude.size < 2:
        raise GridError("one latitude alone does not tell the height of its cell", remedy="Give its bounds.")
    if np.abs(latitude).max() > 90.0 + 1e-9:
        raise GridError(f"latitudes run beyond the poles: {latitude.min():g} to {latitude.max():g}")
    if gaussian_number(latitude) is not None:
        corners = _gaussian_corners(latitude.size)
        return corners if latitude[0] > latitude[-1] else corners[::-1].copy()
    middle = latitude[:-1] + 0.5 * steps
    corners = np.concatenate([[latitude[0] - 0.5 * steps[0]], middle, [latitude[-1] + 0.5 * steps[-1]]])
    corners = np.clip(corners, -90.0, 90.0)
    # Rows that end within a millionth of a step of the pole are meant to reach it.
    near = np.abs(np.abs(corners) - 90.0) < 1e-6 * np.abs(steps).min()
    corners[near] = np.sign(corners[near]) * 90.0
    return corners


def longitude_corners(longitude: np.ndarray) -> np.ndarray:
    """Return the longitudes between cells.

    On a full circle the first and last corner lie midway across the seam, exactly 360 degrees apart; on a
    region they lie half a step beyond the outermost points.

    Parameters
    ----------
    longitude
        (n,) degrees, strictly ascending or descending, without a duplicated cyclic column.

    Returns
    -------
    numpy.ndarray
        (n + 1,) float64 degrees.
    """
    longitude = np.asarray(longitude, dtype=np.float64)
    steps = _ascending_steps(longitude, "longitude")
    if longitude.size < 2:
        raise GridError("one longitude alone does not tell the width of its cell", remedy="Give its bounds.")
    middle = longitude[:-1] + 0.5 * steps
    if is_global_longitude(longitude):
        turn = 360.0 if steps[0] > 0 else -360.0
        seam = longitude[-1] + 0.5 * (longitude[0] + turn - longitude[-1])
        return np.concatenate([[seam - turn], middle, [seam]])
    return np.concatenate([[longitude[0] - 0.5 * steps[0]], middle, [longitude[-1] + 0.5 * steps[-1]]])


def cyclic_duplicates(longitude: np.ndarray) -> np.ndarray:
    """Return which columns repeat an earlier one a full circle away, as a boolean array."""
    turned = np.round(np.mod(np.asarray(longitude, dtype=np.float64), 360.0), 6)
    turned[turned == 360.0] = 0.0
    _, first = np.unique(turned, return_index=True)
    duplicated = np.ones(turned.size, dtype=bool)
    duplicated[first] = False
    return duplicated


def has_pole_points(latitude: np.ndarray) -> bool:
    """Return whether the outermost rows of points lie on the poles (both of them)."""
    latitude = np.asarray(latitude, dtype=np.float64)
    return bool(latitude.max() > 90.0 - 1e-6 and latitude.min() < -90.0 + 1e-6)


@lru_cache(maxsize=16)
def gaussian_latitudes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``n`` Gaussian latitudes, north to south in degrees, and their weights, which sum to 2.

    From the roots of the Legendre polynomial of degree ``n`` (``numpy.polynomial.legendre.leggauss``).
    """
    roots, weights = np.polynomial.legendre.leggauss(n)
    latitude = np.degrees(np.arcsin(roots))[::-1].copy()
    weights = weights[::-1].copy()
    latitude.setflags(write=False)
    weights.setflags(write=False)
    return latitude, weights


@lru_cache(maxsize=16)
def _gaussian_corners(n: int) -> np.ndarray:
    _, weights = gaussian_latitudes(n)
    sines = 1.0 - np.concatenate([[0.0], np.cumsum(weights)])
    sines[-1] = -1.0
    corners = np.degrees(np.arcsin(np.clip(sines, -1.0, 1.0)))
    corners.setflags(write=False)
    return corners


def gaussian_number(latitude: np.ndarray) -> int | None:
    """Return N where the latitudes are all 2N rows of a Gaussian grid, otherwise None.

    Rows are compared to 1e-3 degrees, since files round them.
    """
    latitude = np.asarray(latitude, dtype=np.float64)
    n = latitude.size
    if n < 4 or n % 2 or n > 4000:
        return None
    # The outermost row is a cheap test (Jeffreys' asymptotic first root of J0) before the roots are computed.
    estimate = 90.0 - np.degrees(2.404826 / (n + 0.5))
    if abs(np.abs(latitude).max() - estimate) > 0.05 * 180.0 / n:
        return None
    rows, _ = gaussian_latitudes(n)
    ordered = rows if latitude[0] > latitude[-1] else rows[::-1]
    return n // 2 if np.abs(ordered - latitude).max() < 1e-3 else None


def octahedral_rows(n: int) -> np.ndarray:
    """Return how many points each of the 2N rows of an octahedral grid has: 4i + 16 in row i from either pole."""
    half = 4 * np.arange(1, n + 1) + 16
    return np.concatenate([half, half[::-1]])


def octahedral_points(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes and longitudes of the octahedral reduced Gaussian grid O``n``, row by row from the north.

    Rows lie on the Gaussian latitudes of 2N rows, and each begins at Greenwich.
    """
    rows = octahedral_rows(n)
    latitude, _ = gaussian_latitudes(2 * n)
    longitude = np.concatenate([360.0 * np.arange(count) / count for count in rows])
    return np.repeat(latitude, rows), longitude


def octahedral_number(latitude: np.ndarray, longitude: np.ndarray) -> int | None:
    """Return N where points are those of the grid ON in its order, to 1e-3 degrees, otherwise None."""
    # There are 4N(N + 9) of them.
    n = round(np.sqrt(np.size(latitude) / 4 + 20.25) - 4.5)
    if not 2 <= n <= 2000 or np.size(latitude) != 4 * n * (n + 9):
        return None
    rows, columns = octahedral_points(n)
    turn = np.abs(np.mod(np.asarray(longitude, dtype=np.float64) - columns + 180.0, 360.0) - 180.0)
    return n if turn.max() < 1e-3 and np.abs(rows - latitude).max() < 1e-3 else None


def octahedral_areas(n: int) -> np.ndarray:
    r"""Return the area of each point of the grid O``n`` on the unit sphere, in steradians.

    The band of a row, whose area is its Gaussian weight times :math:`2\pi`, is shared equally by its points.
    """
    rows = octahedral_rows(n)
    latitude, _ = gaussian_latitudes(2 * n)
    return np.repeat(2.0 * np.pi * band_areas(latitude_corners(latitude)) / rows, rows)


def band_areas(corners: np.ndarray) -> np.ndarray:
    """Return the area of each band between latitudes, per radian on a unit sphere: differences of sines."""
    corners = np.asarray(corners, dtype=np.float64)
    # sin b - sin a by the product formula keeps its digits near the poles, where the sines agree to 1e-5.
    half_sum = np.radians(0.5 * (corners[1:] + corners[:-1]))
    half_difference = np.radians(0.5 * (corners[1:] - corners[:-1]))
    return np.abs(2.0 * np.cos(half_sum) * np.sin(half_difference))


def cell_areas(
    latitude: np.ndarray,
    longitude: np.ndarray | None = None,
    *,
    latitude_bounds: np.ndarray | None = None,
    longitude_bounds: np.ndarray | None = None,
) -> np.ndarray:
    r"""Return exact areas of latitude-longitude cells on the unit sphere, in steradians.

    :math:`A = \Delta\lambda\,(\sin\varphi_n - \sin\varphi_s)`. A full sphere sums to :math:`4\pi`.

    Parameters
    ----------
    latitude, longitude
        Degrees. Without ``longitude``, one column that goes round the circle is returned.
    latitude_bounds, longitude_bounds
        (n + 1,) corners or (n, 2) CF bounds, where they are not midway between points.

    Returns
    -------
    numpy.ndarray
        (latitude, longitude) float64, or (latitude, 1) without ``longitude``.
    """
    if latitude_bounds is None:
        rows = latitude_corners(latitude)
    else:
        rows = np.clip(corners_of(latitude_bounds, latitude, axis="latitude"), -90.0, 90.0)
    bands = band_areas(rows)
    if longitude is None:
        return bands[:, None] * (2.0 * np.pi)
    if longitude_bounds is None:
        columns = longitude_corners(longitude)
    else:
        columns = corners_of(longitude_bounds, longitude, axis="longitude")
    return bands[:, None] * np.abs(np.radians(np.diff(columns)))[None, :]


def polygon_areas(latitude_corners: np.ndarray, longitude_corners: np.ndarray) -> np.ndarray:
    r"""Return the areas of cells whose four edges are great circles, as ESMF takes them, in steradians.

    The area between a great-circle edge, whose ends lie at latitude :math:`\varphi` and :math:`\Delta\lambda`
    apart, and the equator is :math:`2\arctan(\tan(\Delta\lambda/2)\,\sin\varphi)`. Such an edge bulges towards
    the pole, so that these areas differ from those of :func:`cell_areas`: by about
    :math:`\Delta\lambda^2/12` of the difference of edges, while a full sphere still sums to :math:`4\pi`.

    Parameters
    ----------
    latitude_corners, longitude_corners
        (n + 1,) and (m + 1,) degrees.

    Returns
    -------
    numpy.ndarray
        (n, m) float64.
    """
    half = np.tan(0.5 * np.radians(np.abs(np.diff(longitude_corners))))
    below = 2.0 * np.arctan(half[None, :] * np.sin(np.radians(latitude_corners))[:, None])
    return np.abs(np.diff(below, axis=0))


def area_weights(
    latitude: np.ndarray, *, kind: str = "exact", latitude_bounds: np.ndarray | None = None
) -> np.ndarray:
    """Return the weight of each row of cells, with mean one.

    Parameters
    ----------
    latitude
        (n,) degrees.
    kind
        ``exact`` for cell areas (difference of sines); ``cosine`` for the cosine of latitude, which is zero
        at the poles.
    latitude_bounds
        (n + 1,) corners or (n, 2) bounds.

    Returns
    -------
    numpy.ndarray
        (n,) float64.
    """
    if kind == "cosine":
        weights = np.clip(np.cos(np.radians(np.asarray(latitude, dtype=np.float64))), 0.0, None)
        weights[np.abs(np.abs(latitude) - 90.0) < 1e-9] = 0.0
    elif kind == "exact":
        weights = cell_areas(latitude, latitude_bounds=latitude_bounds)[:, 0]
    else:
        raise GridError(f"area weights of kind {kind!r} are unknown; there are 'exact' and 'cosine'")
    return weights / weights.mean()


def corners_of(
    bounds: np.ndarray, centres: np.ndarray | None = None, *, axis: str = "cell", where: str = ""
) -> np.ndarray:
    """Return (n + 1,) corners from corners or from contiguous (n, 2) CF bounds.

    The two bounds of a cell may come in either order.

    Parameters
    ----------
    bounds
        (n + 1,) or (n, 2) degrees.
    centres
        (n,) degrees: each cell must enclose its own. Bounds of a longitude may lie full turns away.
    axis
        ``latitude`` or ``longitude``.
    where
        The grid's name, for messages.

    Returns
    -------
    numpy.ndarray
        In the direction of the cells, float64 degrees.

    Raises
    ------
    GridError
        Where bounds are missing, leave gaps between cells or overlap, or do not enclose the centres.
    """
    corners = np.asarray(bounds, dtype=np.float64)
    remedy = "Correct the bounds in the file, or remove its attribute `bounds`: cells then meet midway between points."
    n = corners.shape[0] if corners.ndim == 2 else corners.size - 1
    if corners.ndim not in (1, 2) or corners.shape[1:] not in ((), (2,)) or n < 1:
        raise GridError(
            f"{axis} bounds must have the shape (n + 1,) or (n, 2), not {corners.shape}",
            where=where,
            remedy=remedy,
        )
    if centres is not None and n != np.size(centres):
        raise GridError(
            f"there are {axis} bounds of {n} cells for {np.size(centres)} points", where=where, remedy=remedy
        )
    if not np.isfinite(corners).all():
        raise GridError(f"{axis} bounds are missing in part", where=where, remedy=remedy)
    if corners.ndim == 2:
        corners = _corners_of_pairs(corners, centres, axis, where, remedy)
    elif axis == "longitude" and centres is not None:
        corners = corners + 360.0 * np.round((np.mean(centres) - corners.mean()) / 360.0)
    steps = np.diff(corners)
    if not (np.all(steps > 0) or np.all(steps < 0)) or (
        axis == "longitude" and np.ptp(corners) > 360.0 + 1e-3
    ):
        raise GridError(
            f"{axis} bounds overlap, or are those of cells without extent", where=where, remedy=remedy
        )
    if centres is not None:
        centres = np.asarray(centres, dtype=np.float64)
        low, high = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
        slack = 1e-3 * (high - low) + 1e-6
        outside = (centres < low - slack) | (centres > high + slack)
        if outside.any():
            i = int(np.argmax(outside))
            raise GridError(
                f"{axis} bounds do not enclose the points of {outside.sum()} cells, such as {centres[i]:g} between"
                f" {corners[i]:g} and {corners[i + 1]:g}",
                where=where,
                remedy=remedy,
            )
    return corners


def _corners_of_pairs(
    pairs: np.ndarray, centres: np.ndarray | None, axis: str, where: str, remedy: str
) -> np.ndarray:
    if axis == "longitude" and centres is not None:
        middle = np.asarray(centres, dtype=np.float64)[:, None]
        apart = (middle < pairs.min(axis=1, keepdims=True)) | (middle > pairs.max(axis=1, keepdims=True))
        wide = np.ptp(pairs, axis=1, keepdims=True) > 180.0
        turned = pairs + 360.0 * np.round((middle - pairs) / 360.0)
        pairs = np.where(apart | (wide & (pairs.shape[0] > 2)), turned, pairs)
    ordered = np.sort(pairs, axis=1)
    if pairs[-1].mean() < pairs[0].mean():
        ordered = ordered[:, ::-1]
    width = np.abs(np.diff(ordered, axis=1))[:, 0]
    gaps = np.abs(ordered[1:, 0] - ordered[:-1, 1])
    # Bounds in float32 meet to its rounding only, which is a small part of even a fine cell.
    bad = gaps > 1e-2 * np.minimum(width[1:], width[:-1])
    if bad.any():
        i = int(np.argmax(bad))
        raise GridError(
            f"{axis} bounds leave gaps or overlap, so that cells have no common corners: {ordered[i, 1]:g} and"
            f" {ordered[i + 1, 0]:g} between cells {i} and {i + 1} (counted from 0)",
            where=where,
            remedy=remedy,
        )
    return np.concatenate([ordered[:, 0], ordered[-1:, 1]])


def bounds_from(corners: np.ndarray) -> np.ndarray:
    """Return (n, 2) CF bounds from (n + 1,) corners."""
    return np.stack([corners[:-1], corners[1:]], axis=1)
