"""Units: reading what files write, and the linear conversion to canonical units."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from weathermill.errors import UnitsError

# Whole texts, in lower case, that UDUNITS and pint do not know or know as something else (pint's mb is a millibarn,
# its PA a petaampere, its k Boltzmann's constant).
_SPELLINGS = {
    "%": "percent",
    "mb": "hPa",
    "mbs": "hPa",
    "mbar": "hPa",
    "pa": "Pa",
    "k": "K",
    "m": "m",
    "c": "degC",
    "oc": "degC",
    "ok": "K",
    "m/s": "m s-1",
    "m s-1": "m s-1",
    "mps": "m s-1",
    "pa/s": "Pa s-1",
    "pa s-1": "Pa s-1",
    "kg/kg": "kg kg-1",
    "gp m": "m",
    "gp dam": "dam",
    "per cent": "percent",
    "pct": "percent",
    "1e-3": "g kg-1",
    "1.e-3": "g kg-1",
    "0.001": "g kg-1",
    "code table (4.91)": "1",
}
_DIMENSIONLESS = (
    "(0 - 1)|0 - 1|0-1|(0-1)|[0-1]|0..1|0 to 1|(0,1)|[0,1]|fraction|frac|frac.|proportion|ratio|~|-|--|[]|()"
    "|dimensionless|non-dimensional|nondimensional|non dimensional|nondim|non-dim|unitless|none|numeric|number|1/1"
    "|no units|no unit"
)
_SPELLINGS |= dict.fromkeys(_DIMENSIONLESS.split("|"), "1")

# Words within a text, in lower case.
_WORDS = {
    "pascal": "Pa",
    "hpa": "hPa",
    "mb": "hPa",
    "mbar": "hPa",
    "hectopascal": "hPa",
    "kpa": "kPa",
    "millibar": "hPa",
    "kelvin": "K",
    "celsius": "degC",
    "centigrade": "degC",
    "fahrenheit": "degF",
    "metre": "m",
    "meter": "m",
    "gpm": "m",
    "gpdam": "dam",
    "gpkm": "km",
    "dagpm": "dam",
    "decametre": "dam",
    "decameter": "dam",
    "millimetre": "mm",
    "millimeter": "mm",
    "second": "s",
    "sec": "s",
    "minute": "minute",
    "hour": "hour",
    "hr": "hour",
    "day": "day",
    "kilogram": "kg",
    "gram": "g",
    "gm": "g",
    "joule": "J",
    "watt": "W",
    "percent": "percent",
    "okta": "okta",
    "octa": "okta",
    "eighth": "okta",
    "radian": "radian",
    "pvu": "PVU",
}

# A degree before K, C or F is one of temperature, however it is written: deg K, degrees_C, deg. C, °F.
_TEMPERATURE = re.compile(
    r"^(?:deg(?:ree)?s?\.?|°|º)[ _.]*(?P<scale>k|kelvins?|c|celsius|centigrade|f|fahrenheit)$", re.IGNORECASE
)
_SCALES = {"k": "K", "c": "degC", "f": "degF"}
_OF_WATER = re.compile(
    r"^(?P<unit>\S+) (?:of )?(?:liquid )?(?:water|w\.?e\.?|lwe|h2o)(?: equiv(?:alent|\.)?)?$", re.IGNORECASE
)
_OF_GEOPOTENTIAL = re.compile(r"^geopotential (?P<unit>\S+)$", re.IGNORECASE)
# K (Kelvin) and Percent (%) say one unit twice; [hPa] says it once.
_TWICE = re.compile(r"^(?P<unit>[^()\[\]]+?) [(\[](?P<again>[^()\[\]]+)[)\]]$")
_IN_BRACKETS = re.compile(r"^\[(?P<unit>[^\[\]]*[A-Za-z%][^\[\]]*)\]$")
# UDUNITS allows a number before a unit: 0.1 K, 1e-5 s-1, 10^-6 kg kg-1.
_SCALED = re.compile(
    r"^(?P<factor>\d*\.?\d+(?:e[+-]?\d+)?|\d+\.e[+-]?\d+|10(?:\^|\*\*)[+-]?\d+)[ *.]?(?P<unit>(?!e[+-]?\d)/?[A-Za-z%°].*)$",
    re.IGNORECASE,
)

_STANDARD_WATER_DENSITY = 1000.0
# Cloud cover in eighths of the sky (WMO), and the potential vorticity unit.
_DEFINITIONS = {"okta": "0.125", "PVU": "1e-6 * kelvin * meter ** 2 / kilogram / second"}


@lru_cache(maxsize=512)
def normalise_spelling(units: str) -> str:
    """Return ``units`` in a spelling that the registry knows; unknown spellings come back as they are."""
    text = " ".join(str(units).split())
    if match := _TEMPERATURE.match(text):
        return _SCALES[match["scale"][0].lower()]
    if match := _OF_WATER.match(text) or _OF_GEOPOTENTIAL.match(text):
        text = match["unit"]
    if known := _SPELLINGS.get(text.lower()):
        return known
    if (match := _TWICE.match(text)) and normalise_spelling(match["unit"]) == normalise_spelling(
        match["again"]
    ):
        return normalise_spelling(match["unit"])
    if match := _IN_BRACKETS.match(text):
        return normalise_spelling(match["unit"])
    # GRIB writes m**2 s**-2, GrADS m+2 s-2, CF m2 s-2.
    text = text.replace("**", "").replace("^", "")
    text = re.sub(r"(?<=[A-Za-z])\+(?=\d)", "", text)
    text = re.sub(r"\bper\b", "/", text, flags=re.IGNORECASE)
    text = f"1{text}" if text.startswith("/") else text
    text = re.sub(r"[A-Za-z]+", lambda match: _word(match[0]), text)
    return _SPELLINGS.get(text.lower(), text)


def _word(word: str) -> str:
    lower = word.lower()
    return _WORDS.get(lower, _WORDS.get(lower.removesuffix("s"), word))


@lru_cache(maxsize=1)
def _registry():
    # Slow to import (half a second), and needed only where units differ from the canonical ones.
    logger = logging.getLogger("pint.util")
    level = logger.level
    # cf_xarray redefines units of pint on purpose, and pint warns of each.
    logger.setLevel(logging.ERROR)
    try:
        from cf_xarray.units import units as registry

        for name, definition in _DEFINITIONS.items():
            if name not in registry:
                registry.define(f"{name} = {definition}")
    finally:
        logger.setLevel(level)
    return registry


def _parse(units: str):
    text = normalise_spelling(units)
    try:
        return _registry().Unit("dimensionless" if text == "1" else text)
    except Exception as error:
        raise UnitsError(f"units {units!r} are not understood") from error


def _in_degrees(unit: Any) -> bool:
    """Whether a unit holds degrees of an angle (pint calls those of temperature degree_Celsius and the like)."""
    return any(
        ("degree" in name and "degree_" not in name) or name in ("grade", "turn", "arcminute", "arcsecond")
        for name in unit._units
    )


def _refuse_uncertain(units: str, unit: Any) -> None:
    """Refuse units whose size is not certain: months and years differ in length, and percents of percents are a slip."""
    powers = {str(name): float(power) for name, power in unit._units.items()}
    if any(name in ("month", "year") or name.endswith(("_month", "_year")) for name in powers):
        raise UnitsError(
            f"units {units!r} are not certain: months and years differ in length",
            remedy="Divide by the length of each interval, and give the result in seconds, hours or days.",
        )
    if abs(powers.get("percent", 1.0)) != 1.0:
        raise UnitsError(f"units {units!r} are not understood: they hold percent more than once")


def _is_angle(unit: Any) -> bool:
    return _in_degrees(unit) or "radian" in unit._units


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
        water per area (kg m-2) convert into each other with 1000 kg m-3, and so do their rates.
    """
    if normalise_spelling(units) == normalise_spelling(target):
        return 1.0, 0.0
    if match := _SCALED.match(" ".join(units.split())):
        scale, offset = linear_conversion(match["unit"], target)
        if offset != 0.0:
            # 0.1 degC is a tenth of a degree above 0 degC by UDUNITS, and not by all who write it.
            raise UnitsError(
                f"units {units!r} are not certain: a factor before a unit with a zero of its own"
            )
        factor = float(re.sub(r"^10(?:\^|\*\*)", "1e", match["factor"]))
        if factor == 0.0:
            raise UnitsError(f"units {units!r} are not understood")
        return factor * scale, 0.0
    source, goal = _parse(units), _parse(target)
    _refuse_uncertain(units, source)
    registry = _registry()
    factor = 1.0
    if (_in_degrees(source) and not _is_angle(goal)) or (_in_degrees(goal) and not _is_angle(source)):
        # pint takes angles for plain numbers: a degree that is none of an angle would scale by pi / 180.
        raise UnitsError(f"units {units!r} cannot be converted to {target!r}")
    if not source.is_compatible_with(goal):
        density = registry.Unit("kg m-3")
        masses = [registry.Unit(text) for text in ("kg m-2", "kg m-2 s-1")]
        depths = [registry.Unit(text) for text in ("m", "m s-1")]
        for mass, depth in zip(masses, depths, strict=True):
            if source.is_compatible_with(mass) and goal.is_compatible_with(depth):
                factor, goal = 1.0 / _STANDARD_WATER_DENSITY, goal * density
                break
            if source.is_compatible_with(depth) and goal.is_compatible_with(mass):
                factor, goal = _STANDARD_WATER_DENSITY, goal / density
                break
        else:
            raise UnitsError(f"units {units!r} cannot be converted to {target!r}")
    at_zero = float(registry.Quantity(0.0, source).to(goal).magnitude)
    # A wide base keeps the rounding of shifted scales (274.15 - 273.15) out of the slope.
    base = 1.0e6
    scale = (float(registry.Quantity(base, source).to(goal).magnitude) - at_zero) / base
    return float(f"{scale:.15g}") * factor, at_zero * factor
