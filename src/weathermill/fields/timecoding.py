"""The numbers in which files write times: how exact they are, and undoing what they blur."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import MutableSequence

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, TimeAxisError
from weathermill.fields.findings import Finding, tell
from weathermill.fields.timeaxis import first_text

_SECONDS = {
    "week": 604800.0,
    "day": 86400.0,
    "d": 86400.0,
    "hour": 3600.0,
    "hr": 3600.0,
    "h": 3600.0,
    "minute": 60.0,
    "min": 60.0,
    "second": 1.0,
    "sec": 1.0,
    "s": 1.0,
}

# Names of zones that are UTC.
_UTC = ("Z", "UTC", "UT", "GMT", "TZ")

#: Rounded decimals are undone where they moved times by less than this many seconds.
MOST_ROUNDED = 5.0

#: The first day of the Gregorian calendar; CF's standard calendar is the Julian one before it.
_GREGORIAN = (1582, 10, 15)


class TimeCoder(xr.coders.CFDatetimeCoder):
    """CF times with what xarray refuses or gets wrong: whole months and years, and missing values beyond datetime64."""

    def decode(self, variable: xr.Variable, name: object = None) -> xr.Variable:
        """Decode one variable where it is a time; others come back as they are."""
        units = variable.attrs.get("units")
        if not isinstance(units, str) or " since " not in units or variable.dtype.kind not in "iuf":
            return super().decode(variable, name)
        _refuse_zone(units, str(name))
        # GrADS writes the year 1 with one digit, which xarray warns of.
        padded = re.sub(r"(?<= since )(\d{1,3})(?=-\d{1,2}-\d{1,2}\b(?!\d))", lambda m: m[1].zfill(4), units)
        if padded != units:
            variable = variable.copy(deep=False)
            variable.attrs = {**variable.attrs, "units": padded}
        calendar = str(variable.attrs.get("calendar", "standard")).lower()
        standard = calendar in ("standard", "gregorian", "proleptic_gregorian")
        unit = units.split(" since ")[0].strip().lower()
        if standard and unit in ("month", "months", "year", "years", "common_year", "common_years"):
            return _whole_months(variable, str(name), 12 if unit.startswith(("year", "common")) else 1)
        if not standard and variable.dtype.kind == "f" and variable.ndim <= 1:
            # cftime takes a missing number for the reference date.
            missing = np.flatnonzero(~np.isfinite(np.atleast_1d(variable.values)))
            if missing.size:
                raise CoordinateError(
                    f"{missing.size} of {variable.size} times ({name}) are missing,"
                    f" the first at position {missing[0]}",
                    remedy="Cut those steps out of the file, or give them their times.",
                )
        return super().decode(variable, name)


def _refuse_zone(units: str, name: str) -> None:
    """Refuse a reference date in a zone that is named (EST, CET), which readers of dates take for UTC."""
    zone = re.search(
        r"(?<![A-Za-z])([A-Za-z][A-Za-z/_ ]*)$", units.split(" since ", 1)[1].strip().rstrip(".")
    )
    if zone is not None and zone[1].upper() not in _UTC and re.search(r"\d", units):
        raise CoordinateError(
            f"the times {name} are in {units!r}, whose time zone {zone[1]} is not certain",
            remedy="Give the file the offset from UTC in numbers, such as `hours since 1900-01-01 00:00:00 -05:00`.",
        )


def _whole_months(variable: xr.Variable, name: str, months: int) -> xr.Variable:
    """Decode counts of calendar months, which have no length of their own unless they are whole."""
    units = str(variable.attrs["units"])
    values = np.asarray(variable.values, dtype=np.float64)
    counts = values * months
    whole = np.isfinite(counts) & (np.abs(counts - np.round(counts)) < 1e-6)
    match = re.match(r"\s*(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ]+0{1,2}(?::0{1,2}){0,2}(?:\.0*)?)?\s*(?:Z|UTC)?$",
                     units.split(" since ")[1])  # fmt: skip
    if not whole.all() or match is None or not 1 <= int(match[3]) <= 28:
        raise CoordinateError(
            f"the times {name} are in {units!r} and not all of them are whole months from a first to 28th day,"
            " so that their dates are not certain",
            remedy="Write them in days or hours, for example with `cdo settunits,days`.",
        )
    year, month, day = (int(part) for part in match.groups())
    total = year * 12 + month - 1 + np.round(counts).astype(np.int64)
    first = (total - 1970 * 12).astype("datetime64[M]").astype("datetime64[D]")
    times = (first + np.timedelta64(day - 1, "D")).astype("datetime64[ns]")
    attrs = {key: value for key, value in variable.attrs.items() if key not in ("units", "calendar")}
    return xr.Variable(variable.dims, times, attrs, {"units": units, "dtype": np.dtype(np.int64)})


def seconds_per_unit(units: str) -> float | None:
    """Return the seconds of the unit of a CF time (``hours since 1900-01-01``), or None where it is not known."""
    unit = units.split(" since ")[0].strip().lower() if " since " in units else ""
    return _SECONDS.get(unit, _SECONDS.get(unit.removesuffix("s")))


def blur_of(variable: xr.Variable | xr.DataArray) -> float:
    """Return by how many seconds a file's way of writing may have moved decoded times; 0.0 where it cannot have.

    That is the spacing of the number type (float32 days blur minutes), or half the last decimal where all numbers
    have been rounded to decimals, as long as that is at most `MOST_ROUNDED` seconds.
    """
    coarse = np.dtype(variable.encoding.get("dtype") or np.int64)
    units = str(variable.encoding.get("units", ""))
    seconds = seconds_per_unit(units)
    if coarse.kind != "f" or seconds is None or variable.size == 0:
        return 0.0
    counts = _counts(np.atleast_1d(variable.values), units, seconds)
    if counts is None:
        return 0.0
    largest = float(np.abs(counts).max())
    if coarse.itemsize <= 4:
        return float(np.spacing(np.float32(largest))) * seconds
    spacing = 2.0 * float(np.spacing(largest))
    # Decoded times are whole nanoseconds or, with cftime, microseconds.
    exact = spacing + 1e-6 / seconds
    for decimals in range(2, 9):
        scaled = counts * 10.0**decimals
        if np.abs(scaled - np.round(scaled)).max() <= 10.0**decimals * exact:
            half = 0.5 * 10.0**-decimals * seconds
            if half <= MOST_ROUNDED:
                return max(half * 1.001, spacing * seconds)
            break
    return spacing * seconds


def _counts(times: np.ndarray, units: str, seconds: float) -> np.ndarray | None:
    """Return the numbers that the file holds, but for a whole number of days; None where there are none."""
    if np.issubdtype(times.dtype, np.datetime64):
        times = times[~np.isnat(times)]
        if not times.size:
            return None
        text = units.split(" since ")[1].strip()
        match = re.match(r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2})(?::(\d{1,2}))?)?", text)
        if match is None:
            return None
        year, month, day, hour, minute = (int(part or 0) for part in match.groups())
        try:
            reference = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}", "s")
        except ValueError:
            return None
        whole = times.astype("datetime64[s]")
        rest = (times - whole).astype("timedelta64[ns]").astype(np.int64) / 1e9
        return ((whole - reference).astype(np.int64) + rest) / seconds
    import cftime

    if any(not hasattr(time, "timetuple") for time in times):
        return None
    return np.asarray(cftime.date2num(times, units, calendar=times[0].calendar), dtype=np.float64)


def snap(times: np.ndarray, resolution_seconds: float) -> np.ndarray:
    """Round times that a coarse number type (float32 days) or decimals have blurred, where that is unambiguous.

    Parameters
    ----------
    times
        datetime64[ns] or cftime objects.
    resolution_seconds
        By how much they may be off; see `blur_of`.

    Returns
    -------
    numpy.ndarray
        Times rounded to the coarsest of hour, minute or second that lies within the resolution of each
        and keeps them distinct; unchanged where none does.
    """
    times = np.asarray(times)
    if times.size == 0 or resolution_seconds == 0.0:
        return times
    plain = np.issubdtype(times.dtype, np.datetime64)
    if plain:
        missing = np.isnat(times)
        nanoseconds = times.astype("datetime64[ns]").astype(np.int64)
        base = None
    else:
        base = times[0].replace(hour=0, minute=0, second=0, microsecond=0)
        missing = np.zeros(times.shape, dtype=bool)
        nanoseconds = np.array(
            [(time - base) // dt.timedelta(microseconds=1) * 1000 for time in times], dtype=np.int64
        )
    known = nanoseconds[~missing]
    if not known.size:
        return times
    for unit in (3600, 1800, 900, 600, 300, 60, 1):
        quantum = unit * 1_000_000_000
        rounded = (known + quantum // 2) // quantum * quantum
        within = np.abs(rounded - known).max() <= max(resolution_seconds, 1e-3) * 1e9
        if within and np.unique(rounded).size == np.unique(known).size:
            if base is not None:
                return np.array(
                    [base + dt.timedelta(microseconds=int(n) // 1000) for n in rounded], dtype=object
                )
            snapped = times.astype("datetime64[ns]")
            snapped[~missing] = rounded.astype("datetime64[ns]")
            return snapped
    return times


def unblurred(
    variable: xr.Variable, name: str, source: str, findings: MutableSequence[Finding] | None
) -> xr.Variable:
    """Return a time coordinate without what its number type or rounded decimals have blurred.

    Times that count from before 1582 are told, since readers differ by two days about them.
    """
    values = np.atleast_1d(variable.values)
    _tell_old_reference(variable, name, source, findings)
    snapped = snap(values.reshape(-1), blur_of(variable)).reshape(variable.shape)
    if variable.dtype.kind == "M" and np.array_equal(snapped, variable.values, equal_nan=True):
        return variable
    if variable.dtype.kind != "M" and all(snapped.reshape(-1) == values.reshape(-1)):
        return variable
    return xr.Variable(variable.dims, snapped, variable.attrs, variable.encoding)


def _tell_old_reference(variable, name, source, findings) -> None:
    units = str(variable.encoding.get("units", ""))
    calendar = str(variable.encoding.get("calendar", "standard")).lower()
    if " since " not in units or calendar not in ("standard", "gregorian") or not variable.size:
        return
    match = re.match(r"(\d{1,4})-(\d{1,2})-(\d{1,2})", units.split(" since ")[1].strip())
    if match is None or tuple(int(part) for part in match.groups()) >= _GREGORIAN:
        return
    first = np.atleast_1d(variable.values).reshape(-1)[0]
    if variable.dtype.kind == "M" and np.isnat(first):
        return
    shown = variable.attrs.get("grads_min") or variable.attrs.get("minimum")
    said = _grads_date(str(shown)) if shown else None
    if said is not None and first_text(first)[:10] != said:
        raise TimeAxisError(
            f"{name} counts {units!r}, which makes its first time {first_text(first)} in the standard calendar, and"
            f" its attributes say {shown}",
            where=source,
            remedy='Give the time the attribute calendar = "proleptic_gregorian" if the attribute is right.',
        )
    tell(
        findings,
        "info",
        "time",
        f"{source} counts its times in {units!r}; as CF's standard calendar has it, which is the Julian one before"
        f" 1582-10-15, the first is {first_text(first)} (readers that take the Gregorian calendar for all years are"
        " off by up to ten days, by two from the year 1)",
    )


def _grads_date(text: str) -> str | None:
    """Return the date of a GrADS time (``00:30z01jan1980``) as ISO 8601, or None."""
    match = re.search(r"z(\d{1,2})([a-z]{3})(\d{4})$", text.strip().lower())
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    if match is None or match[2] not in months:
        return None
    return f"{int(match[3]):04d}-{months.index(match[2]) + 1:02d}-{int(match[1]):02d}"
