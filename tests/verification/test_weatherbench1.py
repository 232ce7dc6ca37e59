"""The WeatherBench 1 table's definitions, on a series of its layout whose scores are known in closed form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from weathermill.errors import SplitError
from weathermill.verification.times import year_fraction
from weathermill.verification.weatherbench1 import baseline_table, cosine_weights

LATITUDE, LONGITUDE = -78.75 + 22.5 * np.arange(8), 22.5 * np.arange(16)
CHANNELS = ["geopotential_500", "temperature_850"]
WAVE, SEASON, PERIOD = np.array([1200.0, 6.0]), np.array([900.0, 5.0]), 24.0 * 9


@pytest.fixture(scope="module")
def series():
    """Twelve-hourly states of 2010 to 2018: a mean, an annual cycle that grows polewards, a travelling wave."""
    times = np.arange("2010-01-01", "2019-01-01", 12, dtype="datetime64[h]").astype("datetime64[ns]")
    hours = 12.0 * np.arange(len(times))
    wave = np.sin(3 * np.deg2rad(LONGITUDE) - 2 * np.pi * hours[:, None] / PERIOD)
    annual = np.sin(2 * np.pi * year_fraction(times))[:, None] * np.sin(np.deg2rad(LATITUDE))
    states = (
        np.array([5.4e4, 275.0])[:, None, None]
        + WAVE[:, None, None] * wave[:, None, None, :]
        + SEASON[:, None, None] * annual[:, None, :, None]
    )
    test = int(np.searchsorted(times, np.datetime64("2017-01-01")))
    return times, states.astype(np.float32), [(0, test)], [(test, len(times))]


def test_rows_equal_the_definitions_written_out_in_xarray(series):
    times, states, training, test = series
    table = baseline_table(states, times, CHANNELS, LATITUDE, training_runs=training, test_runs=test)
    dims = ("time", "channel", "lat", "lon")
    data = xr.DataArray(states.astype(np.float64), dims=dims, coords={"time": times, "channel": CHANNELS})
    weights = xr.DataArray(np.cos(np.deg2rad(LATITUDE)), dims="lat")
    weights = weights / weights.mean()
    train, valid = data.sel(time=slice(None, "2016")), data.sel(time=slice("2017", "2018"))

    def rmse(error):
        return np.sqrt((error**2 * weights).mean(("time", "lat", "lon")))

    week = train["time"].dt.isocalendar().week
    weekly = train.groupby(week).mean().sel(week=valid["time"].dt.isocalendar().week.values).to_numpy()
    rows = table.set_index(["baseline", "channel", "lead_time_h"])
    for lead in (72, 120):
        steps = lead // 12
        expected = {
            "persistence": rmse(
                valid.isel(time=slice(None, -steps)).to_numpy() - valid.isel(time=slice(steps, None))
            ),
            "climatology": rmse(train.mean("time") - valid),
            "weekly climatology": rmse(weekly - valid),
        }
        for baseline, values in expected.items():
            for channel in CHANNELS:
                row = rows.loc[(baseline, channel, float(lead))]
                assert row["rmse"] == pytest.approx(float(values.sel(channel=channel)), rel=1e-5), (
                    baseline,
                    lead,
                )
                assert row["rmse_mean_of_roots"] <= row["rmse"] * (1 + 1e-12)
        assert rows.loc[("persistence", CHANNELS[0], float(lead)), "n"] == valid.sizes["time"] - steps


def test_persistence_has_its_closed_form(series):
    times, states, training, test = series
    table = baseline_table(states, times, CHANNELS, LATITUDE, training_runs=training, test_runs=test)
    share = np.average(np.sin(np.deg2rad(LATITUDE)) ** 2, weights=cosine_weights(LATITUDE))
    for lead in (72, 120):
        first = times[test[0][0] : test[0][1] - lead // 12]
        drift = np.diff(
            [
                np.sin(2 * np.pi * year_fraction(first)),
                np.sin(2 * np.pi * year_fraction(first + np.timedelta64(lead, "h"))),
            ],
            axis=0,
        )
        for amplitude, seasonal, channel in zip(WAVE, SEASON, CHANNELS, strict=True):
            expected = np.sqrt(
                2 * amplitude**2 * np.sin(np.pi * lead / PERIOD) ** 2
                + seasonal**2 * share * (drift**2).mean()
            )
            row = table[
                (table.baseline == "persistence") & (table.channel == channel) & (table.lead_time_h == lead)
            ]
            assert row.rmse.item() == pytest.approx(expected, rel=1e-5)


def test_published_numbers_stand_beside_ours(series):
    times, states, training, test = series
    table = baseline_table(
        states,
        times,
        [*CHANNELS],
        LATITUDE,
        training_runs=training,
        test_runs=test,
        every=40,
        leads_hours=(72, 96),
    )
    rows = table.set_index(["baseline", "channel", "lead_time_h"])["published"]
    assert rows[("persistence", "geopotential_500", 72.0)] == 936
    assert rows[("weekly climatology", "temperature_850", 72.0)] == 3.50
    assert pd.isna(rows[("persistence", "geopotential_500", 96.0)])
    with pytest.raises(SplitError, match="lead time of 72 h"):
        baseline_table(states, times, CHANNELS, LATITUDE, training_runs=training, test_runs=[(0, 4)])
