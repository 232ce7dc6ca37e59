"""Everything also works at the smallest: one channel, one initial time, one lead time, a regional grid."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.verification.baselines import climatology
from weathermill.verification.metrics import scores_to_metrics
from weathermill.verification.model_card import render_model_card
from weathermill.verification.plots import acc_curves, forecast_maps, loss_curves, scorecard, skill_curves
from weathermill.verification.scores import ScoreAccumulator, to_frame
from weathermill.verification.significance import confidence_intervals
from weathermill.verification.spectra import SpectrumAccumulator, spectra_plot
from weathermill.verification.style import figure_png
from weathermill.verification.summary import text_summary


@pytest.fixture(params=["global", "regional"])
def smallest(request):
    latitude = np.array([80.0, 0.0, -80.0]) if request.param == "global" else np.array([60.0, 55.0, 50.0])
    longitude = np.arange(8) * (45.0 if request.param == "global" else 5.0)
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4, 1, 3, 8)).astype(np.float32)
    times = np.datetime64("2024-01-01", "ns") + 6 * np.arange(4) * np.timedelta64(1, "h")
    made = climatology(states, times, [(0, 2)])
    weights = np.cos(np.deg2rad(latitude))
    accumulator = ScoreAccumulator(
        ["temperature_850"], [6.0], weights, latitude=latitude, longitude=longitude, units=["K"]
    )
    truth, forecast = states[None, 3:4], states[None, 3:4] + 0.1
    accumulator.update(forecast, truth, made, times[2], persistence=states[2:3])
    spectra = SpectrumAccumulator(["temperature_850"], [6.0], weights, latitude, units=["K"])
    spectra.update(forecast, truth)
    return accumulator.result(), spectra.result(), states, latitude, longitude


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_reports_of_the_smallest_run(smallest):
    scores, spectra, states, latitude, longitude = smallest
    intervals = confidence_intervals(scores, n_resamples=10)
    assert np.isnan(intervals["rmse_lower"]).all()
    figures = [
        skill_curves(scores, intervals=intervals),
        acc_curves(scores, intervals=intervals),
        scorecard(scores),
        scorecard(scores, reference="climatology"),
        spectra_plot(spectra),
        forecast_maps(states[2, 0], states[3, 0], latitude, longitude, channel="temperature_850", units="K"),
        loss_curves([{"epoch": 1, "train_loss": 1.0, "validation_loss": 1.0, "learning_rate": 1e-3}]),
    ]
    assert all(len(figure_png(figure, dpi=40)) > 1000 for figure in figures)
    assert "from 1 initial time," in text_summary(scores)
    assert "rmse/temperature_850/6h" in scores_to_metrics(scores)
    assert len(to_frame(scores)) == 3 * scores.sizes["region"]
    html = render_model_card(
        scores,
        title="x",
        simulated=False,
        data={},
        grid={},
        channels=[],
        normalisation="",
        model={},
        training={},
        provenance={},
        versions={},
        intervals=intervals,
    )
    assert "verified from 1 initial time only" in html
    assert isinstance(scores, xr.Dataset)
