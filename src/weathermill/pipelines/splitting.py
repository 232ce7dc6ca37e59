"""Time axes of fields as the tensor library knows them: seconds, a step and runs of indices by split."""

from __future__ import annotations

import datetime as dt
from typing import Any

import cftime
import numpy as np
import xarray as xr

from weathermill.errors import TimeAxisError
from weathermill.parameters import PeriodParameters, SplitParameters
from weathermill.tensors.splits import Period, Runs, index_spans, split_indices
from weathermill.tensors.store import TensorStore


def time_seconds(fields: xr.Dataset | xr.DataArray) -> tuple[np.ndarray, str]:
    """Seconds since 1970-01-01 in the calendar of the fields, int64, and the calendar's name."""
    times = fields["time"].values
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[s]").astype(np.int64), "standard"
    calendar = times[0].calendar
    return np.asarray(
        cftime.date2num(times, "seconds since 1970-01-01", calendar=calendar), dtype=np.int64
    ), calendar


def time_step_seconds(times: np.ndarray) -> int:
    """The step of a time axis: its smallest difference, of which all others must be multiples.

    Raises
    ------
    TimeAxisError
        If there are fewer than two times, or differences that are no multiples of the smallest.
    """
    if times.size < 2:
        raise TimeAxisError(
            f"{times.size} time step(s): training needs at least 2", remedy="Ingest a longer period."
        )
    differences = np.diff(times)
    step = int(differences.min())
    odd = np.flatnonzero(differences % step)
    if odd.size:
        raise TimeAxisError(
            f"the time step is {step / 3600:g} h, but {differences[odd[0]] / 3600:g} h lie between steps "
            f"{odd[0]} and {odd[0] + 1}",
            remedy="Ingest data with a regular time step.",
        )
    return step


def _periods(parameters: SplitParameters) -> dict[str, Period | float]:
    values = {name: getattr(parameters, name) for name in ("train", "validation", "test")}
    return {n: v if isinstance(v, float) else Period(v.start, v.stop) for n, v in values.items()}


def period_runs(times: np.ndarray, calendar: str, step: int, parameters: SplitParameters) -> dict[str, Runs]:
    """Runs of time indices by split, broken at gaps."""
    return split_indices(times, _periods(parameters), calendar=calendar, time_step=step)


def training_bounds(fields: xr.Dataset, parameters: SplitParameters) -> tuple[Any, Any]:
    """Return [start, stop) of the training period of fields, whether splits are dates or fractions.

    Parameters
    ----------
    fields
        With all the times that will be split, in order.
    parameters
        The splits.

    Returns
    -------
    tuple
        Dates as given, or times of the axis where splits are fractions; None for no bound.
    """
    if isinstance(parameters.train, PeriodParameters):
        return parameters.train.start, parameters.train.stop
    seconds, calendar = time_seconds(fields)
    start, stop = index_spans(seconds, _periods(parameters), calendar)["train"]
    times = fields["time"].values
    return times[start], times[stop] if stop < times.size else None


def training_period_of(store: TensorStore) -> list[str]:
    """Return [start, stop) of the training period of a store as ISO 8601 texts in its calendar.

    It starts at the first training state and stops a step behind the last.
    """
    runs = store.splits["train"]
    first, last = int(store.times[runs[0][0]]), int(store.times[runs[-1][1] - 1])
    ends = (first, last + int(store.time_step))
    if store.calendar == "standard":
        return [str(np.datetime64(end, "s")) for end in ends]
    zero = cftime.datetime(1970, 1, 1, calendar=store.calendar)
    return [(zero + dt.timedelta(seconds=end)).isoformat() for end in ends]
