"""Forecasts as sources: initial times and lead times become valid times, which are what fields are at."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, MutableSequence

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, TimeAxisError
from weathermill.fields.choices import is_lead, lead_hours, lead_text, take_one
from weathermill.fields.coordinates import bounds_names, is_time_like
from weathermill.fields.findings import Finding, tell
from weathermill.fields.timeaxis import first_text

_VALID = ("valid_time", "validtime", "valid_datetime", "verification_time", "validity_time")
_INITIAL = (
    "init_time",
    "initial_time",
    "initialization_time",
    "initialisation_time",
    "init",
    "forecast_reference_time",
    "forecast_initial_time",
    "forecast_init_time",
    "reference_time",
    "reftime",
    "analysis_time",
    "base_time",
)
_MAIN = ("time", "date", "datetime", "xtime")

#: Two times that differ by less are the same: lead times in hours are rounded.
_SAME_SECONDS = 1.0


def to_valid_times(
    dataset: xr.Dataset,
    source: str,
    units: Mapping[str, str],
    findings: MutableSequence[Finding] | None = None,
) -> xr.Dataset:
    """Replace initial time and lead time by the valid time, where a source has one lead time, or one forecast.

    Parameters
    ----------
    dataset
        As opened, with times decoded and what is selected taken.
    source
        Its name for messages.
    units
        Units by coordinate, whatever the file says.
    findings
        Where to record what was done.

    Returns
    -------
    xarray.Dataset
        With the coordinate ``valid_time`` in place of the initial and lead times; unchanged without a lead time, and
        where several lead times stand beside several initial times, of which one must be chosen.

    Raises
    ------
    CoordinateError
        Where lead times have no units.
    TimeAxisError
        Where the coordinates contradict each other.
    """
    name = _find(dataset)
    if name is None:
        _tell_initial_alone(dataset, source, findings)
        return dataset
    valid, initial, main = _times(dataset)
    base = initial or main
    if name in dataset.dims and dataset.sizes[name] != 1:
        if base is None and valid is None:
            return dataset
        several = base is not None and dataset.variables[base].size > 1
        if several or (base is None and dataset.variables[valid].dims != (name,)):
            return _with_leads_to_choose(dataset, name, base, valid)
        return _one_forecast(dataset, source, name, base, valid, units, findings)
    own = name in dataset.dims
    dataset = _without_fields_lacking(dataset, name, source, findings) if own else dataset
    if name not in dataset.variables:
        if valid is None:
            raise CoordinateError(
                f"the dimension {name} of one lead time has no value, so that the valid times are not known",
                where=source,
                remedy=f"Give the file a coordinate {name} with the units hours, or a valid_time.",
            )
        dataset = take_one(dataset, name, 0)
        return _assign(dataset, dataset.variables[valid], (name, base))
    hours = lead_hours(name, dataset.variables[name], source, units.get(name, ""))
    attrs = dataset.variables[name].attrs
    if own:
        dataset, hours = take_one(dataset, name, 0), hours.reshape(-1)[0]
    variable = None if valid is None else _along_base(dataset, valid, base)
    if variable is not None:
        start = _start(dataset, base, variable, hours)
        if start is not None and not any(_agree(start, variable.values, lead) for lead in (hours, 0.0)):
            raise TimeAxisError(
                f"{valid} begins at {_first(variable.values)}, and {base} with {name} gives"
                f" {_first(_later(np.atleast_1d(start), hours))}",
                where=source,
                remedy=f"Correct one of {valid}, {base} and {name} in the file, or drop it there.",
            )
        _tell(findings, source, base, name, hours, variable.values)
        return _assign(dataset, variable, (name, base))
    if initial is not None and main is not None:
        return _by_both(dataset, source, name, initial, main, hours, findings)
    if base is None:
        return dataset
    variable = dataset.variables[base]
    if initial is None and _says_valid(variable, name, attrs, own, np.ndim(hours)):
        return dataset.drop_vars(name)
    if np.ndim(hours) and variable.ndim == 0:
        # A lead time along some other dimension, beside one initial time.
        return dataset
    times = _later(np.atleast_1d(variable.values), hours).reshape(variable.shape)
    _tell(findings, source, base, name, hours, times)
    return _assign(dataset, xr.Variable(variable.dims, times), (name, base))


def _find(dataset: xr.Dataset) -> str | None:
    """Return the lead time: a dimension before a coordinate, or None."""
    found = []
    for name in [*dataset.dims, *dataset.coords]:
        variable = dataset.variables.get(name)
        if variable is not None and (variable.ndim > 1 or is_time_like(variable)):
            continue
        if is_lead(str(name), variable):
            found.append((name not in dataset.dims, str(name)))
    # Without a coordinate of its own, CF's forecast_period may be stored as a variable.
    for name, variable in dataset.data_vars.items():
        if variable.ndim <= 1 and variable.attrs.get("standard_name") == "forecast_period":
            found.append((True, str(name)))
    return min(found)[1] if found else None


def _times(dataset: xr.Dataset) -> tuple[str | None, str | None, str | None]:
    """Return the names of the valid, the initial and any other time."""
    bounds = bounds_names(dataset)
    valid = initial = main = None
    for name, variable in dataset.variables.items():
        name = str(name)
        if name in bounds or variable.ndim > 2 or not is_time_like(variable):
            continue
        if name not in dataset.coords and name.lower() not in (*_VALID, *_INITIAL, *_MAIN):
            continue
        if name.lower() in _VALID:
            valid = valid or name
        elif name.lower() in _INITIAL or variable.attrs.get("standard_name") == "forecast_reference_time":
            initial = initial or name
        elif name.lower() in _MAIN or (name in dataset.dims and main is None):
            main = name
    if valid is None and main is not None and dataset.variables[main].ndim == 2:
        valid, main = main, None
    return valid, initial, main


def _with_leads_to_choose(dataset, name, base, valid) -> xr.Dataset:
    """Leave the lead dimension to be chosen along; fields without it are at the initial times."""
    if valid is not None and dataset.variables[valid].ndim > 1:
        dataset = dataset.drop_vars(valid)
    if base is None or base.lower() in _MAIN:
        return dataset
    variable = dataset.variables[base]
    attrs = {key: value for key, value in variable.attrs.items() if key != "standard_name"}
    return _assign(dataset, xr.Variable(variable.dims, variable.values, attrs, variable.encoding), (base,))


def _one_forecast(dataset, source, name, base, valid, units, findings) -> xr.Dataset:
    """Make the lead times of one forecast its time axis."""
    for dim in dataset.variables[base].dims if base is not None else ():
        dataset = _without_fields_lacking(dataset, name, source, findings, beside=dim)
        dataset = take_one(dataset, dim, 0)
    variable = None if valid is None else dataset.variables[valid]
    if variable is not None and variable.dims == (name,):
        times = variable
    elif base is None or name not in dataset.variables:
        return dataset
    else:
        hours = lead_hours(name, dataset.variables[name], source, units.get(name, ""))
        start = np.broadcast_to(np.atleast_1d(dataset.variables[base].values), hours.shape)
        times = xr.Variable((name,), _later(start, hours))
    tell(
        findings,
        "info",
        "time",
        f"{source} holds one forecast, whose {times.size} steps along {name} are its times,"
        f" from {_first(times.values)}",
    )
    return _assign(dataset, times, (name, base))


def _by_both(dataset, source, name, initial, main, hours, findings) -> xr.Dataset:
    """Decide whether the time beside an initial time is the valid time: it is later by the lead time, or the same."""
    start, times = dataset.variables[initial], dataset.variables[main]
    lead = np.atleast_1d(hours)
    if start.size in (1, times.size):
        begin = np.broadcast_to(np.atleast_1d(start.values), (max(1, times.size),))
        if _agree(begin, times.values, lead):
            _tell(findings, source, initial, name, hours, times.values)
            return _assign(dataset, times, (name, initial, main))
        if _agree(begin, times.values, np.zeros(1)):
            valid = _later(np.atleast_1d(times.values), hours).reshape(times.shape)
            _tell(findings, source, main, name, hours, valid)
            return _assign(dataset, xr.Variable(times.dims, valid), (name, initial, main))
    if not lead.any():
        return dataset.drop_vars([name, initial])
    raise TimeAxisError(
        f"{initial} ({_first(start.values)}), {name} ({lead_text(float(lead[0]))}) and {main}"
        f" ({_first(times.values)}) contradict each other: {main} is neither the initial nor the valid time",
        where=source,
        remedy=f"Correct one of them in the file, or drop {initial} and {name} there if {main} is the valid time.",
    )


def _says_valid(variable, name, lead_attrs, own: bool, lead_ndim: int) -> bool:
    """Whether a time that stands beside a lead time is said to be the valid time already."""
    words = str(variable.attrs.get("long_name", "")).lower()
    if "valid" in words or "verif" in words:
        return True
    if any(word in words for word in ("initial", "reference", "start", "analysis", "base")):
        return False
    if variable.attrs.get("standard_name") == "forecast_reference_time":
        return False
    # CF's auxiliary coordinate forecast_period stands beside a time that is the valid time.
    of_cf = lead_attrs.get("standard_name") == "forecast_period" or name.lower() == "forecast_period"
    return not own and (lead_ndim > 0 or (of_cf and variable.attrs.get("standard_name") == "time"))


def _along_base(dataset, valid, base) -> xr.Variable | None:
    """Return the valid time in the shape of the initial time, or None where one is no match for the other."""
    variable = dataset.variables[valid]
    if base is None or variable.ndim > 1:
        return variable if variable.ndim <= 1 else None
    dims = dataset.variables[base].dims
    if variable.ndim == 0 and dims:
        return (
            xr.Variable(dims, np.atleast_1d(variable.values)) if dataset.variables[base].size == 1 else None
        )
    return variable


def _start(dataset, base, valid, hours) -> np.ndarray | None:
    """Return initial times in the shape of the valid ones, or None where they cannot be compared."""
    if base is None:
        return None
    start = np.atleast_1d(dataset.variables[base].values)
    size = max(1, valid.size)
    return (
        np.broadcast_to(start, (size,)) if start.size in (1, size) and np.size(hours) in (1, size) else None
    )


def _agree(start: np.ndarray, valid: np.ndarray, hours: np.ndarray | float) -> bool:
    """Whether valid times are the initial ones plus the lead, to a second."""
    valid, expected = np.atleast_1d(valid), _later(np.atleast_1d(start), hours)
    if expected.shape != valid.shape:
        return False
    try:
        apart = expected - valid
    except TypeError:
        return False
    if valid.dtype.kind == "M":
        seconds = np.abs(apart[~np.isnat(apart)].astype("timedelta64[ns]").astype(np.int64)) / 1e9
    else:
        seconds = np.array([abs(each.total_seconds()) for each in apart])
    return not seconds.size or float(seconds.max()) < _SAME_SECONDS


def _later(times: np.ndarray, hours: np.ndarray | float) -> np.ndarray:
    """Return times later by hours, of either type, one-dimensional."""
    nanoseconds = np.round(np.atleast_1d(hours) * 3.6e12).astype(np.int64)
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[ns]") + nanoseconds.astype("timedelta64[ns]")
    steps = np.broadcast_to(nanoseconds, times.shape)
    later = np.empty(times.shape, dtype=object)
    for i, (time, step) in enumerate(zip(times, steps, strict=True)):
        later[i] = time + dt.timedelta(microseconds=int(step) // 1000)
    return later


def _first(times: np.ndarray) -> str:
    return first_text(np.atleast_1d(times).reshape(-1)[0])


def _tell(findings, source, base, name, hours, times) -> None:
    lead = np.atleast_1d(hours)
    if base is None or not lead.any():
        return
    text = (
        lead_text(float(lead[0]))
        if np.ptp(lead) == 0
        else f"{lead_text(lead.min())} to {lead_text(lead.max())}"
    )
    tell(
        findings,
        "warning",
        "time",
        f"{source} holds forecasts: {base} is the initial time, and its fields count at the valid time, later by"
        f" {name} = {text}, from {_first(times)}",
    )


def _assign(dataset: xr.Dataset, variable: xr.Variable, replaced: tuple[str | None, ...]) -> xr.Dataset:
    """Put the valid time in the place of other times; nothing else changes."""
    gone = [str(name) for name in replaced if name is not None]
    gone += [name for name in map(str, dataset.variables) if name.lower() in _VALID]
    result = dataset.drop_vars(gone, errors="ignore")
    attrs = {"standard_name": "time", "long_name": "valid time"}
    valid = xr.Variable(variable.dims, variable.values, attrs, variable.encoding)
    result = result.assign_coords(valid_time=valid)
    result.encoding = dict(dataset.encoding)
    return result


def _without_fields_lacking(dataset, name, source, findings, beside: str | None = None) -> xr.Dataset:
    """Leave out fields over time that have no lead time, where others have: they are at other times."""
    fields = {str(key): v for key, v in dataset.data_vars.items() if v.ndim > 1}
    if beside is None:
        _, initial, main = _times(dataset)
        base = initial or main
        dims = dataset.variables[base].dims if base is not None else ()
    else:
        dims = (beside,) if dataset.sizes[beside] == 1 else ()
    over_time = [key for key, v in fields.items() if name not in v.dims and set(dims) & set(v.dims)]
    if not over_time or not any(name in v.dims for v in fields.values()):
        return dataset
    bounds = bounds_names(dataset)
    dropped = [key for key in over_time if key not in bounds]
    if dropped:
        tell(
            findings,
            "warning",
            "time",
            f"{source}: {', '.join(dropped)} are left out: they have no {name}, which others have, and so are at"
            " other times",
            "Put them into a file of their own.",
        )
    return dataset.drop_vars(dropped)


def _tell_initial_alone(dataset, source, findings) -> None:
    valid, initial, main = _times(dataset)
    if initial is None or valid is not None or main is not None or initial not in dataset.dims:
        return
    if re.search("init|ref", initial.lower()):
        tell(
            findings,
            "warning",
            "time",
            f"{source} has initial times alone ({initial}), and no lead time: they are taken as the times of its"
            " fields",
            "If the fields are forecasts, give the file its lead time, or times of validity.",
        )
