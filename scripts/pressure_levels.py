"""From a terrain-following model grid to what a reanalysis archive holds.

Sigma levels to pressure levels, sea-level pressure, and Gaussian to equally spaced latitudes. NumPy and SciPy only. The
vertical part follows Trenberth, Berry and Buja (1993), "Vertical Interpolation and Truncation of Model-Coordinate Data",
NCAR/TN-396+STR, which describes what ECMWF's post-processing does below the lowest model level and below ground.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

GAS_CONSTANT = 287.0597
"""Of dry air, J kg-1 K-1 (IFS value)."""
GRAVITY = 9.80665
"""Standard gravity, m s-2."""
LAPSE_RATE = 0.0065
"""Of the standard atmosphere, K m-1."""

_WARM_LIMIT = 290.5
_COLD_LIMIT = 255.0
_PLATEAU_TEMPERATURE = 298.0


class Column(NamedTuple):
    """The state of one or many model columns; the level axis is first and goes downwards.

    Attributes
    ----------
    pressure : ndarray (level, ...)
        Pressure of the full levels, Pa, increasing along the first axis.
    surface_pressure : ndarray (...)
        Pa.
    surface_geopotential : ndarray (...)
        m2 s-2.
    temperature : ndarray (level, ...)
        K.
    geopotential : ndarray (level, ...)
        m2 s-2.
    """

    pressure: np.ndarray
    surface_pressure: np.ndarray
    surface_geopotential: np.ndarray
    temperature: np.ndarray
    geopotential: np.ndarray


def surface_temperature(column: Column) -> np.ndarray:
    """Temperature at the surface, from the lowest level and the standard lapse rate (K).

    Trenberth et al. (1993), equation 5: the lowest full level is followed down to the surface in pressure.
    """
    exponent = LAPSE_RATE * GAS_CONSTANT / GRAVITY
    return column.temperature[-1] * (1.0 + exponent * (column.surface_pressure / column.pressure[-1] - 1.0))


def _reduction(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Surface temperature and lapse-rate exponent for reducing pressure or geopotential below ground.

    The exponent is that of the standard lapse rate, lessened where it would end in air warmer than 290.5 K at sea level and,
    for surfaces colder than 255 K, kept from a very deep cold layer (Trenberth et al. 1993, section on sea-level pressure).
    """
    surface = surface_temperature(column)
    height = column.surface_geopotential / GRAVITY
    sea_level = surface + LAPSE_RATE * height
    exponent = np.full_like(surface, LAPSE_RATE * GAS_CONSTANT / GRAVITY)
    geopotential = np.where(np.abs(column.surface_geopotential) < 1.0, 1.0, column.surface_geopotential)
    partly_warm = (surface <= _WARM_LIMIT) & (sea_level > _WARM_LIMIT)
    exponent = np.where(partly_warm, GAS_CONSTANT * (_WARM_LIMIT - surface) / geopotential, exponent)
    warm = (surface > _WARM_LIMIT) & (sea_level > _WARM_LIMIT)
    exponent = np.where(warm, 0.0, exponent)
    surface = np.where(warm, 0.5 * (_WARM_LIMIT + surface), surface)
    surface = np.where(surface < _COLD_LIMIT, 0.5 * (_COLD_LIMIT + surface), surface)
    return surface, exponent


def sea_level_pressure(column: Column) -> np.ndarray:
    """Mean sea level pressure, Pa, of each column (barometric reduction, Trenberth et al. 1993)."""
    surface, exponent = _reduction(column)
    x = column.surface_geopotential / (GAS_CONSTANT * surface)
    ax = exponent * x
    return column.surface_pressure * np.exp(x * (1.0 - ax / 2.0 + ax**2 / 3.0))


def _bracket(column: Column, target: float) -> tuple[np.ndarray, np.ndarray]:
    """Index of the level above the target, and the target's place in ln p between it and the next (0 to 1)."""
    if np.any(column.pressure[0] > target):
        raise ValueError(
            f"{target / 100:g} hPa lies above the uppermost model level "
            f"({np.max(column.pressure[0]) / 100:.1f} hPa in places): choose levels inside the model's atmosphere"
        )
    levels = column.pressure.shape[0]
    upper = np.clip((column.pressure <= target).sum(axis=0) - 1, 0, levels - 2)
    p_upper = np.take_along_axis(column.pressure, upper[None], axis=0)[0]
    p_lower = np.take_along_axis(column.pressure, upper[None] + 1, axis=0)[0]
    return upper, np.log(target / p_upper) / np.log(p_lower / p_upper)


def interpolate(field: np.ndarray, column: Column, target: float) -> np.ndarray:
    """Interpolate linearly in ln p to one pressure; below the lowest level its value holds.

    Parameters
    ----------
    field : ndarray (level, ...)
        Wind component or specific humidity on the column's levels.
    column : Column
        The columns that the field belongs to.
    target : float
        Pressure, Pa.

    Raises
    ------
    ValueError
        Where the target lies above the uppermost level of any column.
    """
    upper, weight = _bracket(column, target)
    weight = np.clip(weight, 0.0, 1.0)
    above = np.take_along_axis(field, upper[None], axis=0)[0]
    below = np.take_along_axis(field, upper[None] + 1, axis=0)[0]
    return above + weight * (below - above)


def interpolate_temperature(column: Column, target: float) -> np.ndarray:
    """Temperature at one pressure, K: linear in ln p, then to the surface, then on below ground.

    Below ground the surface temperature follows the standard lapse rate; over terrain higher than 2000 m the sea-level
    temperature is held to 298 K at most (Trenberth et al. 1993), so that plateaus stay plausible.
    """
    inside = interpolate(column.temperature, column, target)
    surface = surface_temperature(column)
    lowest, ground = column.pressure[-1], column.surface_pressure
    near_surface = column.temperature[-1] + (surface - column.temperature[-1]) * (target - lowest) / (
        ground - lowest
    )
    height = column.surface_geopotential / GRAVITY
    sea_level = surface + LAPSE_RATE * height
    plateau = np.minimum(sea_level, _PLATEAU_TEMPERATURE)
    blend = np.clip((height - 2000.0) / 500.0, 0.0, 1.0)
    sea_level = (1.0 - blend) * sea_level + blend * plateau
    lapse = np.where(
        height > 2000.0, np.maximum(sea_level - surface, 0.0) / np.maximum(height, 1.0), LAPSE_RATE
    )
    y = lapse * GAS_CONSTANT / GRAVITY * np.log(target / ground)
    below_ground = surface * (1.0 + y + y**2 / 2.0 + y**3 / 6.0)
    return np.where(target > ground, below_ground, np.where(target > lowest, near_surface, inside))


def interpolate_geopotential(column: Column, target: float) -> np.ndarray:
    """Geopotential at one pressure, m2 s-2, hydrostatic at both ends of every layer.

    Between two levels a cubic in ln p takes both geopotentials and, as slopes, -R T at both levels; between the lowest level
    and the surface likewise; below ground the hydrostatic integral of the extrapolated temperature (Trenberth et al. 1993).
    """
    upper, weight = _bracket(column, target)

    def at(values: np.ndarray, offset: int) -> np.ndarray:
        return np.take_along_axis(values, upper[None] + offset, axis=0)[0]

    depth = np.log(at(column.pressure, 1) / at(column.pressure, 0))
    inside = _hermite(
        weight, depth, at(column.geopotential, 0), at(column.geopotential, 1), at(column.temperature, 0),
        at(column.temperature, 1),
    )  # fmt: skip
    lowest, ground = column.pressure[-1], column.surface_pressure
    depth = np.log(ground / lowest)
    near_surface = _hermite(
        np.log(target / lowest) / depth, depth, column.geopotential[-1], column.surface_geopotential,
        column.temperature[-1], surface_temperature(column),
    )  # fmt: skip
    surface, exponent = _reduction(column)
    log_ratio = np.log(target / ground)
    y = exponent * log_ratio
    below_ground = column.surface_geopotential - GAS_CONSTANT * surface * log_ratio * (
        1.0 + y / 2.0 + y**2 / 6.0
    )
    return np.where(target > ground, below_ground, np.where(target > lowest, near_surface, inside))


def _hermite(weight, depth, z_upper, z_lower, t_upper, t_lower):
    slope_upper, slope_lower = -GAS_CONSTANT * t_upper * depth, -GAS_CONSTANT * t_lower * depth
    w2, w3 = weight**2, weight**3
    return (
        (2 * w3 - 3 * w2 + 1) * z_upper
        + (w3 - 2 * w2 + weight) * slope_upper
        + (3 * w2 - 2 * w3) * z_lower
        + (w3 - w2) * slope_lower
    )


def meridian_weights(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights of a periodic cubic spline along great circles through the poles.

    Parameters
    ----------
    source : ndarray (n,)
        Latitudes of the rows, degrees, ascending, without the poles (Gaussian, say).
    target : ndarray (m,)
        Latitudes wanted, degrees, any order.

    Returns
    -------
    ndarray (m, 2 n), float64
        Weights of the n rows at a longitude (first half) and of the same rows at the opposite longitude (second half).
    """
    angles = np.concatenate([source, 180.0 - source[::-1]])
    nodes = np.concatenate([angles, angles[:1] + 360.0])
    unit = np.eye(len(angles))
    spline = CubicSpline(nodes, np.concatenate([unit, unit[:1]]), axis=0, bc_type="periodic")
    wanted = np.where(target < angles[0], target + 360.0, target)
    weights = spline(wanted)
    rows = len(source)
    return np.concatenate([weights[:, :rows], weights[:, rows:][:, ::-1]], axis=1)


def to_latitudes(field: np.ndarray, weights: np.ndarray, *, vector: bool = False) -> np.ndarray:
    """Apply `meridian_weights` to a field (..., latitude, longitude) with an even number of longitudes.

    Components of a vector change sign across a pole: say ``vector=True`` for them.
    """
    rows, longitudes = field.shape[-2:]
    if longitudes % 2:
        raise ValueError(f"{longitudes} longitudes: the meridian opposite exists only for an even number")
    opposite = np.roll(field, longitudes // 2, axis=-1) * (-1.0 if vector else 1.0)
    here, there = weights[:, :rows], weights[:, rows:]
    return np.einsum("mn,...nl->...ml", here, field) + np.einsum("mn,...nl->...ml", there, opposite)
