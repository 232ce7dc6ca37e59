"""What a user says of sources beyond their own words: names of variables, and one value of a further dimension."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, ParameterError
from weathermill.fields.timeaxis import first_text, to_axis_type
from weathermill.fields.vocabulary import AXES, WindAxes, name_fault

#: The key of ``encoding`` under which a renamed variable keeps the name that the file gives it.
FILE_NAME = "weathermill_file_name"

_MEMBERS = (
    "number",
    "realization",
    "realisation",
    "member",
    "members",
    "ensemble",
    "ensemble_member",
    "ens",
    "sample",
)
_LEADS = ("step", "prediction_timedelta", "forecast_period", "fhour", "fhours", "fxx")
# Others are called by the product and by what they count: lead_day, leadtime_month, forecastMonth, fcst_step.
_LEAD_WORDS = re.compile(
    r"(^|_)(lead|leadtime)(_|$)|^(forecast|fcst|prediction)_?(hour|day|week|month|step|lead|offset)s?$"
)
# Lead dimensions whose name says the unit.
_HOURLY = ("forecast_hour", "forecast_hours", "fhour", "fhours", "fcst_hour", "lead_hours", "fxx")
_HOURS = {
    "ns": 1.0 / 3.6e12,
    "nanosecond": 1.0 / 3.6e12,
    "us": 1.0 / 3.6e9,
    "microsecond": 1.0 / 3.6e9,
    "ms": 1.0 / 3.6e6,
    "millisecond": 1.0 / 3.6e6,
    "s": 1.0 / 3600.0,
    "sec": 1.0 / 3600.0,
    "second": 1.0 / 3600.0,
    "m": 1.0 / 60.0,
    "min": 1.0 / 60.0,
    "minute": 1.0 / 60.0,
    "h": 1.0,
    "hr": 1.0,
    "hour": 1.0,
    "d": 24.0,
    "day": 24.0,
    "week": 168.0,
}
_ISO_DURATION = re.compile(
    r"^P(?:(?P<d>[\d.]+)D)?(?:T(?:(?P<h>[\d.]+)H)?(?:(?P<m>[\d.]+)M)?(?:(?P<s>[\d.]+)S)?)?$", re.IGNORECASE
)

#: Two lead times that differ by less than this many hours, half a second, are the same.
SAME_LEAD_HOURS = 0.5 / 3600.0


@dataclass(frozen=True)
class SourceOptions:
    """What is said of the sources, beyond what they say of themselves.

    Attributes
    ----------
    names
        A file's name of a variable or coordinate -> canonical name.
    select
        A dimension beside time, level, latitude and longitude -> the value to take: a lead time (``6h``), a member.
    units
        Names -> units; here those of coordinates matter (``level``, ``latitude``, ``longitude``, a lead dimension).
    strict
        Whether names and dimensions that no source has are an error.
    winds
        Along which axes winds on curvilinear grids lie, whatever the sources say: ``grid``, or ``east_and_north``.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    select: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    strict: bool = True
    winds: WindAxes = "as_said"


@dataclass(frozen=True)
class Choice:
    """What can be chosen along one dimension: ``values`` (hours for lead times), and how to write each."""

    dimension: str
    kind: Literal["lead", "member", "other"]
    values: np.ndarray
    texts: tuple[str, ...]

    @property
    def what(self) -> str:
        """How many of what there are, with their labels."""
        noun = {"lead": "lead times", "member": "ensemble members", "other": "values"}[self.kind]
        return f"{len(self.texts)} {noun} along {self.dimension} ({few(self.texts)})"

    @property
    def remedy(self) -> str:
        """The parameter that chooses one."""
        text = self.texts[0]
        return (
            f"Choose one: set ingest.select to {{{self.dimension}: {text}}}, or another of {few(self.texts)}."
        )


def few(texts: Iterable[str], limit: int = 12) -> str:
    """Return a few texts with commas, and how many more there are."""
    texts = list(texts)
    if len(texts) <= limit:
        return ", ".join(texts)
    return f"{', '.join(texts[: limit - 2])}, … {texts[-1]}; {len(texts)} in all"


def is_lead(name: str, variable: xr.Variable | xr.DataArray | None) -> bool:
    """Return whether a dimension or coordinate counts time since the start of a forecast."""
    if variable is not None:
        if variable.dtype.kind == "m" or variable.attrs.get("standard_name") == "forecast_period":
            return True
        if variable.dtype.kind not in "iuf":
            return False
        if re.fullmatch(r"forecast_time\d*", name.lower()):
            return _hours_per(str(variable.attrs.get("units", ""))) is not None
    return name.lower() in _LEADS or _LEAD_WORDS.search(name.lower()) is not None


def is_member(name: str, variable: xr.Variable | xr.DataArray | None) -> bool:
    """Return whether a dimension counts the members of an ensemble."""
    return name.lower() in _MEMBERS or (
        variable is not None and variable.attrs.get("standard_name") == "realization"
    )


def _hours_per(units: str) -> float | None:
    word = units.strip().lower().removesuffix(".")
    return _HOURS.get(word, _HOURS.get(word.removesuffix("s")))


def lead_hours(name: str, variable: xr.Variable | xr.DataArray, source: str, units: str = "") -> np.ndarray:
    """Return lead times in hours, float64, in the shape of the variable.

    Parameters
    ----------
    name, variable
        The coordinate: timedelta64, or numbers with the units of a duration.
    source
        For messages.
    units
        Units to take whatever the file says; empty for none.

    Raises
    ------
    CoordinateError
        Where the units are missing, or no fixed length of time (months), or a value is missing.
    """
    values = np.asarray(variable.values)
    if values.dtype.kind == "m":
        hours = values.astype("timedelta64[ns]").astype(np.float64) / 3.6e12
        hours[np.isnat(values)] = np.nan
    else:
        said = units or str(variable.attrs.get("units", "")).strip()
        factor = _hours_per(said)
        if factor is None and not said and name.lower() in _HOURLY:
            factor = 1.0
        if factor is None:
            raise CoordinateError(
                f"the lead times ({name}) have "
                + (f"the units {said!r}, which are no length of time" if said else "no units"),
                where=source,
                remedy="Give the file the valid times as a coordinate valid_time: months and years differ in length."
                if said.lower().startswith(("month", "year"))
                else f"Give {name} the units hours in the file, or set ingest.units to {{{name}: hours}}.",
            )
        # Nanoseconds come as 64-bit integers, which a float of the same size holds exactly for 104 days.
        hours = values.astype(np.float64) * factor
    if not np.isfinite(hours).all():
        raise CoordinateError(
            f"the lead times ({name}) have missing values",
            where=source,
            remedy="Cut those steps out of the file.",
        )
    # Thirds of an hour have no end as decimals; whole seconds do.
    return np.round(hours * 3600.0, 3) / 3600.0


def lead_text(hours: float) -> str:
    """Return a lead time as ``ingest.select`` takes it: ``6h``, ``30min``."""
    if abs(hours - round(hours, 6)) < 1e-9:
        return f"{hours:.10g}h"
    minutes = hours * 60.0
    if abs(minutes - round(minutes)) < 1e-6:
        return f"{round(minutes)}min"
    return f"{hours * 3600.0:.10g}s"


def parse_duration(value: Any) -> float:
    """Return a length of time in hours.

    Parameters
    ----------
    value
        A number (hours), a timedelta, or a text: ``6h``, ``6 hours``, ``30 min``, ``3d``, ISO 8601 (``PT6H``).

    Raises
    ------
    ParameterError
        Where it is none of these.
    """
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "ns")) / 3.6e12
    if isinstance(value, dt.timedelta):
        return value.total_seconds() / 3600.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    if match := re.fullmatch(r"([+-]?\d+(?:\.\d*)?)\s*([A-Za-z]*)\.?", text):
        factor = _hours_per(match[2]) if match[2] else 1.0
        if factor is not None:
            return float(match[1]) * factor
    if (match := _ISO_DURATION.match(text)) and any(match.groups()):
        parts = {key: float(part or 0.0) for key, part in match.groupdict().items()}
        return parts["d"] * 24.0 + parts["h"] + parts["m"] / 60.0 + parts["s"] / 3600.0
    raise ParameterError(
        f"{value!r} is no length of time", remedy="Write lead times as 6h, 30min, 3d or PT6H."
    )


def choice_along(dataset: xr.Dataset, dimension: str, source: str, units: Mapping[str, str]) -> Choice:
    """Return what can be chosen along a dimension, or the one value of a scalar coordinate.

    A dimension without labels offers its positions, from 0.
    """
    variable = dataset.variables.get(dimension)
    if variable is None:
        n = dataset.sizes[dimension]
        kind: Literal["member", "other"] = "member" if is_member(dimension, None) else "other"
        return Choice(dimension, kind, np.arange(n), tuple(map(str, range(n))))
    if is_lead(dimension, variable):
        hours = np.atleast_1d(lead_hours(dimension, variable, source, units.get(dimension, "")))
        return Choice(dimension, "lead", hours, tuple(lead_text(h) for h in hours))
    values = np.atleast_1d(variable.values)
    if values.dtype.kind in "iuf":
        texts = tuple(f"{value:.10g}" for value in values.tolist())
    elif values.dtype.kind == "M" or (values.size and hasattr(values.reshape(-1)[0], "calendar")):
        texts = tuple(first_text(value) for value in values)
    else:
        texts = tuple(_plain(value) for value in values.tolist())
    return Choice(dimension, "member" if is_member(dimension, variable) else "other", values, texts)


def _plain(value: Any) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()


def position_of(choice: Choice, wanted: Any) -> int | None:
    """Return where a wanted value is in a choice, or None.

    Numbers agree to 1e-6 of their value, lead times to half a second, times exactly, texts but for blanks around them.
    """
    if choice.kind == "lead":
        near = np.abs(choice.values - parse_duration(wanted)) < SAME_LEAD_HOURS
    elif choice.values.dtype.kind in "iuf":
        try:
            near = np.isclose(choice.values.astype(np.float64), float(wanted), rtol=1e-6, atol=1e-12)
        except (TypeError, ValueError):
            return None
    elif choice.values.dtype.kind == "M" or hasattr(choice.values.reshape(-1)[0], "calendar"):
        near = choice.values == to_axis_type(wanted, choice.values)
    else:
        near = np.array([text == str(wanted).strip() for text in choice.texts])
    found = np.flatnonzero(near)
    return int(found[0]) if found.size else None


def take_one(dataset: xr.Dataset, dimension: str, position: int) -> xr.Dataset:
    """Take one position of a dimension, lazily; the storage chunks that variables tell of lose that dimension too."""
    taken = dataset.isel({dimension: position})
    for name, variable in dataset.variables.items():
        if dimension not in variable.dims or name not in taken.variables:
            continue
        axis = variable.dims.index(dimension)
        encoding = taken.variables[name].encoding
        for key in ("chunks", "shards", "chunksizes", "original_shape"):
            lengths = encoding.get(key)
            if isinstance(lengths, tuple | list) and len(lengths) == variable.ndim:
                encoding[key] = tuple(n for i, n in enumerate(lengths) if i != axis)
        if dimension in encoding.get("preferred_chunks", {}):
            encoding["preferred_chunks"] = {
                d: n for d, n in encoding["preferred_chunks"].items() if d != dimension
            }
    taken.encoding = dict(dataset.encoding)
    return taken


def rename(dataset: xr.Dataset, source: str, names: Mapping[str, str]) -> tuple[xr.Dataset, set[str]]:
    """Give variables and coordinates the canonical names that a user's table says.

    Returns
    -------
    tuple
        The dataset, in which renamed variables keep the file's name in their ``encoding``, and the names of the table
        that it has.

    Raises
    ------
    ParameterError
        Where a target is no canonical name, or is taken already.
    """
    held = {old: new for old, new in names.items() if old in dataset.variables or old in dataset.dims}
    for old, new in held.items():
        if fault := name_fault(new):
            raise ParameterError(f"ingest.names calls {old} {new!r}, {fault}", where=source)
        if new != old and new not in held and (new in dataset.variables or new in dataset.dims):
            raise ParameterError(
                f"ingest.names calls {old} {new}, and there is something of that name already",
                where=source,
                remedy=f"Give {new} another name in the table too, or leave {old} out of it.",
            )
    if len(set(held.values())) < len(held):
        raise ParameterError(f"ingest.names gives one name to several of {', '.join(held)}", where=source)
    if not held:
        return dataset, set()
    renamed = dataset.rename(held)
    renamed.encoding = dict(dataset.encoding)
    for old, new in held.items():
        if new in renamed.variables:
            renamed.variables[new].encoding[FILE_NAME] = old
    axes = [new for new in held.values() if new in AXES and new in renamed.data_vars]
    return renamed.set_coords(axes), set(held)


def require_known(
    options: SourceOptions, seen: set[str], held: Mapping[str, Mapping[str, None]], offered: Iterable[str]
) -> None:
    """Refuse names and dimensions that no source has, and values that none holds.

    Parameters
    ----------
    options
        What was asked for.
    seen
        The names and dimensions of it that some source has, and ``name=`` where one holds the value.
    held
        Dimension -> labels that the sources have there.
    offered
        All names of variables, coordinates and dimensions of the sources.

    Raises
    ------
    ParameterError
        With what there is.
    """
    offered = sorted(set(offered))
    for name in options.names:
        if options.strict and name not in seen:
            raise ParameterError(
                f"ingest.names calls {name} {options.names[name]}, and no source has {name!r}; "
                + _near(name, offered)
            )
    for name, value in options.select.items():
        if name not in seen:
            if options.strict:
                raise ParameterError(
                    f"ingest.select names {name!r}, which is no dimension of the sources; "
                    + _near(name, offered)
                )
        elif f"{name}=" not in seen:
            raise ParameterError(
                f"ingest.select asks for {name}: {value}, and the sources hold {few(held[name])}",
                remedy="Choose one of these.",
            )


def _near(name: str, offered: list[str]) -> str:
    near = difflib.get_close_matches(name, offered, n=3, cutoff=0.6)
    near += [each for each in offered if each.lower() == name.lower() and each not in near]
    return f"did you mean {' or '.join(near)}?" if near else f"there are {few(offered, 20)}"
