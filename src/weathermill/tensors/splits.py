"""Train, validation and test periods, as index runs that no window may leave."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weathermill.errors import SplitError

Runs = list[tuple[int, int]]

_STANDARD = {"standard", "gregorian", "proleptic_gregorian"}
_MONTH_LENGTHS = {
    "noleap": (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
    "all_leap": (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
    "360_day": (30,) * 12,
}
_SYNONYMS = {"365_day": "noleap", "366_day": "all_leap"}
_ISO = re.compile(r"(\d{4,})-(\d\d?)(?:-(\d\d?))?(?:[T ](\d\d?)(?::?(\d\d))?(?::?(\d\d))?)?(?:Z|\+00:?00)?$")


@dataclass(frozen=True)
class Period:
    """A half-open span of time ``[start, stop)`` as ISO 8601 text; None is without bound.

    A date without a time of day is its midnight: ``Period("1979", "2016")`` is 1979–2015 inclusive.
    """

    start: str | None = None
    stop: str | None = None


def seconds_since_1970(text: str, calendar: str = "standard") -> int:
    """Count the seconds from 1970-01-01 00:00 to an ISO date in a CF calendar.

    Parameters
    ----------
    text
        ``"2016"``, ``"2016-01"``, ``"2016-01-31"``, ``"2016-01-31T06:00"``; UTC.
    calendar
        A CF calendar name: standard, gregorian, proleptic_gregorian, noleap, 365_day, all_leap, 366_day or
        360_day.

    Raises
    ------
    SplitError
        When the text is no date of that calendar, or the calendar is not one of these.
    """
    text = str(text).strip()
    if re.fullmatch(r"\d{4,}", text):
        text += "-01"
    match = _ISO.match(text)
    if not match:
        raise SplitError(
            f"{text!r} is no ISO 8601 date.", remedy="Write dates as 2016-01-31 or 2016-01-31T06:00."
        )
    year, month, day, hour, minute, second = (
        int(group) if group else default
        for group, default in zip(match.groups(), (0, 0, 1, 0, 0, 0), strict=True)
    )
    calendar = _SYNONYMS.get(calendar, calendar)
    if hour > 23 or minute > 59 or second > 59 or not 1 <= month <= 12:
        raise SplitError(f"{text!r} is no date: month or time of day is out of range.")
    if calendar in _STANDARD:
        try:
            days = int(np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "D").astype(np.int64))
        except ValueError as error:
            raise SplitError(f"{text!r} is no date of the {calendar} calendar.") from error
    elif calendar in _MONTH_LENGTHS:
        lengths = _MONTH_LENGTHS[calendar]
        if not 1 <= day <= lengths[month - 1]:
            raise SplitError(f"{text!r} is no date of the {calendar} calendar.")
        days = (year - 1970) * sum(lengths) + sum(lengths[: month - 1]) + day - 1
    else:
        known = sorted(_STANDARD | set(_MONTH_LENGTHS) | set(_SYNONYMS))
        raise SplitError(f"Calendar {calendar!r} is not known; known are {', '.join(known)}.")
    return days * 86400 + hour * 3600 + minute * 60 + second


def _bounds(name: str, period: Any, calendar: str) -> tuple[int, int]:
    if isinstance(period, Mapping):
        period = Period(**period)
    elif isinstance(period, (tuple, list)):
        period = Period(*period)
    info = np.iinfo(np.int64)
    start = info.min if period.start is None else seconds_since_1970(period.start, calendar)
    stop = info.max if period.stop is None else seconds_since_1970(period.stop, calendar)
    if start >= stop:
        raise SplitError(f"Period {name!r} is empty: it starts at {period.start} and stops at {period.stop}.")
    return start, stop


def index_spans(times: np.ndarray, periods: Mapping[str, Any], calendar: str) -> dict[str, tuple[int, int]]:
    """Return the half-open span of time indices of each period, gaps or not; see `split_indices`."""
    fractions = {
        name: p for name, p in periods.items() if isinstance(p, (int, float)) and not isinstance(p, bool)
    }
    if fractions and len(fractions) != len(periods):
        raise SplitError("Periods are either all dates or all fractions, not a mixture.")
    if fractions:
        total = sum(fractions.values())
        if any(f <= 0 for f in fractions.values()) or total > 1 + 1e-9:
            raise SplitError(
                f"Fractions must be positive and add up to at most one; found {dict(fractions)}."
            )
        edges = np.rint(np.cumsum([0.0, *fractions.values()]) * len(times)).astype(int)
        return {name: (int(a), int(b)) for name, a, b in zip(fractions, edges[:-1], edges[1:], strict=True)}
    bounds = {name: _bounds(name, period, calendar) for name, period in periods.items()}
    ordered = sorted(bounds.items(), key=lambda item: item[1])
    for (before, (_, stop)), (after, (start, _)) in itertools.pairwise(ordered):
        if start < stop:
            raise SplitError(
                f"Periods {before!r} and {after!r} overlap: scores would be measured on training data.",
                remedy="Periods are half open [start, stop): let one stop where the next starts.",
            )
    return {
        name: (int(np.searchsorted(times, start, "left")), int(np.searchsorted(times, stop, "left")))
        for name, (start, stop) in bounds.items()
    }


def split_indices(
    times: np.ndarray,
    periods: Mapping[str, Any],
    *,
    calendar: str = "standard",
    time_step: int | None = None,
    minimum_states: int = 2,
) -> dict[str, Runs]:
    """Turn periods into runs of consecutive time indices.

    Parameters
    ----------
    times
        (time,) int64, seconds since 1970-01-01 in `calendar`, strictly increasing.
    periods
        Name to `Period` (or a dict or pair that makes one), or name to a fraction of the times, in time
        order.
    calendar
        The CF calendar of `times` and of the periods' dates.
    time_step
        Seconds between consecutive states; the commonest difference when None. A larger difference is a gap
        and breaks a run, so that no window ever crosses it.
    minimum_states
        The length that at least one run of each split must have; 2 makes a pair.

    Returns
    -------
    dict
        Name to a list of half-open ``(start, stop)`` index runs, in the order of `periods`.

    Raises
    ------
    SplitError
        When times do not increase, or a period is malformed, empty, too short or overlaps another.
    """
    times = np.asarray(times, dtype=np.int64)
    if times.ndim != 1 or not times.size:
        raise SplitError("There are no times to split.")
    differences = np.diff(times)
    if (differences <= 0).any():
        first = int(np.argmax(differences <= 0))
        raise SplitError(f"Times do not increase: index {first + 1} is not after index {first}.")
    if time_step is None and differences.size:
        values, counts = np.unique(differences, return_counts=True)
        time_step = int(values[np.argmax(counts)])
    breaks = np.flatnonzero(differences != time_step) + 1

    splits: dict[str, Runs] = {}
    for name, (start, stop) in index_spans(times, periods, calendar).items():
        inner = breaks[(breaks > start) & (breaks < stop)]
        edges = [start, *inner.tolist(), stop]
        runs = [(a, b) for a, b in itertools.pairwise(edges) if b > a]
        longest = max((b - a for a, b in runs), default=0)
        if longest < minimum_states:
            first, last = (_iso(times[i], calendar) for i in (0, -1))
            held = f"at most {longest} consecutive state{'s' * (longest != 1)}" if longest else "no state"
            raise SplitError(
                f"Split {name!r} holds {held}; at least {minimum_states} are needed. The data run from "
                f"{first} to {last} with a step of {time_step} s.",
                remedy="Widen the split's period to overlap what the data hold.",
            )
        splits[name] = runs
    return splits


def _iso(seconds: int, calendar: str) -> str:
    if calendar in _STANDARD:
        return str(np.datetime64(int(seconds), "s"))
    return f"{int(seconds)} s since 1970-01-01 ({calendar})"


def window_starts(runs: Sequence[tuple[int, int]], steps: int = 1) -> np.ndarray:
    """Find where a window of ``steps + 1`` states may start without leaving its run.

    Parameters
    ----------
    runs
        Half-open ``(start, stop)`` index runs.
    steps
        Time steps from the first to the last state; 1 makes pairs, 0 single states.

    Returns
    -------
    numpy.ndarray
        (n,) int64, increasing; empty when no run is long enough.
    """
    parts = [np.arange(start, stop - steps, dtype=np.int64) for start, stop in sorted(runs)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
