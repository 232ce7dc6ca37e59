"""Datasets as programs send them: what ``xarray.Dataset.to_dict`` gives, after a journey through JSON."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from weathermill.errors import CoordinateError, ModelError
from weathermill.fields.coordinates import find_coordinate
from weathermill.fields.timecoding import TimeCoder
from weathermill.verification.times import STANDARD_CALENDARS

_TIMES = ("time", "valid_time", "date", "datetime", "init_time", "forecast_reference_time")
_FORM = (
    'Send what xarray.Dataset.to_dict() gives: {"coords": {"latitude": {"dims": ["latitude"], "data": [...]}, ...},'
    ' "data_vars": {"t": {"dims": ["time", "level", "latitude", "longitude"], "attrs": {"units": "K"}, "data": [...]},'
    " ...}}; or an array (n, channel, latitude, longitude)."
)


def to_dataset(payload: Mapping[str, Any]) -> xr.Dataset:
    """Build a dataset from what ``xarray.Dataset.to_dict`` gives.

    Parameters
    ----------
    payload
        With or without ``coords`` and ``data_vars``; times as ISO 8601, datetimes, or numbers with CF units. null is a
        missing value.

    Returns
    -------
    xarray.Dataset
        In memory, with decoded times.

    Raises
    ------
    ModelError
        If it is of another form.
    CoordinateError
        If times are no times.
    """
    plain = _unwrapped(payload)
    groups = [plain.get(key, {}) for key in ("coords", "data_vars")]
    if not any(key in plain for key in ("coords", "data_vars")):
        groups = [{key: value for key, value in plain.items() if key not in ("attrs", "dims")}]
    variables: dict[str, xr.Variable] = {}
    names: list[list[str]] = []
    for group in groups:
        if not isinstance(group, Mapping):
            raise ModelError("the dataset's coords and data_vars are no mappings", remedy=_FORM)
        names.append([str(name) for name in group])
        variables |= {str(name): _variable(str(name), entry) for name, entry in group.items()}
    if not any(variable.ndim > 1 for variable in variables.values()):
        raise ModelError("the dataset holds no field", remedy=_FORM)
    try:
        data = {
            name: variable for name, variable in variables.items() if name not in names[0] or len(names) == 1
        }
        dataset = xr.Dataset(data, {name: variables[name] for name in names[0]} if len(names) == 2 else None)
        attrs = plain.get("attrs")
        dataset.attrs = dict(attrs) if isinstance(attrs, Mapping) else {}
        return xr.decode_cf(dataset, decode_times=TimeCoder(time_unit="ns"), decode_timedelta=False)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelError(f"the dataset does not hold together: {error}", remedy=_FORM) from error


def with_times(dataset: xr.Dataset, times: Sequence[str]) -> xr.Dataset:
    """Give a dataset a dimension of time: its own, its scalar coordinate, or, without any, the one time given.

    Raises
    ------
    CoordinateError
        If it has no time and none is given, or the one given is no time.
    """
    name = find_coordinate(dataset, "time")
    if name is None:
        if len(times) != 1:
            raise CoordinateError(
                "the dataset has no time",
                remedy='Give it a coordinate `time`, or say the time of its state: params {"time": ["2001-01-31T06:00"]}.',
            )
        dataset, name = dataset.assign_coords(time=parse_times("time", list(times))[0]), "time"
    return dataset.expand_dims(name) if dataset[name].ndim == 0 else dataset


def parse_times(name: str, values: Any, calendar: str = "standard") -> np.ndarray:
    """Parse times: ISO 8601 (UTC unless they say otherwise), datetimes, or cftime objects.

    Raises
    ------
    CoordinateError
        If one is no time of the calendar.
    """
    array = np.asarray(values)
    flat = array.reshape(-1).tolist()
    if flat and all(isinstance(value, cftime.datetime) for value in flat):
        return array
    try:
        if calendar.lower() in STANDARD_CALENDARS:
            parsed = pd.to_datetime(flat, utc=True, format="ISO8601" if isinstance(flat[0], str) else None)
            return parsed.tz_localize(None).to_numpy(dtype="datetime64[ns]").reshape(array.shape)
        return np.array([_other_calendar(str(value), calendar) for value in flat], dtype=object).reshape(
            array.shape
        )
    except (ValueError, TypeError, OverflowError, IndexError) as error:
        raise CoordinateError(
            f"{name} holds what is no time of the {calendar} calendar: {error}",
            remedy="Write times as ISO 8601, such as 2001-01-31T06:00; those of another calendar with its name in the"
            ' coordinate\'s attributes, {"calendar": "noleap"}.',
        ) from error


def _other_calendar(text: str, calendar: str) -> cftime.datetime:
    match = re.fullmatch(
        r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.\d+)?)?)?)?Z?", text.strip()
    )
    if match is None:
        raise ValueError(f"{text!r}")
    return cftime.datetime(*(int(part or 0) for part in match.groups()), calendar=calendar)


def _unwrapped(value: Any) -> Any:
    """Take mappings out of the arrays of no dimension that MLflow's server wraps them in."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype == object:
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): item if key == "data" else _unwrapped(item) for key, item in value.items()}
    return value


def _variable(name: str, entry: Any) -> xr.Variable:
    if not isinstance(entry, Mapping) or "data" not in entry or "dims" not in entry:
        found = (
            f"the keys {', '.join(map(str, entry)) or 'none'}"
            if isinstance(entry, Mapping)
            else type(entry).__name__
        )
        raise ModelError(f"{name} of the dataset has {found}, not dims and data", remedy=_FORM)
    attrs, encoding = (
        dict(entry[key]) if isinstance(entry.get(key), Mapping) else {} for key in ("attrs", "encoding")
    )
    dims = entry["dims"]
    dims = tuple(map(str, np.atleast_1d(np.asarray(dims, dtype=object)).tolist()))
    try:
        data = np.asarray(entry["data"])
    except ValueError as error:
        raise ModelError(f"{name} of the dataset is no array: {error}", remedy=_FORM) from error
    if data.ndim != len(dims) or len(set(dims)) < len(dims):
        raise ModelError(
            f"{name} of the dataset has the dimensions ({', '.join(dims)}) and data of shape {data.shape}",
            remedy=_FORM,
        )
    if data.dtype.kind == "O" and not _holds_times(data):
        try:
            data = data.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{name} of the dataset holds values that are no numbers: {error}") from error
    named = name.lower() in _TIMES or attrs.get("standard_name") in ("time", "forecast_reference_time")
    if data.size and (data.dtype.kind == "O" or (named and data.dtype.kind in "US")):
        calendar = str(attrs.pop("calendar", encoding.get("calendar", "standard")))
        attrs.pop("units", None)
        data = parse_times(name, data, calendar)
    return xr.Variable(dims, data, attrs)


def _holds_times(data: np.ndarray) -> bool:
    return data.size > 0 and isinstance(data.reshape(-1)[0], dt.date | cftime.datetime)
