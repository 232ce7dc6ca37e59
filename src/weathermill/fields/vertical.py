"""Vertical coordinates: which are pressures, which are not, and pressures in hPa."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import UnitsError
from weathermill.fields.findings import Finding, tell
from weathermill.fields.units import linear_conversion, normalise_spelling

#: Names that do not say what kind of level they count.
PLAIN_NAMES = ("level", "lev", "levels", "z", "vertical", "levelist", "plevel")
_PRESSURE_NAMES = (
    "pressure_level",
    "pressure_levels",
    "plev",
    "plevs",
    "isobaricinhpa",
    "isobaricinpa",
    "isobaric",
    "pressure",
)
_BY_NAME = {
    "hybrid": "model levels",
    "sigma": "sigma levels",
    "eta": "model levels",
    "modellevel": "model levels",
    "model_level": "model levels",
    "model_levels": "model levels",
    "model_level_number": "model levels",
    "hybrid_level": "model levels",
    "bottom_top": "model levels",
    "bottom_top_stag": "model levels",
    "ilev": "model levels",
    "mlev": "model levels",
    "nhym": "model levels",
    "nhyi": "model levels",
    "sigma_level": "sigma levels",
    "theta": "levels of potential temperature",
    "theta_level": "levels of potential temperature",
    "isentropic": "levels of potential temperature",
    "height": "heights",
    "heightaboveground": "heights",
    "height_above_ground": "heights",
    "z_height": "heights",
    "altitude": "heights",
    "depth": "depths",
    "depthbelowland": "depths",
    "depthbelowlandlayer": "depths",
    "soil_level": "depths",
}
_BY_STANDARD_NAME = (
    ("atmosphere_sigma", "sigma levels"),
    ("ocean_", "depths"),
    ("atmosphere_", "model levels"),
    ("model_level", "model levels"),
    ("air_potential_temperature", "levels of potential temperature"),
    ("height", "heights"),
    ("altitude", "heights"),
    ("geopotential_height", "heights"),
    ("depth", "depths"),
)
# Words of a long name that hold whatever the units say: nominal pressures of model levels are no pressure levels.
_BY_WORDS = (
    (re.compile(r"\b(log|ln|logarithm|logarithmic)\b.*pressure|pressure.*\blog"), "logarithms of pressure"),
    (re.compile(r"\bsigma\b(?!.*pressure)"), "sigma levels"),
    (re.compile(r"hybrid|sigma|\beta\b|model[ _-]?lev|terrain"), "model levels"),
    (re.compile(r"\btheta\b|isentrop|potential temperature"), "levels of potential temperature"),
)
# Words that hold where the units are no pressure.
_BY_OTHER_WORDS = (
    (
        re.compile(r"\bmodel\b|\blayer\b|\b(number|index|indices|count)\b|generali[sz]ed vertical"),
        "model levels",
    ),
    (re.compile(r"height|altitude|elevation"), "heights"),
    (re.compile(r"depth|soil"), "depths"),
)
_COUNTS = (
    "level",
    "levels",
    "layer",
    "layers",
    "index",
    "count",
    "model_level",
    "sigma_level",
    "sigma",
    "eta",
)

# Levels in hPa that are in common use; ERA5's 37 and those of other centres.
_UPPER = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 80, 100, 115, 125, 130, 150, 170)
_USUAL = frozenset(map(float, (*_UPPER, *range(175, 1001, 25))))
# The most levels that a model numbers: numbers up to here may be levels of a model, or the uppermost hPa.
_MOST_MODEL_LEVELS = 200.0

# hPa; no level of any weather model lies as deep, and in the ocean 2 m of water do.
_HIGHEST_PRESSURE = 1200.0
# Pa; levels in hPa that are said to be in Pa end here, far up in the stratosphere.
_SAID_IN_PASCALS = (500.0, 1100.0)

_TEXT = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*$")


@dataclass(frozen=True)
class Vertical:
    """What a coordinate counts.

    Attributes
    ----------
    pressure
        Whether it is pressure.
    words
        What it is, for messages: "sigma levels", "heights"; empty for pressure, and where it is no vertical coordinate.
    remedy
        What to do where it is pressure all the same; may be empty.
    unit
        The unit to assume where the file says none.
    """

    pressure: bool
    words: str = ""
    remedy: str = ""
    unit: str = ""


_NO_VERTICAL = Vertical(False)


def is_pressure_unit(units: str) -> bool:
    """Return whether units measure pressure."""
    if not units:
        return False
    try:
        linear_conversion(units, "Pa")
    except UnitsError:
        return False
    return True


def vertical_of(name: Hashable, variable: xr.Variable | xr.DataArray | None) -> Vertical:
    """Say what a coordinate or dimension counts, by its name, attributes and values.

    ``formula_terms``, the standard name and the long name go before units, since model levels often come with nominal
    pressures; where there are no units, values decide, and what they leave open is no pressure.

    Parameters
    ----------
    name, variable
        A dimension and its coordinate, or None without one.
    """
    lower = str(name).lower()
    if variable is None:
        return Vertical(False, _BY_NAME[lower]) if lower in _BY_NAME else _NO_VERTICAL
    attrs = variable.attrs
    if "formula_terms" in attrs or "formula_terms" in variable.encoding:
        return Vertical(False, "model levels")
    standard_name = str(attrs.get("standard_name", "")).lower()
    for start, words in _BY_STANDARD_NAME:
        if standard_name.startswith(start):
            return Vertical(False, words)
    if lower in _BY_NAME and standard_name != "air_pressure":
        return Vertical(False, _BY_NAME[lower])
    long_name = str(attrs.get("long_name", "")).lower()
    for pattern, words in _BY_WORDS:
        if pattern.search(long_name):
            return Vertical(False, words)
    if variable.dtype.kind in "OUS":
        return _of_texts(lower, variable)
    if variable.dtype.kind not in "iuf":
        return _NO_VERTICAL
    units = str(attrs.get("units", "")).strip()
    if is_pressure_unit(units):
        return _within_the_atmosphere(lower, units, np.asarray(variable.values, dtype=np.float64).reshape(-1))
    candidate = standard_name == "air_pressure" or lower in (*PLAIN_NAMES, *_PRESSURE_NAMES)
    if not candidate and attrs.get("axis") != "Z":
        return _NO_VERTICAL
    for pattern, words in _BY_OTHER_WORDS:
        if pattern.search(long_name):
            return Vertical(False, words)
    spelled = normalise_spelling(units)
    if units.lower() in _COUNTS:
        return Vertical(False, "model levels")
    if units and spelled != "1":
        if spelled in ("m", "km"):
            down = str(attrs.get("positive", "")).lower() == "down"
            return Vertical(False, "depths" if down else "heights")
        return Vertical(
            False, "levels of potential temperature" if spelled == "K" else f"levels in {units!r}"
        )
    said = standard_name == "air_pressure" or lower in _PRESSURE_NAMES or "pressure" in long_name
    if not said and str(attrs.get("positive", "")).lower() == "up":
        return Vertical(False, "levels that increase upwards")
    return _by_values(lower, np.asarray(variable.values, dtype=np.float64).reshape(-1), said)


def _within_the_atmosphere(lower: str, units: str, values: np.ndarray) -> Vertical:
    """Say that levels in units of pressure are pressures, unless no atmosphere has them: depths in dbar, Pa for hPa."""
    highest = float(np.nanmax(values, initial=0.0)) * linear_conversion(units, "hPa")[0]
    if highest <= _HIGHEST_PRESSURE:
        return Vertical(True)
    return Vertical(
        False,
        f"levels of up to {highest:g} hPa, which no atmosphere has",
        f"If their units are others than {units!r}, set ingest.units to {{{lower}: Pa}} or what they are.",
    )


def _by_values(lower: str, values: np.ndarray, said: bool) -> Vertical:
    """Judge levels without units by their values; ``said`` where the name or attributes speak of pressure."""
    if lower in ("isobaricinhpa", "isobaricinpa"):
        return Vertical(True, unit="hPa" if lower == "isobaricinhpa" else "Pa")
    if not values.size or not np.isfinite(values).all() or values.min() < 0:
        return Vertical(False, "levels without units")
    low, high = float(values.min()), float(values.max())
    remedy = f"If they are pressures, set ingest.units to {{{lower}: hPa}}"
    whole = bool(np.all(values == np.round(values)))
    if said and high <= 1.1:
        return Vertical(
            False,
            f"levels from {low:g} to {high:g} without units, which may be shares of a pressure",
            remedy + ".",
        )
    if said:
        return Vertical(True, unit="Pa" if high > 1100.0 else "hPa")
    if high <= 1.1:
        return Vertical(
            False, f"levels from {low:g} to {high:g} without units, such as sigma levels", remedy + "."
        )
    if high <= _MOST_MODEL_LEVELS and whole:
        steps = np.abs(np.diff(np.sort(values)))
        usual = set(values.tolist()) <= _USUAL
        if values.size >= 4 and usual and not np.all(steps == 1.0):
            return Vertical(True, unit="hPa")
        return Vertical(
            False,
            f"levels without units, from {low:g} to {high:g}, which may be numbers of model levels as well as hPa",
            remedy + "; if not, they are no pressure levels.",
        )
    if high <= 1100.0:
        return Vertical(True, unit="hPa")
    if high <= 1.2e5 and (set((values / 100.0).tolist()) <= _USUAL or (low >= 100.0 and high >= 5.0e4)):
        return Vertical(True, unit="Pa")
    return Vertical(
        False,
        f"levels without units, from {low:g} to {high:g}, which may be heights as well as Pa",
        remedy.replace("hPa", "Pa") + "; if not, they are no pressure levels.",
    )


def _of_texts(lower: str, variable: xr.Variable | xr.DataArray) -> Vertical:
    texts = _texts(variable)
    parsed = [_TEXT.match(text) for text in texts]
    if lower not in (*PLAIN_NAMES, *_PRESSURE_NAMES) and not all(
        p and is_pressure_unit(p[2]) for p in parsed
    ):
        return _NO_VERTICAL
    if not parsed or not all(parsed):
        return Vertical(False, f"levels named {', '.join(texts[:4])}")
    units = {match[2] for match in parsed if match}
    if units == {""}:
        return _by_values(lower, np.array([float(m[1]) for m in parsed if m]), lower in _PRESSURE_NAMES)
    if all(is_pressure_unit(unit) for unit in units):
        return Vertical(True)
    return Vertical(False, f"levels named {', '.join(texts[:4])}")


def _texts(variable: xr.Variable | xr.DataArray) -> list[str]:
    values = np.atleast_1d(variable.values).reshape(-1).tolist()
    return [
        (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
        for value in values
    ]


def other_verticals(dataset: xr.Dataset) -> dict[str, Vertical]:
    """Return the dimensions of a dataset that count levels of another kind than pressure."""
    found = {}
    for dim in dataset.dims:
        vertical = vertical_of(dim, dataset.variables.get(dim))
        if vertical.words:
            found[str(dim)] = vertical
    return found


def tell_scalar_levels(
    dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None = None
) -> None:
    """Tell of a single level that may be a pressure, and is not taken for one."""
    for name in dataset.coords:
        vertical = vertical_of(name, dataset.variables[name])
        if dataset.variables[name].ndim == 0 and vertical.remedy:
            tell(findings, "warning", "level", f"{source}: {name} has {vertical.words}", vertical.remedy)


def levels_in_hectopascals(
    variable: xr.Variable | xr.DataArray,
    source: str,
    findings: MutableSequence[Finding] | None = None,
    name: str = "level",
) -> np.ndarray:
    """Return pressure levels in hPa, float64, rounded to 1e-6 hPa.

    Parameters
    ----------
    variable
        Numbers with units, or without where they can be nothing else; or texts such as ``500 hPa``.
    source, name
        For messages.
    findings
        Where to record a unit that was assumed.

    Raises
    ------
    UnitsError
        Where they are no pressures.
    """
    if variable.dtype.kind in "OUS":
        matches = [_TEXT.match(text) for text in _texts(variable)]
        if all(match and match[2] for match in matches):
            values = [linear_conversion(match[2], "hPa")[0] * float(match[1]) for match in matches if match]
            return np.round(np.array(values), 6)
        variable = xr.Variable(variable.dims, np.array([float(text) for text in _texts(variable)]))
    values = np.atleast_1d(np.asarray(variable.values, dtype=np.float64))
    units = str(variable.attrs.get("units", "")).strip()
    if not units or normalise_spelling(units) == "1":
        vertical = vertical_of(name, variable)
        if not vertical.pressure:
            raise UnitsError(
                f"{name} has {vertical.words or 'levels'}", where=source, remedy=vertical.remedy or None
            )
        units = vertical.unit or "hPa"
        tell(findings, "info", "level", f"{source} gives no unit for its levels; {units} is assumed")
    scale, offset = linear_conversion(units, "hPa")
    low, high = _SAID_IN_PASCALS
    if (
        abs(scale - 0.01) < 1e-9
        and values.size
        and low <= values.max() <= high
        and set(values.tolist()) <= _USUAL
    ):
        tell(
            findings,
            "warning",
            "level",
            f"{source}: the levels run from {values.min() * scale:g} to {values.max() * scale:g} hPa, since they are said"
            f" to be in {units}",
            f"If they are in hPa, set ingest.units to {{{name}: hPa}}.",
        )
    return np.round(values * scale + offset, 6)


def problems(verticals: Mapping[str, Vertical], sizes: Mapping[Any, int]) -> dict[str, tuple[str, str]]:
    """Return, for each dimension of levels that are no pressures, what to say of fields on it, and what to do."""
    return {
        dim: (
            f"it is on {sizes[dim]} {vertical.words} ({dim})"
            + ("" if "may be" in vertical.words else ", not on pressure levels"),
            vertical.remedy or "Interpolate it to pressure levels first, for example with `cdo ml2pl`.",
        )
        for dim, vertical in verticals.items()
    }
