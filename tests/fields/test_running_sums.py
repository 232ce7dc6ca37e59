"""Sums from the start of a forecast in NetCDF, whose attributes do not tell them from sums over each step."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.fields.conventions import canonicalise
from weathermill.fields.inspection import inspect
from weathermill.fields.running_sums import FEWEST_WET, looks_like_running_sums, running_sums_fault


def rain(steps, seed=0, rows=12, columns=15, wet=0.3):
    """Precipitation over each step in m: showers at a share of points, with a trend that rises everywhere."""
    rng = np.random.default_rng(seed)
    showers = rng.gamma(0.5, 1e-3, (steps, rows, columns)) * (rng.random((steps, rows, columns)) < wet)
    return showers + 1e-6 * np.arange(steps)[:, None, None]


def summed(amounts, per_day):
    """Sum each day of steps from its first one on."""
    days = [amounts[i : i + per_day].cumsum(axis=0) for i in range(0, len(amounts), per_day)]
    return np.concatenate(days)


@pytest.mark.parametrize("first", [1, 5, 23, 24])
@pytest.mark.parametrize("per_day", [24, 8, 4])
def test_sums_from_the_start_of_a_day_are_seen_wherever_the_file_begins(per_day, first):
    amounts = rain(50, seed=first)
    assert looks_like_running_sums(summed(amounts, per_day)[first - 1 :][:26])
    assert not looks_like_running_sums(amounts[first - 1 :][:26])


def test_packing_and_gaps_over_the_sea_do_not_hide_them():
    sums = summed(rain(26), 24)
    step = sums.max() / 65535
    packed = np.round(sums / step) * step
    packed[:, :4] = np.nan
    assert looks_like_running_sums(packed.astype(np.float32))


def test_sums_over_each_step_are_not_taken_for_them():
    for seed in range(200):
        assert not looks_like_running_sums(rain(26, seed, wet=0.02 + 0.9 * seed / 200))
    # A front that crosses: each point rises, then falls, at a time of its own.
    x, t = np.arange(60.0), np.arange(26.0)[:, None]
    assert not looks_like_running_sums(np.exp(-(((x - 2 * t) / 8) ** 2)))
    # The same shower every afternoon, at all points at once.
    course = np.clip(np.sin(2 * np.pi * (np.arange(26) - 9) / 24), 0, None)
    assert not looks_like_running_sums(course[:, None] * np.ones(60))


def test_too_little_rain_or_too_few_steps_tell_nothing():
    sums = summed(rain(26), 24)
    assert not looks_like_running_sums(sums[:7])
    assert not looks_like_running_sums(sums.reshape(26, -1)[:, : FEWEST_WET - 1])
    assert not looks_like_running_sums(np.zeros((26, 9, 9)))


def test_the_inspection_warns_of_them():
    def report(values):
        source = xr.Dataset(
            {"tp": (("time", "latitude", "longitude"), values.astype(np.float32), {"units": "m"})},
            coords={
                "time": np.datetime64("2020-01-01T01", "ns") + np.arange(48) * np.timedelta64(1, "h"),
                "latitude": ("latitude", np.linspace(60, 49, 12), {"units": "degrees_north"}),
                "longitude": ("longitude", np.linspace(0, 14, 15), {"units": "degrees_east"}),
            },
        )
        found = inspect(canonicalise([source], surface_variables=["total_precipitation"]))
        return [f.message for f in found.warnings]

    amounts = rain(48)
    assert not report(amounts)
    (told,) = report(summed(amounts, 24))
    assert told.startswith("over its first 26 steps it never falls at any point but where it starts anew")


def test_sums_whose_interval_is_known_are_not_looked_at():
    field = xr.DataArray(summed(rain(26), 24), dims=("time", "y", "x"), name="total_precipitation")
    assert running_sums_fault(field, 2**30) is not None
    field.attrs["cell_methods"] = "time: sum (interval: 1 hours)"
    assert running_sums_fault(field, 2**30) is None
