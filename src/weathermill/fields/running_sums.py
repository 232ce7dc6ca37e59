"""Sums that run on from the start of a forecast, such as ERA5-Land's, where each step should hold its own interval alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr

from weathermill.fields.coordinates import TIME

#: Variables that are looked at. Radiation, whose course over the day is the same everywhere in a region, is not among them.
NAMES = ("total_precipitation",)

#: Consecutive steps that are read, a day of hourly ones with a reset at either end, and the fewest that tell anything.
STEPS, FEWEST_STEPS = 26, 8

#: Points with precipitation that it takes to tell: at so many at once, amounts of single intervals never only rise.
FEWEST_WET = 20

_FEWEST_RISES = 6
# Smaller changes may be rounding of packed values.
_ROUNDING_SHARE = 1e-3
_FALLING_SHARE = 0.5


def looks_like_running_sums(values: np.ndarray) -> bool:
    """Return whether amounts rise at every point from step to step, but for single steps at which they start anew.

    Parameters
    ----------
    values
        (time, ...) at consecutive steps, in any unit; NaN counts as dry.

    Returns
    -------
    bool
        False where there are too few steps or points with precipitation to tell.
    """
    flat = np.nan_to_num(np.asarray(values, dtype=np.float64)).reshape(len(values), -1)
    rounding = _ROUNDING_SHARE * np.abs(flat).max(initial=0.0)
    wet = flat > rounding
    if len(flat) < FEWEST_STEPS or wet.any(axis=0).sum() < FEWEST_WET:
        return False
    kinds = []
    for before, after, was_wet in zip(flat[:-1], flat[1:], wet[:-1], strict=True):
        falling = before - after > rounding
        if falling.any():
            if falling[was_wet].mean() < _FALLING_SHARE:
                return False
            kinds.append("fall")
        elif (after - before > rounding).any():
            kinds.append("rise")
    rises, falls = kinds.count("rise"), kinds.count("fall")
    twice = any(a == b == "fall" for a, b in pairwise(kinds))
    return not twice and rises >= max(_FEWEST_RISES, 2 * falls)


def running_sums_fault(variable: xr.DataArray, most_bytes: int) -> tuple[str, str] | None:
    """Return what is wrong with canonical sums, and what to do, where they run on from step to step; else None.

    Parameters
    ----------
    variable
        With its canonical name; ``STEPS`` of its steps are read at most, from the first one on.
    most_bytes
        That may be read; less than ``FEWEST_STEPS`` take tells nothing.

    Notes
    -----
    Sums whose interval is known (``cell_methods``, as the reader of GRIB gives it) are not looked at.
    """
    known = "interval:" in str(variable.attrs.get("cell_methods", ""))
    if variable.name not in NAMES or TIME not in variable.dims or known:
        return None
    per_step = max(1, variable.nbytes // max(1, variable.sizes[TIME]))
    steps = min(STEPS, variable.sizes[TIME], most_bytes // per_step)
    if steps < FEWEST_STEPS:
        return None
    first = variable.transpose(TIME, ...).isel({TIME: slice(0, int(steps))})
    if not looks_like_running_sums(first.values):
        return None
    return (
        f"over its first {steps} steps it never falls at any point but where it starts anew: these look like sums from the"
        " start of a forecast, as in ERA5-Land, and not like sums over each step",
        "If they are, take the difference of each step and the one before in the source, but for the first step after each"
        " start; else nothing need be done.",
    )
