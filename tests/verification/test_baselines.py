"""Climatologies recover the cycles that a series is made of, from the training period alone."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from weathermill.errors import ParameterError, SplitError
from weathermill.verification.baselines import Climatology, annual_basis, climatology
from weathermill.verification.scores import ScoreAccumulator
from weathermill.verification.times import add_hours, hour_of_day, week_of_year, year_fraction

SHAPE = (2, 3, 4)


def series(start, stop, *, step=6):
    """A noiseless diurnal times annual cycle at every cell, and its times."""
    times = np.arange(np.datetime64(start), np.datetime64(stop), np.timedelta64(step, "h"))
    return times.astype("datetime64[ns]"), cycle(times)


def cycle(times):
    phase, hour = 2 * np.pi * year_fraction(times), hour_of_day(times)
    base = 5e4 + 300 * np.arange(np.prod(SHAPE)).reshape(SHAPE)
    annual = 100 * np.cos(phase - 0.3) + 30 * np.sin(2 * phase)
    diurnal = (5 + 3 * np.cos(phase)) * np.cos(2 * np.pi * (hour - 14) / 24)
    return (base + (annual + diurnal)[:, None, None, None]).astype(np.float32)


def test_harmonics_recover_the_annual_and_diurnal_cycle_of_other_years():
    times, states = series("2000-01-01", "2004-01-01")
    result = climatology(states, times)
    assert result.kind == "harmonic"
    assert result.attrs["climatology_harmonics"] == 2
    assert "the annual cycle up to harmonic 2, by hour of day (4 of them)" in result.attrs["climatology"]
    unseen = np.array(["2012-02-29T12", "2015-07-04T18", "1999-12-31T00"], dtype="datetime64[h]")
    np.testing.assert_allclose(result.at(unseen), cycle(unseen), atol=0.05)
    # Between six-hourly states the diurnal cycle is interpolated: exact to its curvature only.
    np.testing.assert_allclose(
        result.at(np.datetime64("2015-07-04T15")),
        0.5 * (cycle(["2015-07-04T12"]) + cycle(["2015-07-04T18"])),
        atol=0.5,
    )


def test_only_the_training_period_counts():
    times, states = series("2000-01-01", "2003-01-01")
    clean = climatology(states, times, [(0, 2900)])
    states[2900:] = 1e9
    assert np.array_equal(climatology(states, times, [(0, 2900)]).coefficients, clean.coefficients)
    assert clean.attrs["climatology_states"] == 2900
    with pytest.raises(SplitError, match="empty"):
        climatology(states, times, [])


@pytest.mark.parametrize(
    ("start", "stop", "kind"),
    [
        ("2000-01-01", "2001-01-01", "harmonic"),
        ("2000-01-01", "2000-03-15", "hourly"),
        ("2000-01-01", "2000-01-05", "mean"),
    ],
)
def test_what_the_training_period_is_long_enough_for(start, stop, kind):
    times, states = series(start, stop)
    result = climatology(states, times)
    assert result.kind == kind
    assert ("too short" in result.attrs["climatology"]) == (kind != "harmonic")
    if kind == "hourly":
        noon = states[hour_of_day(times) == 12].astype(np.float64).mean(0)
        np.testing.assert_allclose(result.at(np.datetime64("2000-05-01T12"))[0], noon, rtol=1e-7)
    if kind == "mean":
        expected = states.astype(np.float64).mean(0)
        np.testing.assert_allclose(result.at(np.datetime64("2009-01-01T03"))[0], expected, rtol=1e-7)


def test_a_year_with_a_hole_has_no_annual_cycle():
    times, states = series("2000-01-01", "2001-01-01")
    keep = [(0, 500), (900, len(times))]
    assert climatology(states, times, keep).kind == "hourly"
    with pytest.raises(ParameterError, match="hole of 100"):
        climatology(states, times, keep, kind="harmonic")
    with pytest.raises(ParameterError, match="unknown climatology kind 'monthly'"):
        climatology(states, times, kind="monthly")


def test_normalised_states_give_the_same_climatology_in_blocks_of_channels():
    times, states = series("2000-01-01", "2002-01-01")
    mean = states.mean((0, 2, 3), dtype=np.float64)
    std = states.std((0, 2, 3), dtype=np.float64)
    normalised = ((states - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
    reads = []

    def read(index):
        reads.append(index)
        return normalised[index]

    whole = climatology(states, times)
    scaled = climatology(read, times, mean=mean, std=std, memory_limit=1)
    assert len(reads) == 1 + 2 * len(times)
    when = np.datetime64("2007-08-09T06")
    np.testing.assert_allclose(scaled.at(when), whole.at(when), atol=0.05)


def test_weekly_climatology_is_that_of_weatherbench_1():
    times, states = series("2000-01-01", "2003-01-01", step=12)
    result = climatology(states, times, kind="weekly")
    data = xr.DataArray(states.astype(np.float64), dims=("time", "c", "y", "x"), coords={"time": times})
    weekly = data.groupby(data["time"].dt.isocalendar().week).mean()
    test = np.array(["2017-01-01", "2017-01-02", "2018-06-30", "2018-12-31"], dtype="datetime64[ns]")
    for position, week in enumerate(week_of_year(test)):
        np.testing.assert_allclose(result.at(test)[position], weekly.sel(week=week), rtol=1e-6)
    # None of these years has a week 53: the last days of 2020 take the week before.
    assert result.bins.tolist() == list(range(1, 53))
    np.testing.assert_array_equal(
        result.at(np.datetime64("2020-12-31")), result.at(np.datetime64("2020-12-26"))
    )


def test_calendars_without_leap_days():
    times = np.array([cftime.Datetime360Day(2000, 1, 1) for _ in range(1)])
    times = np.concatenate([add_hours(times, 12 * step) for step in range(3 * 720)])
    states = cycle(times)
    result = climatology(states, times, harmonics=2)
    assert result.kind == "harmonic"
    when = [cftime.Datetime360Day(2010, 2, 30, 12)]
    np.testing.assert_allclose(result.at(when), cycle(when), atol=0.05)


def test_gaps_are_left_out_of_means():
    times, states = series("2000-01-01", "2000-03-01")
    states[::3, 0, 0, 0] = np.nan
    states[:, 1, 1, 1] = np.nan
    result = climatology(states, times)
    at_noon = hour_of_day(times) == 12
    values = result.at(np.datetime64("2000-07-01T12"))[0]
    np.testing.assert_allclose(values[0, 0, 0], np.nanmean(states[at_noon, 0, 0, 0].astype(float)), rtol=1e-7)
    assert np.isnan(values[1, 1, 1])


def test_annual_cycles_are_fitted_to_the_values_that_each_cell_has():
    times, states = series("2000-01-01", "2002-01-01")
    day = np.arange(len(times)) * (730.0 / len(times)) % 365
    whole = climatology(states, times)
    gone = np.random.default_rng(0).random(len(times)) < 0.4
    states[gone, 0, 0, 0] = np.nan
    states[:, 0, 0, 1] = np.nan
    # Only in summer, and only now and then.
    states[(day < 150) | (day > 240), 0, 0, 2] = np.nan
    states[np.arange(len(times)) % 365 > 1, 1, 1, 1] = np.nan
    result = climatology(states, times)
    when = np.array(["2005-02-03T06", "2005-08-09T06"], dtype="datetime64[ns]")
    at_six = np.flatnonzero(hour_of_day(times) == 6)
    basis, wanted = (annual_basis(year_fraction(t), 1) for t in (times[at_six], when))
    values = states[at_six, 0, 0, 0].astype(np.float64)
    known = np.isfinite(values)
    expected = wanted @ np.linalg.lstsq(basis[known], values[known], rcond=None)[0]
    found = result.at(when)
    np.testing.assert_allclose(found[:, 0, 0, 0], expected, rtol=2e-6)
    assert np.isnan(found[:, 0, 0, 1]).all()
    for channel, row, column in ((0, 0, 2), (1, 1, 1)):
        mean = np.nanmean(states[at_six, channel, row, column].astype(np.float64))
        np.testing.assert_allclose(found[:, channel, row, column], mean, rtol=1e-6)
    untouched = np.ones(found.shape[1:], bool)
    for channel, row, column in ((0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 1, 1)):
        untouched[channel, row, column] = False
    np.testing.assert_array_equal(found[:, untouched], whole.at(when)[:, untouched])


def test_it_goes_to_disk_and_back(tmp_path):
    times, states = series("2000-01-01", "2001-06-01")
    result = climatology(states, times)
    dataset = result.to_dataset(["a", "b"], np.arange(3.0), np.arange(4.0))
    dataset.to_netcdf(tmp_path / "climatology.nc")
    with xr.open_dataset(tmp_path / "climatology.nc") as back:
        again = Climatology.from_dataset(back.load())
    when = np.array(["2010-01-01T06", "2010-09-01T07"], dtype="datetime64[ns]")
    assert np.array_equal(again.at(when), result.at(when))
    assert again.kind == result.kind
    assert again.attrs["climatology"] == result.attrs["climatology"]


def test_the_basis_is_periodic_and_orthogonal_over_the_year():
    basis = annual_basis(np.arange(1000) / 1000, 3)
    gram = basis.T @ basis / 1000
    np.testing.assert_allclose(gram, np.diag([1] + 6 * [0.5]), atol=1e-12)


def test_weatherbench_1_rows_on_fields_of_known_skill(grid):
    """Persistence and weekly climatology, scored as for the published table, where their RMSE is a closed form.

    Truth = annual cycle S sin(phase) + a wave of amplitude A travelling with period P. Over whole numbers of waves,
    persistence at lead t has RMSE^2 = 2 A^2 sin^2(w t / 2) + (seasonal drift over t)^2, and weekly climatology
    RMSE^2 = A^2 / 2 + (departure of the seasonal cycle from its weekly means)^2. The training years have no wave,
    which a finite sample would not average out.
    """
    latitude, longitude, weights = grid
    amplitude, seasonal, period = 1200.0, 800.0, 24.0 * 9
    test_times = np.arange("2017-01-02", "2018-12-31", 48, dtype="datetime64[h]")
    leads = np.array([72, 120])

    def truth(times, amplitude=amplitude):
        hours = (np.asarray(times, "datetime64[h]") - np.datetime64("1979-01-01T00")) / np.timedelta64(1, "h")
        wave = amplitude * np.sin(3 * np.deg2rad(longitude) - 2 * np.pi * np.asarray(hours)[:, None] / period)
        annual = seasonal * np.sin(2 * np.pi * year_fraction(times))
        rows = 5.4e4 + annual[:, None] + wave
        return np.broadcast_to(rows[:, None, None, :], (len(rows), 1, latitude.size, longitude.size))

    train_times = np.arange("1979-01-01", "1990-01-01", 24, dtype="datetime64[h]")
    weekly = climatology(lambda i: truth(train_times[i : i + 1], 0.0)[0], train_times, kind="weekly")
    accumulator = ScoreAccumulator(
        ["geopotential_500"], leads, weights, latitude=latitude, longitude=longitude
    )
    for init in test_times:
        observed = truth(init + leads.astype("timedelta64[h]"))[None]
        initial = truth(np.array([init]))
        accumulator.update({"forecast": observed}, observed, weekly, init, persistence=initial)
    scores = accumulator.result(by_init=False).sel(channel="geopotential_500", region="global")

    phase = 2 * np.pi * year_fraction(test_times)
    shift = np.array(
        [2 * np.pi * year_fraction(test_times + lead.astype("timedelta64[h]")) for lead in leads]
    )
    drift = seasonal**2 * ((np.sin(shift) - np.sin(phase)) ** 2).mean(1)
    expected = np.sqrt(2 * amplitude**2 * np.sin(np.pi * leads / period) ** 2 + drift)
    np.testing.assert_allclose(scores["rmse"].sel(source="persistence"), expected, rtol=1e-4)

    def season(times):
        return pd.Series(seasonal * np.sin(2 * np.pi * year_fraction(times)), index=pd.DatetimeIndex(times))

    train = season(train_times)
    weekly_means = train.groupby(train.index.isocalendar().week.to_numpy()).mean()
    for lead in leads:
        valid = season(test_times + lead.astype("timedelta64[h]"))
        departure = valid - weekly_means.reindex(valid.index.isocalendar().week, method="nearest").to_numpy()
        expected = np.sqrt(amplitude**2 / 2 + (departure**2).mean())
        np.testing.assert_allclose(
            scores["rmse"].sel(source="climatology", lead_time=lead), expected, rtol=1e-5
        )
