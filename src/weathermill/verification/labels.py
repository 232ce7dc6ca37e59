"""How channels, units and numbers are written in tables and figures."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

_SYMBOLS = {
    "geopotential": "Z",
    "temperature": "T",
    "u_component_of_wind": "U",
    "v_component_of_wind": "V",
    "specific_humidity": "Q",
    "relative_humidity": "R",
    "vertical_velocity": "W",
    "2m_temperature": "T2M",
    "2m_dewpoint_temperature": "D2M",
    "10m_u_component_of_wind": "U10M",
    "10m_v_component_of_wind": "V10M",
    "mean_sea_level_pressure": "MSLP",
    "surface_pressure": "SP",
    "sea_surface_temperature": "SST",
    "total_column_water_vapour": "TCWV",
    "total_precipitation": "TP",
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def split_channel(channel: str) -> tuple[str, float | None]:
    """Split a channel's name into variable and level: "geopotential_500" -> ("geopotential", 500.0)."""
    match = re.fullmatch(r"(.+?)_(\d+(?:\.\d+)?)", str(channel))
    return (match[1], float(match[2])) if match else (str(channel), None)


def short_name(channel: str) -> str:
    """Return the symbol that forecasters write, such as Z500 or T2M; the name itself where there is none."""
    variable, level = split_channel(channel)
    if variable not in _SYMBOLS:
        return str(channel)
    return _SYMBOLS[variable] + ("" if level is None else f"{level:g}")


def long_name(channel: str) -> str:
    """Return the name in words: "Geopotential at 500 hPa", "2 m temperature"."""
    variable, level = split_channel(channel)
    words = re.sub(r"^(\d+)m ", r"\1 m ", variable.replace("_", " "))
    words = words.replace("u component of wind", "zonal wind").replace(
        "v component of wind", "meridional wind"
    )
    words = words[:1].upper() + words[1:]
    return words if level is None else f"{words} at {level:g} hPa"


def units_label(units: str) -> str:
    """Return CF units as printed in figures: "m2 s-2" -> "m² s⁻²"."""
    if not units or units == "1":
        return "1"
    return re.sub(r"(?<=[A-Za-z])(?:\^|\*\*)?(-?\d+)", lambda match: match[1].translate(_SUPERSCRIPTS), units)


def squared_units_label(units: str) -> str:
    """Return the square of CF units as printed in figures: "m2 s-2" -> "m⁴ s⁻⁴"."""
    if not units or units == "1":
        return "1"
    parts = []
    for symbol, exponent in re.findall(r"([^\W\d]+)(?:\^|\*\*)?(-?\d+)?", units):
        parts.append(symbol + str(2 * int(exponent or 1)).translate(_SUPERSCRIPTS))
    return " ".join(parts)


def display_units(units: str, magnitude: float) -> tuple[float, str]:
    """Choose the units that forecasters read, for values of a magnitude.

    Parameters
    ----------
    units
        CF units of the values.
    magnitude
        Largest absolute value to show, in those units.

    Returns
    -------
    factor
        What to multiply the values with.
    label
        The units as printed: humidities in g kg⁻¹ or mg kg⁻¹, pressures in hPa, others unchanged.
    """
    if units == "kg kg-1" and np.isfinite(magnitude):
        return (1e3, "g kg⁻¹") if magnitude >= 1e-4 else (1e6, "mg kg⁻¹")
    if units == "Pa":
        return 1e-2, "hPa"
    return 1.0, units_label(units)


def channel_units(scores: xr.Dataset, channel: str) -> str:
    """Return the units of a channel of the scores; empty where they are unknown."""
    return str(scores["units"].sel(channel=channel).item()) if "units" in scores.coords else ""


def region_label(region: str) -> str:
    """Return a region's name in words."""
    names = {
        "domain": "whole domain",
        "extratropics_north": "northern extratropics",
        "extratropics_south": "southern extratropics",
    }
    return names.get(region, region.replace("_", " "))


def counted(count: int | str, noun: str) -> str:
    """Return a count with its noun in the right number: "1 initial time", "24 initial times"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ratio_text(ratio: float) -> str:
    """Format a ratio of errors: two decimals, three significant digits from 100 on, "-" where it is not finite."""
    if not np.isfinite(ratio):
        return "-"
    return f"{ratio:.2f}" if ratio < 100 else number(float(f"{ratio:.3g}"))


def number(value: float) -> str:
    """Format to three or four significant digits, without needless exponents."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else f"{value}"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        digits = next((d for d, least in enumerate((1000, 100, 1, 0.01)) if abs(value) >= least), 4)
        return f"{value:.{digits}f}"
    return f"{value:.2e}"
