"""Time axes: half-open selection, calendars, duplicates and steps."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from weathermill.errors import EmptySelectionError, ParameterError, TimeAxisError


def calendar_of(times: np.ndarray) -> str:
    """Return the CF calendar of decoded times; ``proleptic_gregorian`` for datetime64."""
    times = np.asarray(times)
    if np.issubdtype(times.dtype, np.datetime64):
        return "proleptic_gregorian"
    calendars = {time.calendar for time in times.reshape(-1)}
    if len(calendars) != 1:
        raise TimeAxisError(f"one time axis mixes the calendars {sorted(calendars)}")
    return calendars.pop()


_DATE = re.compile(
    r"^(?P<year>\d{4})(?:-?(?P<month>\d\d?)(?:-?(?P<day>\d\d?))?)?"
    r"(?:[T ](?P<hour>\d\d?)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?)?)?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?$"
)


def parse_date(text: str) -> tuple[tuple[int, ...], float]:
    """Split an ISO 8601 date, which need not exist in the Gregorian calendar.

    Parameters
    ----------
    text
        ``2020``, ``2020-02``, ``2020-02-30T06:00``, ``20200230T06``, with or without a time zone.

    Returns
    -------
    tuple
        (year, month, day, hour, minute, second, microsecond), and the hours by which the zone is ahead of UTC.

    Raises
    ------
    ParameterError
        Where the text is of another form.
    """
    match = _DATE.match(str(text).strip())
    if match is None:
        raise ParameterError(
            f"the time {text!r} is no ISO 8601 date", remedy="Write it as 2020-01-31 or 2020-01-31T06:00."
        )
    parts = [
        int(match[key] or default)
        for key, default in zip(("year", "month", "day", "hour", "minute", "second"), "011000", strict=True)
    ]
    micro = int((match["fraction"] or "0").ljust(6, "0")[:6])
    zone = match["zone"]
    ahead = 0.0
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        ahead = (int(digits[:2]) + int(digits[2:]) / 60.0) * (-1.0 if zone[0] == "-" else 1.0)
    return (*parts, micro), ahead


def day_number(text: str) -> float:
    """Return a date in days, exact in the Gregorian calendar and to a few days in others: enough for estimates.

    Raises
    ------
    ParameterError
        Where it is no ISO 8601 date.
    """
    (year, month, day, hour, *_), _ = parse_date(text)
    return dt.date(max(year, 1), month, 1).toordinal() + day - 1 + hour / 24.0


def to_axis_type(when: Any, times: np.ndarray) -> Any:
    """Return a date in the type of a time axis: datetime64[ns] or a cftime object of the same calendar.

    Parameters
    ----------
    when
        An ISO 8601 string (``2020``, ``2020-02``, ``2020-02-30T06:00``), a datetime or a cftime object.
    times
        The decoded time axis.

    Raises
    ------
    ParameterError
        Where the date does not exist in the axis' calendar or is not understood.
    """
    times = np.asarray(times)
    plain = np.issubdtype(times.dtype, np.datetime64)
    if isinstance(when, np.datetime64) and plain:
        return when.astype("datetime64[ns]")
    calendar = calendar_of(times)
    if hasattr(when, "calendar") and not plain and when.calendar == calendar:
        return when
    text = when.isoformat() if hasattr(when, "isoformat") else str(when)
    if isinstance(when, np.datetime64):
        text = str(when.astype("datetime64[us]"))
    parts, ahead = parse_date(text)
    shift = dt.timedelta(hours=ahead)
    try:
        if plain:
            year, month, day, hour, minute, second, micro = parts
            # A day that does not exist, and an hour beyond 23, are refused by NumPy's own reading.
            iso = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{micro:06d}"
            found = np.datetime64(iso, "us") - np.timedelta64(shift)
            if not dt.datetime(1678, 1, 1) <= found.item() < dt.datetime(2262, 1, 1):
                raise ValueError("datetime64[ns] reaches from 1678 to 2261")
            return found.astype("datetime64[ns]")
        import cftime

        return cftime.datetime(*parts, calendar=calendar) - shift
    except ValueError as error:
        raise ParameterError(
            f"the time {text!r} is no date of the {calendar} calendar, which the data have: {error}"
        ) from error


def selection(times: np.ndarray, start: Any, stop: Any) -> np.ndarray:
    """Return the positions in ``[start, stop)``, in time order and the order of the axis for equal times."""
    times = np.asarray(times)
    keep = np.ones(times.size, dtype=bool)
    if start is not None:
        keep &= times >= to_axis_type(start, times)
    if stop is not None:
        keep &= times < to_axis_type(stop, times)
    positions = np.flatnonzero(keep)
    chosen = times[positions]
    if chosen.size > 1 and not np.all(chosen[1:] >= chosen[:-1]):
        positions = positions[np.argsort(chosen, kind="stable")]
    return positions


def require_some(positions: int, what: str, start: Any, stop: Any, offered: Sequence[Any]) -> None:
    """Raise EmptySelectionError where a time selection leaves nothing."""
    if positions:
        return
    span = f"from {first_text(offered[0])} to {first_text(offered[-1])}" if len(offered) else "no time at all"
    raise EmptySelectionError(
        f"no time step of {what} lies in [{start or '…'}, {stop or '…'}); the sources hold {span}",
    )


def first_text(when: Any) -> str:
    """Return a date as ISO 8601 to the minute, for messages."""
    if isinstance(when, np.datetime64):
        return str(when.astype("datetime64[m]"))
    if hasattr(when, "strftime"):
        return f"{when.year:04d}-{when.month:02d}-{when.day:02d}T{when.hour:02d}:{when.minute:02d}"
    return str(when)


def step_seconds(times: np.ndarray) -> np.ndarray:
    """Return the steps between consecutive times in seconds, float64, of length ``n - 1``."""
    times = np.asarray(times)
    if np.issubdtype(times.dtype, np.datetime64):
        return np.diff(times.astype("datetime64[ns]").astype(np.int64)) / 1e9
    return np.array([step.total_seconds() for step in np.diff(times)], dtype=np.float64)


def usual_step(times: np.ndarray) -> float | None:
    """Return the most frequent step in seconds, the shorter one on a tie; None for fewer than two times."""
    steps = step_seconds(times)
    if steps.size == 0:
        return None
    counts = Counter(np.round(steps, 3).tolist())
    return min(counts, key=lambda step: (-counts[step], step))


def gaps(times: np.ndarray, step: float | None = None) -> list[tuple[int, float]]:
    """Return ``(position, seconds)`` of each step that is longer than the usual one.

    ``position`` is that of the last time before the gap.
    """
    steps = step_seconds(times)
    step = usual_step(times) if step is None else step
    if step is None:
        return []
    return [(int(i), float(steps[i])) for i in np.flatnonzero(steps > step * 1.001)]


def missing_times(times: np.ndarray) -> np.ndarray:
    """Return the positions at which there is no time (NaT)."""
    times = np.asarray(times)
    if np.issubdtype(times.dtype, np.datetime64):
        return np.flatnonzero(np.isnat(times))
    return np.flatnonzero([not hasattr(time, "timetuple") for time in times.reshape(-1)])
