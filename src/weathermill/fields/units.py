"""Units: reading what files write, and the linear conversion to canonical units."""

from __future__ import annotations

import logging
from functools import lru_cache

from weathermill.errors import UnitsError

# What files say that UDUNITS and pint do not know, or know as something else (pint's mb is a millibarn).
_SPELLINGS = {
    "mb": "hPa",
    "millibar": "hPa",
    "millibars": "hPa",
    "(0 - 1)": "1",
    "0 - 1": "1",
    "0-1": "1",
    "(0-1)": "1",
    "fraction": "1",
    "~": "1",
    "-": "1",
    "dimensionless": "1",
    "none": "1",
    "numeric": "1",
    "code table (4.91)": "1",
    "gpm": "m",
    "geopotential meter": "m",
    "geopotential meters": "m",
    "m of water equivalent": "m",
    "m of water": "m",
    "degree_c": "degC",
    "deg c": "degC",
    "degrees celsius": "degC",
    "c": "degC",
    "degk": "K",
    "deg_k": "K",
    "degreesk": "K",
    "kelvins": "K",
    "metres": "m",
    "meters": "m",
    "radians": "radian",
}

_STANDARD_WATER_DENSITY = 1000.0


def normalise_spelling(units: str) -> str:
    """Return ``units`` in a spelling that the registry knows; unknown spellings come back as they are."""
    stripped = " ".join(str(units).split())
    # GRIB writes m**2 s**-2, CF m2 s-2.
    return _SPELLINGS.get(stripped.lower(), stripped.replace("**", "").replace("^", ""))


@lru_cache(maxsize=1)
def _registry():
    # Slow to import (half a second), and needed only where units differ from the canonical ones.
    logger = logging.getLogger("pint.util")
    level = logger.level
    # cf_xarray redefines units of pint on purpose, and pint warns of each.
    logger.setLevel(logging.ERROR)
    try:
        from cf_xarray.units import units as registry
    finally:
        logger.setLevel(level)
    return registry


def _parse(units: str):
    text = normalise_spelling(units)
    try:
        return _registry().Unit("dimensionless" if text == "1" else text)
    except Exception as error:
        raise UnitsError(f"units {units!r} are not understood") from error


@lru_cache(maxsize=512)
def linear_conversion(units: str, target: str) -> tuple[float, float]:
    """Return ``(scale, offset)`` such that ``value * scale + offset`` is in ``target`` units.

    Parameters
    ----------
    units, target
        UDUNITS or CF strings (``m**2 s**-2``, ``degC``, ``millibars``).

    Returns
    -------
    tuple of float
        ``(1.0, 0.0)`` exactly where both mean the same.

    Raises
    ------
    UnitsError
        Where either is not understood, or they measure different things. A depth of water (m) and a mass of
        water per area (kg m-2) convert into each other with 1000 kg m-3.
    """
    if normalise_spelling(units) == normalise_spelling(target):
        return 1.0, 0.0
    source, goal = _parse(units), _parse(target)
    registry = _registry()
    factor = 1.0
    if not source.is_compatible_with(goal):
        areal_mass, depth = registry.Unit("kg m-2"), registry.Unit("m")
        if source.is_compatible_with(areal_mass) and goal.is_compatible_with(depth):
            factor = 1.0 / _STANDARD_WATER_DENSITY
            goal = registry.Unit(f"({goal}) * kg / m**3")
        else:
            raise UnitsError(f"units {units!r} cannot be converted to {target!r}")
    at_zero = float(registry.Quantity(0.0, source).to(goal).magnitude)
    # A wide base keeps the rounding of shifted scales (274.15 - 273.15) out of the slope.
    base = 1.0e6
    scale = (float(registry.Quantity(base, source).to(goal).magnitude) - at_zero) / base
    return float(f"{scale:.15g}") * factor, at_zero * factor
