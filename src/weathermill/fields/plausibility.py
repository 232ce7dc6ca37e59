"""Values that no weather explains: infinities, undeclared fill values, and what lies absurdly far from everything else.

Each rule looks at one block of one variable, and costs little more than its minimum and maximum where nothing is
wrong:

- infinite values;
- values beyond the physical limits of the vocabulary (or of the user) by more than `ABSURD` times their range;
- a usual fill value (-9999, 1e15, ...), in the file's units or converted as those of the vocabulary are, that is the
  lowest or the highest value and has no other within half of its size;
- for a variable without limits, a group of values of one size that are more than `GAP` times as large as all others.

The last rule goes by the sizes of values and not by their mean and spread, which the fill value itself determines, and
not by quantiles either, because most values of precipitation are zero. Heavy tails (precipitation, humidity, tracers,
spikes) reach over many orders of magnitude, but without gaps in them, whereas a fill value is one number at the far
side of a gap. What lies below `NOISE` is rounding error of zeros and says nothing on how large true values are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import ImplausibleValueError
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.timeaxis import first_text
from weathermill.fields.vocabulary import STANDARD_GRAVITY, convention_for

#: Beyond the limits by so many times their range, one value is enough to refuse a source.
ABSURD = 100.0
#: How many times as large as all others a value without limits must be.
GAP = 1.0e6
#: Sizes below this are taken for rounding errors of zero.
NOISE = 1.0e-12
#: The attribute of a variable that holds limits other than those of the vocabulary.
LIMITS = "plausible_range"

_FILLS = np.array([999.0, 9999.0, 32767.0, 32768.0, 99999.0, 999999.0, 1.0e10, 1.0e15])
# %, mm and g kg-1, mg kg-1, per day, per hour and km h-1, knots, by which canonical units are smaller numbers.
_SHRINKING = (
    0.1,
    0.01,
    1e-3,
    1e-6,
    1 / 86400,
    1e-3 / 86400,
    1 / 3600,
    1e-3 / 3600,
    1 / 3.6,
    1852 / 3600,
    100 / 3600,
)
# The largest size within a group of values that count as one number, by its smallest.
_GROUP = 2.0
_SAMPLE = 4096

REMEDY = (
    "If it stands for a missing value, declare it in the source (attribute _FillValue), and fill the gaps"
    " (ingest.fill) or name the variable in ingest.allow_missing; if the source is damaged, replace it. If it is right,"
    " give the limits of the variable: ingest.limits: {%s: [low, high]}."
)


@dataclass(frozen=True)
class Limits:
    """What values a variable can have, in canonical units.

    Attributes
    ----------
    low, high
        Infinite where nothing is known.
    given
        Whether the user gave them, who then knows about usual fill values too.
    """

    low: float = -np.inf
    high: float = np.inf
    given: bool = False

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return bool(np.isfinite(self.high - self.low))


def limits_of(name: str, attributes: Mapping[str, Any] | None = None) -> Limits:
    """Return the limits of a variable: the user's, else those of the vocabulary by canonical or flat name."""
    given = (attributes or {}).get(LIMITS)
    if given is not None:
        return Limits(float(given[0]), float(given[1]), True)
    convention = convention_for(name)
    return Limits() if convention is None else Limits(convention.minimum, convention.maximum)


def with_limits(fields: xr.Dataset, limits: Mapping[str, Sequence[float]]) -> xr.Dataset:
    """Return fields whose variables carry the user's limits (low, high), in canonical units, as an attribute."""
    named = {name: fields[name] for name in limits if name in fields.data_vars}
    return fields.assign(
        {
            name: field.assign_attrs({LIMITS: [float(v) for v in limits[name]]})
            for name, field in named.items()
        }
    )


@dataclass(frozen=True)
class Implausible:
    """Values of a block that cannot be.

    Attributes
    ----------
    what
        What they are, to follow their number: ``infinite``, ``equal to the usual fill value -9999``, ...
    where
        bool, of the block's shape.
    """

    what: str
    where: np.ndarray


def extremes(values: np.ndarray) -> tuple[float, float]:
    """Return minimum and maximum of what is not NaN, infinities included; NaN where there is nothing."""
    if not values.size:
        return np.nan, np.nan
    with np.errstate(invalid="ignore"):
        low, high = values.min(), values.max()
    if np.isnan(low):
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    return float(low), float(high)


def find_implausible(values: np.ndarray, limits: Limits) -> Implausible | None:
    """Look for values that cannot be in a block of one variable.

    Parameters
    ----------
    values
        Floating-point numbers of any shape, in canonical units; NaN is missing.
    limits
        Of the variable.
    """
    low, high = extremes(values)
    if np.isnan(low):
        return None
    if np.isinf(low) or np.isinf(high):
        return Implausible("infinite", np.isinf(values))
    if limits.known:
        reach = ABSURD * (limits.high - limits.low)
        if low < limits.low - reach or high > limits.high + reach:
            value = low if low < limits.low - reach else high
            what = f"absurdly far beyond the physical limits {limits.low:g} to {limits.high:g}, such as {value:g}"
            return Implausible(what, (values < limits.low - reach) | (values > limits.high + reach))
    if not limits.given:
        for value in (low, high):
            if _is_fill(value, beyond=not limits.low <= value <= limits.high) and _stands_alone(
                values, value
            ):
                return Implausible(f"equal to the usual fill value {value:g}", values == value)
    return None if limits.known else _beyond_a_gap(values, max(abs(low), abs(high)))


def _is_fill(value: float, *, beyond: bool) -> bool:
    """Whether a number is a usual fill value, or one in other units: gpm, hPa, km, degrees Celsius.

    Of values ``beyond`` the physical limits those count too that units make small, or shift: %, mm, g kg-1, mm day-1,
    mm h-1, cm s-1, degrees Fahrenheit, knots. Within the limits such numbers may be weather.
    """
    fills = np.copysign(_FILLS, value)
    forms = [scale * fills for scale in (1.0, STANDARD_GRAVITY, 100.0, 1000.0)] + [fills + 273.15]
    if beyond:
        forms += [scale * fills for scale in _SHRINKING]
        forms += [(sign * _FILLS + 459.67) * 5.0 / 9.0 for sign in (-1.0, 1.0)]
    known = np.concatenate(forms)
    return bool((np.abs(value - known) <= 1.2e-7 * np.abs(known)).any())


def _stands_alone(values: np.ndarray, value: float) -> bool:
    near = values <= 0.5 * value if value < 0 else values >= 0.5 * value
    return np.count_nonzero(near) == np.count_nonzero(values == value)


def _beyond_a_gap(values: np.ndarray, largest: float) -> Implausible | None:
    if largest < GAP * NOISE:
        return None
    flat = values.reshape(-1)
    sample = np.abs(flat[:: max(1, flat.size // _SAMPLE)])
    # A gap between sizes is at least as wide in a sample, to which the largest of all belongs.
    if _edge(np.append(sample, largest)) is None:
        return None
    sizes = np.abs(values)
    edge = _edge(sizes[np.isfinite(sizes)])
    if edge is None:
        return None
    where = sizes >= edge
    text = f"{edge:g}" if edge == largest else f"{edge:g} to {largest:g}"
    return Implausible(f"of size {text}, more than {GAP:g} times as large as all others", where)


def _edge(sizes: np.ndarray) -> float | None:
    """Return the smallest size beyond the gap, if only one group of about one size lies there."""
    ordered = np.sort(sizes[sizes > 0])
    if ordered.size < 2:
        return None
    ordered = ordered.astype(np.float64)
    jumps = np.flatnonzero(ordered[1:] > GAP * np.maximum(ordered[:-1], NOISE))
    if not jumps.size or ordered[jumps[-1]] < NOISE:
        return None
    edge = ordered[jumps[-1] + 1]
    return float(edge) if ordered[-1] <= _GROUP * edge else None


def place_text(
    dims: Sequence[str], coordinates: Mapping[str, np.ndarray], index: Sequence[int], *, prefix: str = "at "
) -> str:
    """Say when and where a value is: ``at 2020-01-01T06:00, 500 hPa, latitude 40, longitude 10``.

    Parameters
    ----------
    dims
        Of the array.
    coordinates
        One-dimensional, by dimension; positions are told of dimensions without one.
    index
        Of the value.
    prefix
        To put before, where there is anything to say.
    """
    parts = []
    for dim, i in zip(dims, index, strict=True):
        if dim not in coordinates:
            parts.append(f"{dim} {int(i)}")
        elif dim == TIME:
            parts.append(first_text(coordinates[dim][int(i)]))
        elif dim == LEVEL:
            parts.append(f"{float(coordinates[dim][int(i)]):g} hPa")
        else:
            parts.append(f"{dim} {float(coordinates[dim][int(i)]):g}")
    return prefix + ", ".join(parts) if parts else ""


def axes_of(field: xr.DataArray) -> dict[str, np.ndarray]:
    """Return the one-dimensional coordinates of a field by dimension, for `place_text`."""
    wanted = (TIME, LEVEL, LATITUDE, LONGITUDE)
    return {str(dim): field[dim].values for dim in field.dims if str(dim) in wanted and dim in field.coords}


def refuse_implausible(
    name: str,
    values: np.ndarray,
    limits: Limits,
    dims: Sequence[str],
    coordinates: Mapping[str, np.ndarray],
    *,
    offset: Sequence[int] | None = None,
    where: str | None = None,
) -> None:
    """Refuse a block that holds values that cannot be.

    Parameters
    ----------
    name
        Of the variable.
    values, limits
        See `find_implausible`.
    dims, coordinates
        See `place_text`.
    offset
        Of the block in the whole array, by dimension.
    where
        For the error.

    Raises
    ------
    ImplausibleValueError
        With number, first time and place.
    """
    found = find_implausible(values, limits)
    if found is None:
        return
    at = np.unravel_index(int(np.argmax(found.where)), values.shape)
    shifted = [int(i) + int(o) for i, o in zip(at, offset or [0] * values.ndim, strict=True)]
    count = int(found.where.sum())
    raise ImplausibleValueError(
        f"{name} has {count} value{'s' * (count != 1)} {found.what}, of {values.size} that were read together; the"
        f" first {place_text(dims, coordinates, shifted)}",
        where=where,
        remedy="Correct the source, or choose another period." if found.what == "infinite" else REMEDY % name,
    )
