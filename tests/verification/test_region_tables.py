"""Tables and figures by region and season hold the ratios of the scores, and say what rollouts did."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.verification.metrics import rmse_ratio
from weathermill.verification.scorecards import region_scorecard
from weathermill.verification.seasons import seasonal_scores
from weathermill.verification.significance import confidence_intervals
from weathermill.verification.skill_tables import (
    _per_cent,
    correction_table,
    headline_table,
    region_table,
    season_table,
    stability_limit,
    stability_statement,
)
from weathermill.verification.stability import StabilityMonitor


def test_the_region_table_holds_mean_ratios(scored):
    scores = scored()[0]
    table = region_table(scores)
    assert [row["label"] for row in table["rows"]] == [
        "Global",
        "Tropics",
        "Northern extratropics",
        "Southern extratropics",
    ]
    expected = rmse_ratio(scores, "climatology").sel(region="tropics", lead_time=24).mean("channel")
    column = table["columns"].index("24 h / clim.")
    assert table["rows"][1]["cells"][column]["text"] == f"{float(expected):.2f}"


def test_the_season_table_holds_mean_ratios(scored):
    seasons = seasonal_scores(scored()[0])
    table = season_table(seasons)
    names = seasons["season"].values.tolist()
    assert [row["label"].split()[0] for row in table["rows"]] == names
    here = seasons["rmse"].sel(region="global", lead_time=6, season=names[0])
    expected = (here.sel(source="forecast") / here.sel(source="climatology")).mean("channel")
    column = table["columns"].index("6 h / clim.")
    assert table["rows"][0]["cells"][column]["text"] == f"{float(expected):.2f}"


def test_the_figure_by_region_has_a_row_for_each(scored):
    figure = region_scorecard(scored()[0], reference="climatology")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["global", "tropics", "northern extratropics", "southern extratropics"]


def test_three_baselines_have_short_columns(scored):
    scores = scored()[0]
    assert "/ climatology" in headline_table(scores)["columns"]
    further = scores.sel(source=["climatology"]).assign_coords(source=["regression"])
    persistence = scores.sel(source=["climatology"]).assign_coords(source=["persistence"])
    present = [scores.sel(source=[name]) for name in ("forecast", "climatology")]
    columns = headline_table(xr.concat([*present, persistence, further], "source", data_vars="minimal"))[
        "columns"
    ]
    assert [name for name in columns if name.startswith("/")] == ["/ pers.", "/ clim.", "/ regr."]


@pytest.fixture
def monitor():
    return StabilityMonitor(
        ["temperature_850"],
        np.ones(4),
        minimum=np.array([250.0]),
        maximum=np.array([300.0]),
        std=np.array([10.0]),
    )


def test_the_statement_on_stability(monitor):
    monitor.update(0.0, np.full((2, 1, 4, 8), 280.0))
    monitor.update(24.0, np.full((2, 1, 4, 8), 305.0))
    assert "stayed inside to the end" in stability_statement(monitor.result())
    assert stability_limit(monitor.result()) == ""
    hot = np.full((2, 1, 4, 8), 280.0)
    hot[1, :, 0] = np.nan
    monitor.update(48.0, hot)
    text = stability_statement(monitor.result())
    assert "1 of 1 channels left it somewhere, the first after 24 h" in text
    assert (
        "temperature at 850 hPa (25 %)" in text and "1 rollouts ended in values that are not finite" in text
    )
    assert "after 24 h" in stability_limit(monitor.result())
    assert stability_statement(None) == "" and stability_limit(None) == ""


def test_ratios_are_coloured_where_they_are_sure(scored):
    scores = scored()[0]
    names = ["rmse_ratio_lower", "rmse_ratio_upper"]
    ratio = rmse_ratio(scores, "climatology").expand_dims(reference=["climatology"])
    sure = xr.Dataset({name: ratio for name in names})
    unsure = xr.Dataset({names[0]: 0.0 * ratio, names[1]: 9.0 + 0.0 * ratio})
    intervals = confidence_intervals(scores, n_resamples=20)

    def kinds(bounds):
        table = headline_table(scores, intervals.assign(bounds.data_vars))
        column = table["columns"].index("/ climatology")
        return {row[column]["kind"] for group in table["groups"] for row in group["rows"]}

    assert "better" in kinds(sure) and kinds(unsure) == {""}


def test_corrections_are_told_beside_the_typical_change():
    stability = xr.Dataset(
        {
            "correction": (("constraint", "lead_time"), [[np.nan, 0.5, 1.0, 20.0]]),
            "typical_change": ("constraint", [10.0]),
            "stable_until": (("rollout", "channel"), [[240.0]]),
        },
        coords={
            "constraint": ["conserve_mean/mean_sea_level_pressure"],
            "lead_time": [0.0, 6.0, 24.0, 240.0],
            "channel": ["mean_sea_level_pressure"],
            "units": ("channel", ["Pa"]),
        },
    )
    table = correction_table(stability)
    assert table["columns"] == ["0.25 d", "1 d", "10 d"]
    (row,) = table["rows"]
    assert row["label"] == "conserve mean: MSLP (hPa)"
    assert [cell["text"] for cell in row["cells"]] == ["0.0050", "0.010", "0.200"]
    assert [cell["interval"] for cell in row["cells"]] == ["(5 %)", "(10 %)", "(200 %)"]
    assert correction_table(stability.drop_vars("correction")) is None and correction_table(None) is None


@pytest.mark.parametrize(
    ("share", "text"), [(0.9987, "100 %"), (0.25, "25 %"), (0.0123, "1.2 %"), (0.0, "0 %")]
)
def test_shares_are_written_as_people_read_them(share, text):
    assert _per_cent(share) == text


def test_initial_states_that_are_outside_are_told_apart(monitor):
    monitor.update(0.0, np.full((2, 1, 4, 8), 400.0))
    monitor.update(24.0, np.full((2, 1, 4, 8), 305.0))
    assert "The initial states themselves are outside in 1 of 1 channels" in stability_statement(
        monitor.result()
    )
    assert "as some already of the initial states had" in stability_limit(monitor.result())
