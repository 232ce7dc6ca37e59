"""What the figures show, read back from their artists; how they look was judged by eye."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification.maps import latitude_label, longitude_label
from weathermill.verification.plots import acc_curves, forecast_maps, loss_curves, scorecard, skill_curves
from weathermill.verification.scorecards import heat_map
from weathermill.verification.style import figure_data_uri, figure_png, save_figure


def labels(figure):
    return {
        text.get_text() for axis in figure.axes for text in (axis.title, axis.xaxis.label, axis.yaxis.label)
    }


def test_skill_curves_show_every_source_with_units(scored, tmp_path):
    scores, *_ = scored()
    figure = skill_curves(scores)
    assert {"Geopotential at 500 hPa", "RMSE (m² s⁻²)", "RMSE (K)", "Lead time (days)"} <= labels(figure)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {"forecast", "persistence", "climatology"}
    expected = scores["rmse"].sel(source="persistence", channel="geopotential_500", region="global")
    np.testing.assert_allclose(lines["persistence"].get_ydata(), expected)
    path = save_figure(figure, tmp_path / "plots" / "skill.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["skill.png"]


def test_acc_curves_leave_out_climatology_which_has_none(scored):
    scores, *_ = scored()
    figure = acc_curves(scores)
    assert {line.get_label() for line in figure.axes[0].get_lines()} & {"climatology"} == set()


def test_a_forecast_off_the_scale_is_told_and_does_not_flatten_the_baselines(scored):
    scores, *_ = scored()
    scores["rmse"].loc[{"source": "forecast", "lead_time": 72}] = 1e6
    axis = skill_curves(scores).axes[0]
    assert axis.get_ylim()[1] < 10
    assert any("1e+06" in text.get_text() for text in axis.texts)


def test_scorecard_shows_per_cent(scored):
    scores, *_ = scored()
    figure = scorecard(scores, reference="climatology")
    rmse = scores["rmse"].sel(region="global")
    change = 100 * (rmse.sel(source="forecast") / rmse.sel(source="climatology") - 1)
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(mesh.get_array().reshape(change.shape), change)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["Z500", "T2M"]


def test_maps_share_scales_and_centre_errors(grid):
    latitude, longitude, _ = grid
    rng = np.random.default_rng(0)
    truth = 1e5 + 500 * rng.normal(size=(2, 19, 24))
    figure = forecast_maps(
        truth + 80,
        truth,
        latitude,
        longitude,
        channel="mean_sea_level_pressure",
        units="Pa",
        lead_times=[24, 120],
    )
    meshes = [axis.collections[0] for axis in figure.axes[:6]]
    assert meshes[0].norm is meshes[1].norm is meshes[3].norm
    assert meshes[2].norm.vmin == -meshes[2].norm.vmax
    titles = labels(figure)
    assert {"Truth at 24 h", "Forecast at 120 h", "Error at 24 h: RMSE 0.8 hPa"} <= titles
    assert any("Mean sea level pressure (hPa)" in label for label in titles)
    single = forecast_maps(truth[0], truth[0], latitude, longitude, channel="2m_temperature", units="K")
    assert figure_png(single).startswith(b"\x89PNG")
    with pytest.raises(VerificationError, match="maps of shapes"):
        forecast_maps(truth[:, :5], truth[:, :5], latitude, longitude, channel="x")
    with pytest.raises(VerificationError, match="no finite value"):
        forecast_maps(truth * np.nan, truth * np.nan, latitude, longitude, channel="x")


def test_geographic_labels():
    assert [longitude_label(x) for x in (0, 90, 180, 270, 360, -30)] == [
        "0°",
        "90°E",
        "180°",
        "90°W",
        "0°",
        "30°W",
    ]
    assert [latitude_label(x) for x in (-60, 0, 30)] == ["60°S", "0°", "30°N"]


def test_loss_curves(tmp_path):
    history = [
        {"epoch": e, "train_loss": 1 / e, "validation_loss": 1 / e + 0.02 * e, "learning_rate": 1e-3 / e}
        for e in range(1, 11)
    ]
    figure = loss_curves(history)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(lines["training"].get_ydata(), [row["train_loss"] for row in history])
    assert lines["kept"].get_xdata() == [7]
    assert figure.axes[1].get_lines()[0].get_label() == "learning rate"
    assert figure_data_uri(loss_curves([{"loss": 0.5}])).startswith("data:image/png;base64,")
    for bad in ([], [{"epoch": 1}]):
        with pytest.raises(VerificationError):
            loss_curves(bad)


def test_figures_leave_the_settings_of_others_alone(scored):
    before = dict(matplotlib.rcParams)
    figure_png(skill_curves(scored()[0]))
    assert dict(matplotlib.rcParams) == before


def test_scorecards_of_many_lead_times_fit_a_page():
    hours = np.arange(1, 41) * 6.0
    change = xr.DataArray(
        np.arange(80.0).reshape(2, 40) - 40,
        dims=("channel", "lead_time"),
        coords={"channel": ["geopotential_500", "2m_temperature"], "lead_time": hours},
    )
    figure = heat_map(change, label="x")
    shown = [float(tick.get_text()) for tick in figure.axes[0].get_xticklabels()]
    assert shown == [6, *range(24, 241, 24)] and figure.get_figwidth() < 8
    mesh = figure.axes[0].collections[0].get_array().reshape(2, len(shown))
    np.testing.assert_array_equal(mesh, change.sel(lead_time=shown))
    assert "one in 4" in figure.axes[0].get_xlabel()


def test_a_lead_time_that_blew_up_does_not_blank_the_maps_of_others(grid):
    latitude, longitude, _ = grid
    rng = np.random.default_rng(0)
    truth = (280 + 5 * rng.normal(size=(4, 19, 24))).astype(np.float32)
    error = rng.normal(size=truth.shape).astype(np.float32)
    error[2] = 1e37
    error[3, 0, 0] = np.nan

    def drawn(rows):
        return forecast_maps(
            truth[rows] + error[rows],
            truth[rows],
            latitude,
            longitude,
            channel="2m_temperature",
            units="K",
            lead_times=[6, 24, 72, 120][rows],
        )

    figure, alone = drawn(slice(None)), drawn(slice(2))
    norm, expected = figure.axes[2].collections[0].norm, alone.axes[2].collections[0].norm
    assert (norm.vmin, norm.vmax) == (expected.vmin, expected.vmax)
    assert 2 < norm.vmax < 4
    titles = labels(figure)
    assert "Error at 72 h: RMSE 1e+37 K (unstable)" in titles
    assert "Error at 120 h: not finite (unstable)" in titles
    assert not any("unstable" in title for title in labels(alone))
    assert figure_png(figure).startswith(b"\x89PNG")
    assert figure_png(drawn(slice(2, None))).startswith(b"\x89PNG")
