"""The angle between east and the x axis of a curvilinear grid, and turning vectors by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

from weathermill.errors import GridError
from weathermill.fields.cell_vertices import unit_vectors

# An angle from the coordinates and one from the projection's formula that differ by more contradict one another.
_AGREEMENT = np.radians(1.5)

# The cosine of the angle between the axes up to which they count as perpendicular: 3 degrees off.
_SKEW = 0.052

# Radians over which differences are taken where coordinates are rounded to float32: a quarter of a degree.
_ROUNDED = np.radians(0.25)

_REMEDY = "Turn the winds to east and north before (`cdo rotuvb` does for rotated poles), or leave them out."


@dataclass(frozen=True)
class AxisDirections:
    """Which dimension of a grid's latitudes is its x axis, and which way x and y grow along their dimensions.

    ``x`` and ``y`` are 1 where the coordinate grows with the index and -1 where it falls; ``y`` is 0 where that is not
    known.
    """

    x_dimension: int = 1
    x: int = 1
    y: int = 0


def grid_angle(
    latitude: np.ndarray,
    longitude: np.ndarray,
    directions: AxisDirections | None = None,
    mapping: Mapping[str, Any] | None = None,
    *,
    where: str = "",
) -> np.ndarray:
    """Return the angle from east to the x axis of a grid at its points, counter-clockwise.

    The axis is the tangent of the row of points, by differences of fourth order between points on the sphere, so that
    poles and the date line are no special places; y lies a right angle to the left of x, in whatever order the rows
    are stored. Where the projection is known, its own formula is taken, if it agrees.

    Parameters
    ----------
    latitude, longitude
        (n, m) degrees.
    directions
        Of the axes; None where nothing says which dimension is x. The second is taken then, if the two dimensions are
        right-handed.
    mapping
        Attributes of a CF grid mapping, or None.
    where
        The source's name, for messages.

    Returns
    -------
    numpy.ndarray
        (n, m) float64 radians, from -pi to pi.

    Raises
    ------
    GridError
        Where the grid does not tell: axes that are not perpendicular or fold, too few points, or coordinates and grid
        mapping that contradict one another.
    """
    if min(latitude.shape) < 2:
        raise GridError(f"a grid of {latitude.shape} points has no two axes", where=where, remedy=_REMEDY)
    known, directions = directions is not None, directions or AxisDirections()
    points = unit_vectors(latitude, longitude)
    # Between points in float32 that lie close together, differences are mostly rounding.
    coarse = all(np.array_equal(a, np.asarray(a, dtype=np.float32)) for a in (latitude, longitude))
    x, y = (
        _tangent(points, axis, _ROUNDED if coarse else 0.0)
        for axis in (directions.x_dimension, 1 - directions.x_dimension)
    )
    x *= directions.x
    hand = np.sign(np.einsum("...k,...k->...", np.cross(x, y), points))
    lengths = [np.sqrt(np.einsum("...k,...k->...", a, a)) for a in (x, y)]
    flat = [length < 1e-6 * np.median(length) for length in lengths]
    whole = ~flat[0] & ~flat[1]
    turns = hand[whole]
    if turns.size == 0 or (flat[0] & flat[1]).any():
        raise GridError(
            "points of the grid coincide, which leaves it without axes", where=where, remedy=_REMEDY
        )
    left_handed = turns.sum() < 0
    if np.mean(turns != np.sign(turns.sum())) > 0.01:
        raise GridError("the grid is folded: its axes change hands", where=where, remedy=_REMEDY)
    if not known and left_handed:
        raise GridError(
            "nothing says which dimension of the grid is its x axis, and which way it grows",
            where=where,
            remedy="Give the file its projection coordinates (standard names projection_x_coordinate and"
            " projection_y_coordinate, or grid_longitude and grid_latitude).",
        )
    if directions.y and left_handed != (directions.y < 0):
        raise GridError(
            "the projection coordinates x and y contradict latitude and longitude",
            where=where,
            remedy=_REMEDY,
        )
    skew = np.abs(np.einsum("...k,...k->...", x, y)[whole]) / (lengths[0] * lengths[1])[whole]
    if np.quantile(skew, 0.99) > _SKEW:
        raise GridError(
            f"the axes of the grid are not perpendicular, but off by up to {np.degrees(np.arcsin(skew.max())):.3g}"
            " degrees",
            where=where,
            remedy=_REMEDY,
        )
    # Where a row shrinks to a point, the column tells.
    y_up = y * np.where(whole, hand, -1.0 if left_handed else 1.0)[..., None]
    axis = np.where(flat[0][..., None], np.cross(y_up, points), x)
    angle = angle_of(axis, latitude, longitude)
    exact = formula_angle(mapping or {}, latitude, longitude)
    if exact is None:
        return angle
    exact = np.where(np.isnan(exact), angle, exact)
    apart = np.abs(wrapped(exact - angle))[whole]
    if np.quantile(apart, 0.99) > _AGREEMENT:
        raise GridError(
            f"the grid mapping {mapping['grid_mapping_name'] if mapping else ''} contradicts latitude and longitude:"
            f" the x axes differ by up to {np.degrees(apart.max()):.3g} degrees",
            where=where,
            remedy="Correct the attributes of the grid mapping, or the coordinates.",
        )
    return exact


def angle_of(axis: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return the angle from east to vectors (n, m, 3) at points in degrees, counter-clockwise, in radians."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    zero = np.zeros_like(phi)
    east = np.stack([-np.sin(lam), np.cos(lam), zero], axis=-1)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], axis=-1)
    return np.arctan2(np.einsum("...k,...k->...", axis, north), np.einsum("...k,...k->...", axis, east))


def formula_angle(
    mapping: Mapping[str, Any], latitude: np.ndarray, longitude: np.ndarray
) -> np.ndarray | None:
    r"""Return the angle from east to the x axis by the formula of a projection, or None without one.

    On a conic projection east makes the angle :math:`n(\lambda - \lambda_0)` with x (Snyder, 1987, eq. 14-4 and 15-1);
    n is 1 or -1 for the stereographic projection from the south or north pole, 0 for Mercator's. On a rotated pole the y
    axis points along the great circle to the grid's north pole.

    Parameters
    ----------
    mapping
        Attributes of a CF grid mapping.
    latitude, longitude
        Degrees.
    """
    name = mapping.get("grid_mapping_name")
    try:
        if name == "rotated_latitude_longitude":
            pole = unit_vectors(
                _number(mapping["grid_north_pole_latitude"]), _number(mapping["grid_north_pole_longitude"])
            )
            axis = np.cross(pole, unit_vectors(latitude, longitude))
            # At the grid's own pole the formula says nothing.
            lost = np.einsum("...k,...k->...", axis, axis) < 1e-14
            return np.where(lost, np.nan, angle_of(axis, latitude, longitude))
        if name == "mercator":
            return np.zeros(np.shape(latitude))
        if name == "lambert_conformal_conic":
            cone, meridian = _cone(mapping), _number(mapping["longitude_of_central_meridian"])
        elif name == "polar_stereographic":
            cone = float(np.sign(_number(mapping["latitude_of_projection_origin"])))
            key = "straight_vertical_longitude_from_pole"
            meridian = _number(mapping[key if key in mapping else "longitude_of_projection_origin"])
        else:
            return None
    except (KeyError, ValueError, TypeError):
        return None
    return wrapped(-cone * np.radians(np.mod(longitude - meridian + 180.0, 360.0) - 180.0))


def _number(value: Any) -> float:
    return float(np.asarray(value, dtype=np.float64).reshape(-1)[0])


def _cone(mapping: Mapping[str, Any]) -> float:
    """Return the constant n of a conformal cone (Snyder, 1987, eq. 15-8, with 14-15 and 15-9)."""
    phi = np.radians(np.asarray(mapping["standard_parallel"], dtype=np.float64).reshape(-1))
    if phi.size == 1 or phi[0] == phi[1]:
        return float(np.sin(phi[0]))
    flattening = _number(mapping.get("inverse_flattening", 0.0))
    square = 0.0 if flattening == 0.0 else (2.0 - 1.0 / flattening) / flattening
    if "semi_minor_axis" in mapping and "semi_major_axis" in mapping:
        square = 1.0 - (_number(mapping["semi_minor_axis"]) / _number(mapping["semi_major_axis"])) ** 2
    e, sine = np.sqrt(square), np.sin(phi)
    m = np.cos(phi) / np.sqrt(1.0 - square * sine**2)
    t = np.tan(0.25 * np.pi - 0.5 * phi) / ((1.0 - e * sine) / (1.0 + e * sine)) ** (0.5 * e)
    return float(np.log(m[0] / m[1]) / np.log(t[0] / t[1]))


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Return an angle in radians between -pi and pi."""
    return np.mod(angle + np.pi, 2.0 * np.pi) - np.pi


def _tangent(points: np.ndarray, axis: int, reach: float) -> np.ndarray:
    """Return derivatives of points along a dimension by its index, in the planes that touch the sphere there.

    By differences of fourth order between points that lie about ``reach`` radians apart, or next to each other.
    """
    moved = np.moveaxis(points, axis, 0)
    n = moved.shape[0]
    if n < 6:
        derivative = np.gradient(moved, axis=0, edge_order=min(2, n - 1))
    else:
        step = np.median(np.linalg.norm(np.diff(moved, axis=0), axis=-1))
        k = int(np.clip(reach / max(step, 1e-12), 1, n // 6))
        ahead = sum(c * moved[i * k : n - (4 - i) * k] for i, c in enumerate((-25, 48, -36, 16, -3)))
        behind = sum(-c * moved[(4 - i) * k : n - i * k] for i, c in enumerate((-25, 48, -36, 16, -3)))
        derivative = np.empty_like(moved)
        derivative[: 2 * k], derivative[n - 2 * k :] = ahead[: 2 * k], behind[-2 * k :]
        middle = 8.0 * (moved[3 * k : n - k] - moved[k : n - 3 * k]) - (moved[4 * k :] - moved[: n - 4 * k])
        derivative[2 * k : n - 2 * k] = middle
    derivative = np.moveaxis(derivative, 0, axis)
    return derivative - np.einsum("...k,...k->...", derivative, points)[..., None] * points


def turn(x: da.Array, y: da.Array, angle: np.ndarray) -> tuple[da.Array, da.Array]:
    """Return the components to east and north of vectors given along a grid's axes, lazily.

    Parameters
    ----------
    x, y
        (..., n, m) float32, chunked alike, whole in the last two dimensions.
    angle
        (n, m) radians, from :func:`grid_angle`.

    Returns
    -------
    tuple of dask.array.Array
        Eastward and northward, float32, rounded once; missing where either component is.
    """
    cosine, sine = (da.from_array(function(angle), chunks=-1) for function in (np.cos, np.sin))
    y = y.rechunk(x.chunks)
    meta = np.empty((0,) * x.ndim, dtype=np.float32)
    return tuple(
        da.map_blocks(function, x, y, cosine, sine, dtype=np.float32, meta=meta)
        for function in (_east, _north)
    )


def _east(x: np.ndarray, y: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    return (x * cosine - y * sine).astype(np.float32)


def _north(x: np.ndarray, y: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    return (x * sine + y * cosine).astype(np.float32)
