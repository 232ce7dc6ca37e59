"""The unit conversion of one offered variable, and what to make of variables that have no units."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

import numpy as np

from weathermill.errors import UnitsError
from weathermill.fields.assembly import level_positions
from weathermill.fields.coordinates import TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.layout import UNDECLARED_FILL
from weathermill.fields.recognition import Offer
from weathermill.fields.units import linear_conversion
from weathermill.fields.vocabulary import CONVENTIONS, STANDARD_GRAVITY, convention_for

#: Variable -> (another that is the same but for a factor, that factor).
EQUIVALENTS = {
    "geopotential": ("geopotential_height", STANDARD_GRAVITY),
    "geopotential_height": ("geopotential", 1.0 / STANDARD_GRAVITY),
    "geopotential_at_surface": ("orography", STANDARD_GRAVITY),
    "orography": ("geopotential_at_surface", 1.0 / STANDARD_GRAVITY),
}

_NO_UNITS = ("", "none", "unknown", "unitless?")


def conversion_for(
    offer: Offer,
    name: str,
    override: str | None,
    sample_positions: np.ndarray,
    levels: Sequence[float] | None,
    findings: MutableSequence[Finding] | None = None,
) -> tuple[float, float, float]:
    """Return ``(scale, offset, resolution)`` of a variable.

    Parameters
    ----------
    offer
        What the source offers.
    name
        The canonical or flat name asked for.
    override
        Units to take whatever the file says, or None.
    sample_positions
        Time positions to look at where there are no units: one is enough.
    levels
        Wanted levels in hPa, or None.
    findings
        Where to record assumptions.

    Returns
    -------
    tuple of float
        ``value * scale + offset`` is in canonical units, and so is ``resolution``, half a step of the
        packing.

    Raises
    ------
    UnitsError
        Where units do not convert, or are missing and the values lie outside the variable's physical limits.
    """
    convention = convention_for(name)
    if convention is None:
        return 1.0, 0.0, _resolution(offer, 1.0)
    units = override if override is not None else str(offer.array.attrs.get("units", "")).strip()
    factor = 1.0
    target = convention.units
    if offer.variable != convention.name:
        other, factor = EQUIVALENTS[convention.name]
        target = CONVENTIONS[other].units
        tell(findings, "info", name, f"{offer.label}: made of {other}, times {factor:.6g}")
    if units.lower() in _NO_UNITS:
        units = _units_by_values(offer, name, sample_positions, levels, findings, target)
    try:
        scale, offset = linear_conversion(units, target)
    except UnitsError as error:
        equivalent = EQUIVALENTS.get(convention.name)
        if equivalent is None or offer.variable != convention.name:
            raise UnitsError(
                f"{name}: {error.what}", where=offer.label, remedy=_remedy(name, error)
            ) from error
        try:
            scale, offset = linear_conversion(units, CONVENTIONS[equivalent[0]].units)
        except UnitsError:
            raise UnitsError(
                f"{name}: {error.what}", where=offer.label, remedy=_remedy(name, error)
            ) from error
        factor = equivalent[1]
        tell(findings, "info", name, f"{offer.label} is in {units}: {equivalent[0]}, times {factor:.6g}")
    scale, offset = scale * factor, offset * factor
    if scale != 1.0 or offset != 0.0:
        tell(findings, "info", name, f"{offer.label} is converted from {units!r} to {convention.units!r}")
    return scale, offset, _resolution(offer, scale)


def _remedy(name: str, error: UnitsError | None = None) -> str:
    if error is not None and error.remedy and error.remedy != UnitsError.default_remedy:
        return error.remedy
    return f"Correct the `units` attribute in the file, or give the units of {name} by the parameter `ingest.units`."


def _resolution(offer: Offer, scale: float) -> float:
    packing = offer.array.encoding.get("scale_factor")
    return 0.0 if packing is None else 0.5 * abs(float(np.asarray(packing).reshape(-1)[0]) * scale)


def _units_by_values(offer, name, positions, levels, findings, target) -> str:
    """Return the canonical units where the values of one time step agree with them; raise otherwise."""
    low, high, sample, sample_levels = sample_range(offer, positions, levels)
    convention = CONVENTIONS[offer.variable] if offer.variable in CONVENTIONS else convention_for(name)
    if not np.isfinite(low):
        raise UnitsError(
            f"{name} has no units, and the first step holds no value to judge by",
            where=offer.label,
            remedy=_remedy(name),
        )
    guess = _plausible(convention, low, high, sample, sample_levels)
    if guess:
        tell(
            findings,
            "warning",
            name,
            f"{offer.label} has no units; {target} is assumed, which its values agree with",
            _remedy(name),
        )
        return target
    raise UnitsError(
        f"{name} has no units, and values from {low:.4g} to {high:.4g} are not in {target}",
        where=offer.label,
        remedy=_remedy(name),
    )


def sample_range(offer: Offer, positions: np.ndarray, levels: Sequence[float] | None):
    """Return ``(minimum, maximum, values, levels)`` of the first chosen step, undeclared fills taken out."""
    array = offer.array
    if TIME in array.dims:
        array = array.isel({TIME: int(positions[0]) if len(positions) else 0})
    index = level_positions(offer, levels)
    held = offer.levels
    if index is not None:
        array, held = array.isel(level=index), held[index]
    if "level" in array.dims:
        array = array.transpose("level", ...)
    values = np.asarray(array.values, dtype=np.float64)
    values = np.where(np.abs(values) < UNDECLARED_FILL, values, np.nan)
    if not np.isfinite(values).any():
        return np.nan, np.nan, values, held
    return float(np.nanmin(values)), float(np.nanmax(values)), values, held


def _plausible(convention, low, high, sample, levels) -> bool:
    if low < convention.minimum or high > convention.maximum:
        return False
    if convention.name == "relative_humidity":
        return high > 2.0
    if convention.name in ("geopotential", "geopotential_height") and levels is not None:
        # Both lie within the limits of the other: the standard atmosphere tells them apart, best at the top.
        top = int(np.argmin(levels))
        mean = np.nanmean(sample[top] if sample.ndim > 2 else sample)
        height = standard_height(float(levels[top]))
        if height < 500.0:
            return True
        expected = height * (STANDARD_GRAVITY if convention.name == "geopotential" else 1.0)
        return bool(0.5 < mean / expected < 2.0)
    return True


def standard_height(pressure: float) -> float:
    """Return the height in m of a pressure in hPa in the ICAO standard atmosphere, up to about 1 hPa.

    Below 226.32 hPa :math:`h = (T_0/L)(1 - (p/p_0)^{RL/g})`; above, the isothermal layer (ICAO Doc 7488).
    """
    if pressure >= 226.32:
        return 44330.77 * (1.0 - (pressure / 1013.25) ** 0.190263)
    return 11000.0 + 6341.62 * np.log(226.32 / pressure)
