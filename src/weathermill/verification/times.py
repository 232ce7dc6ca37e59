"""Times for verification, for datetime64 and for cftime calendars alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import cftime
import numpy as np
import pandas as pd

from weathermill.errors import TimeAxisError

STANDARD_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


def as_times(times: Any) -> np.ndarray:
    """Bring times to an array of datetime64[ns] or, for other calendars, of cftime objects.

    Parameters
    ----------
    times
        A scalar or sequence of datetime64, datetime, ISO strings or cftime objects.

    Returns
    -------
    numpy.ndarray
        One-dimensional; dtype datetime64[ns], or object when the times are cftime objects.

    Raises
    ------
    TimeAxisError
        If the values are no times (plain numbers have no reference date), or calendars are mixed.
    """
    array = np.atleast_1d(np.asarray(times))
    if array.ndim != 1:
        raise TimeAxisError(f"times must have one dimension, not {array.ndim}")
    if np.issubdtype(array.dtype, np.datetime64):
        return array.astype("datetime64[ns]")
    if np.issubdtype(array.dtype, np.number):
        raise TimeAxisError(
            f"times are plain numbers ({array.dtype}), which have no reference date",
            remedy="Decode them first, for instance with weathermill.verification.times.from_seconds.",
        )
    if array.size and isinstance(array[0], cftime.datetime):
        calendars = {time.calendar for time in array}
        if len(calendars) > 1:
            raise TimeAxisError(f"times mix the calendars {', '.join(sorted(calendars))}")
        return array
    try:
        return pd.to_datetime(array).to_numpy(dtype="datetime64[ns]")
    except (ValueError, TypeError) as error:
        raise TimeAxisError(f"not a time: {error}") from error


def from_seconds(seconds: Sequence[int] | np.ndarray, calendar: str = "standard") -> np.ndarray:
    """Decode seconds since 1970-01-01 in a calendar, as the training store keeps them.

    Parameters
    ----------
    seconds
        Integer seconds since 1970-01-01 00:00.
    calendar
        A CF calendar name.

    Returns
    -------
    numpy.ndarray
        datetime64[ns] for the standard calendars, else cftime objects.
    """
    seconds = np.atleast_1d(np.asarray(seconds, dtype=np.int64))
    if calendar in STANDARD_CALENDARS:
        return seconds.astype("datetime64[s]").astype("datetime64[ns]")
    return np.asarray(cftime.num2date(seconds, "seconds since 1970-01-01", calendar=calendar), dtype=object)


def add_hours(times: Any, hours: float) -> np.ndarray:
    """Move times by a number of hours; the calendar is kept."""
    times = as_times(times)
    if times.dtype == object:
        return np.array([time + timedelta(hours=float(hours)) for time in times], dtype=object)
    return times + np.timedelta64(round(float(hours) * 3_600_000_000_000), "ns")


def time_key(time: Any) -> str:
    """Return an ISO string that identifies a time, whatever its type."""
    if isinstance(time, np.datetime64):
        return str(time.astype("datetime64[s]"))
    return time.isoformat() if hasattr(time, "isoformat") else str(time)


def hour_of_day(times: Any) -> np.ndarray:
    """Return the hour of the day, with its fraction, as float64 in [0, 24)."""
    times = as_times(times)
    if times.dtype == object:
        return np.array(
            [time.hour + time.minute / 60 + time.second / 3600 for time in times], dtype=np.float64
        )
    index = pd.DatetimeIndex(times)
    return np.asarray(index.hour + index.minute / 60 + index.second / 3600, dtype=np.float64)


def year_fraction(times: Any) -> np.ndarray:
    """Return how much of the year has passed, in [0, 1): the phase of the annual cycle.

    29 February is the 60th of 366 days, so that the phase is continuous in leap and other years alike.
    """
    times = as_times(times)
    if times.dtype == object:
        days = np.array([time.dayofyr - 1 for time in times], dtype=np.float64)
        length = np.array([_cftime_year_length(time) for time in times], dtype=np.float64)
    else:
        index = pd.DatetimeIndex(times)
        days = np.asarray(index.dayofyear - 1, dtype=np.float64)
        length = np.where(index.is_leap_year, 366.0, 365.0)
    return (days + hour_of_day(times) / 24.0) / length


def week_of_year(times: Any) -> np.ndarray:
    """Return the week of the year, 1 to 53: ISO 8601, or (day of year - 1) // 7 + 1 in other calendars."""
    times = as_times(times)
    if times.dtype == object:
        return np.array([(time.dayofyr - 1) // 7 + 1 for time in times], dtype=np.int64)
    return pd.DatetimeIndex(times).isocalendar().week.to_numpy(dtype=np.int64)


def season(times: Any) -> np.ndarray:
    """Return the meteorological season of each time: "DJF", "MAM", "JJA" or "SON"."""
    times = as_times(times)
    months = (
        np.array([time.month for time in times])
        if times.dtype == object
        else np.asarray(pd.DatetimeIndex(times).month)
    )
    return np.array(["DJF", "MAM", "JJA", "SON"])[(months % 12) // 3]


def spacing_hours(times: Any) -> float:
    """Return the median spacing of the sorted times in hours; NaN for fewer than two."""
    times = np.sort(as_times(times))
    if times.size < 2:
        return float("nan")
    if times.dtype == object:
        return float(np.median([step.total_seconds() / 3600 for step in np.diff(times)]))
    return float(np.median(np.diff(times) / np.timedelta64(1, "s")) / 3600)


def _cftime_year_length(time: cftime.datetime) -> int:
    this, following = (cftime.datetime(time.year + shift, 1, 1, calendar=time.calendar) for shift in (0, 1))
    return (following - this).days
