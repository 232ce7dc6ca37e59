from __future__ import annotations

import numpy as np
import pytest

from weathermill.verification.labels import (
    display_units,
    long_name,
    number,
    ratio_text,
    short_name,
    squared_units_label,
    units_label,
)
from weathermill.verification.metrics import rmse_ratio
from weathermill.verification.significance import compare
from weathermill.verification.summary import comparison_summary, crossing, text_summary, unstable_from


def test_the_summary_says_what_the_scores_say(scored):
    scores, *_ = scored(noise=0.8)
    text = text_summary(
        scores, notes=["The data are simulated."], links={"Plots": "here", "MLflow": "mlflow ui"}
    )
    lines = text.splitlines()
    assert lines[0] == "RMSE of forecasts from 24 initial times, global"
    error = float(
        scores["rmse"].sel(source="forecast", channel="2m_temperature", region="global", lead_time=24)
    )
    ratios = [
        float(rmse_ratio(scores, name).sel(channel="2m_temperature", region="global", lead_time=24))
        for name in ("persistence", "climatology")
    ]
    row = next(line for line in lines if line.lstrip().startswith("T2M [K]"))
    assert f"{number(error)} {ratios[0]:.2f}/{ratios[1]:.2f}" in row
    # The noise is 0.8 sqrt(lead / day) of a unit normal truth: above climatology's RMSE of 1 by 72 h.
    assert crossing(scores, "climatology") == 72.0
    assert any(line.startswith("  to climatology: ") and "1 or above from 72 h on" in line for line in lines)
    assert "The data are simulated." in lines
    assert lines[-2:] == ["Plots:  here", "MLflow: mlflow ui"]
    assert max(map(len, lines)) <= 105


def test_a_forecast_that_blew_up_is_summarised_too(scored):
    scores, *_ = scored(climatology=False)
    scores["rmse"].loc[{"source": "forecast", "lead_time": 72}] = np.nan
    scores.attrs["climatology"] = "mean over the training period, which is too short for a cycle of any kind"
    text = text_summary(scores)
    assert "NaN -" in text
    assert "lags the season" in text
    assert "to climatology" not in text


def test_the_verdict_is_that_of_the_printed_ratio(scored):
    scores, *_ = scored(climatology=False)
    forecast, persistence = ({"source": name, "lead_time": 24} for name in ("forecast", "persistence"))
    for factor, lost in ((0.994, False), (0.996, True), (np.nan, True)):
        scores["rmse"].loc[forecast] = factor * scores["rmse"].sel(persistence)
        assert (crossing(scores, "persistence") == 24.0) == lost
    # Where the truth is missing nothing is lost.
    scores["rmse"].loc[persistence] = np.nan
    assert crossing(scores, "persistence") != 24.0


def test_a_forecast_that_grows_without_bound_is_told_with_its_first_lead_time(scored):
    scores, *_ = scored(noise=0.8)
    assert unstable_from(scores) is None
    assert "unstable" not in text_summary(scores)
    at = {"source": "forecast", "channel": "2m_temperature", "lead_time": 72}
    climatology = scores["rmse"].sel(at | {"source": "climatology"})
    scores["rmse"].loc[at] = 9.9 * climatology
    assert unstable_from(scores) is None
    scores["rmse"].loc[at] = 2.5e24 * climatology
    assert unstable_from(scores) == (72.0, "2m_temperature")
    text = text_summary(scores)
    assert "forecasts are unstable. From 72 h on, the RMSE of T2M" in text
    assert "/2.50e+24" in text
    assert max(len(line) for line in text.splitlines() if "unstable" in line or "ten times" in line) <= 100


def test_a_forecast_that_is_not_finite_is_unstable_and_missing_truth_is_not(scored):
    scores, *_ = scored(noise=0.8)
    scores["rmse"].loc[{"lead_time": 24}] = np.nan
    assert unstable_from(scores) is None
    scores["rmse"].loc[{"source": "forecast", "lead_time": 72}] = np.nan
    assert unstable_from(scores)[0] == 72.0


def test_ratios_stay_short_however_large():
    assert [ratio_text(value) for value in (0.384, 99.9, 2396.66, 1.0449e24, np.inf, np.nan)] == [
        "0.38",
        "99.90",
        "2400",
        "1.04e+24",
        "-",
        "-",
    ]


@pytest.mark.parametrize(
    ("channel", "short", "long"),
    [
        ("geopotential_500", "Z500", "Geopotential at 500 hPa"),
        ("10m_u_component_of_wind", "U10M", "10 m zonal wind"),
        ("v_component_of_wind_850", "V850", "Meridional wind at 850 hPa"),
        ("ozone_mass_mixing_ratio_50", "ozone_mass_mixing_ratio_50", "Ozone mass mixing ratio at 50 hPa"),
    ],
)
def test_channel_names(channel, short, long):
    assert short_name(channel) == short
    assert long_name(channel) == long


def test_units_and_numbers():
    assert units_label("m2 s-2") == "m² s⁻²"
    assert units_label("kg kg-1") == "kg kg⁻¹"
    assert [squared_units_label(u) for u in ("m2 s-2", "K", "kg kg-1", "1")] == [
        "m⁴ s⁻⁴",
        "K²",
        "kg² kg⁻²",
        "1",
    ]
    assert display_units("kg kg-1", 1e-2) == (1e3, "g kg⁻¹")
    assert display_units("kg kg-1", 1e-6) == (1e6, "mg kg⁻¹")
    assert display_units("Pa", 1e5) == (1e-2, "hPa")
    assert [number(x) for x in (1234.4, 123.44, 1.234, 0.1234, 1.234e-5)] == [
        "1234",
        "123.4",
        "1.23",
        "0.123",
        "1.23e-05",
    ]


def test_the_summary_of_a_comparison(scored):
    better, worse = scored(noise=0.45)[0], scored(noise=0.5, seed=1)[0]
    comparison = compare(better, worse, n_resamples=200)
    text = comparison_summary(comparison, names=("new", "old"))
    at = comparison.sel(channel="2m_temperature", region="global", lead_time=72)
    cell = f"{float(at['rmse_change']):+.1f} [{float(at['rmse_change_lower']):+.1f}, "
    row = next(line for line in text.splitlines() if line.lstrip().startswith("T2M"))
    assert cell in row
    assert row.endswith("*")
    assert "new is significantly better in 8 and worse in 0" in text
    assert "24 initial times in common" in text
