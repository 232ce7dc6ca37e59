"""Time axes of fields as the tensor library knows them: seconds, a step and runs of indices by split."""

from __future__ import annotations

import cftime
import numpy as np
import xarray as xr

from weathermill.errors import TimeAxisError
from weathermill.parameters import SplitParameters
from weathermill.tensors.splits import Period, Runs, split_indices


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


def period_runs(times: np.ndarray, calendar: str, step: int, parameters: SplitParameters) -> dict[str, Runs]:
    """Runs of time indices by split, broken at gaps."""
    periods: dict[str, Period | float] = {}
    for name in ("train", "validation", "test"):
        value = getattr(parameters, name)
        periods[name] = value if isinstance(value, float) else Period(value.start, value.stop)
    return split_indices(times, periods, calendar=calendar, time_step=step)
