"""Time axes: half-open selection, calendars, duplicates and steps."""

from __future__ import annotations

import datetime as dt
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
    if np.issubdtype(times.dtype, np.datetime64):
        try:
            return np.datetime64(when.isoformat() if isinstance(when, dt.datetime) else str(when), "ns")
        except (ValueError, TypeError) as error:
            raise ParameterError(f"the time {when!r} is no ISO 8601 date: {error}") from error
    import cftime

    calendar = calendar_of(times)
    if hasattr(when, "calendar"):
        return when
    text = str(when).strip().replace(" ", "T")
    date, _, clock = text.partition("T")
    try:
        year, month, day = ([int(part) for part in date.split("-")] + [1, 1])[:3]
        hour, minute, second = ([int(part) for part in clock.split(":")] if clock else []) + [0] * (
            3 - (len(clock.split(":")) if clock else 0)
        )
        return cftime.datetime(year, month, day, hour, minute, second, calendar=calendar)
    except ValueError as error:
        raise ParameterError(f"the time {when!r} is no date of the {calendar} calendar: {error}") from error


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
    return when.strftime("%Y-%m-%dT%H:%M") if hasattr(when, "strftime") else str(when)


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


def snap(times: np.ndarray, resolution_seconds: float) -> np.ndarray:
    """Round datetime64 times that a coarse number type (float32 days) has blurred, where that is unambiguous.

    Parameters
    ----------
    times
        datetime64[ns].
    resolution_seconds
        The spacing of the number type at these values.

    Returns
    -------
    numpy.ndarray
        Times rounded to the coarsest of hour, minute or second that lies within the resolution of each
        and keeps them distinct; unchanged where none does.
    """
    if not np.issubdtype(times.dtype, np.datetime64) or times.size == 0:
        return times
    nanoseconds = times.astype("datetime64[ns]").astype(np.int64)
    for unit in (3600, 1800, 900, 600, 300, 60, 1):
        quantum = unit * 1_000_000_000
        rounded = (nanoseconds + quantum // 2) // quantum * quantum
        within = np.abs(rounded - nanoseconds).max() <= max(resolution_seconds, 1e-3) * 1e9
        if within and np.unique(rounded).size == np.unique(nanoseconds).size:
            return rounded.astype("datetime64[ns]")
    return times
