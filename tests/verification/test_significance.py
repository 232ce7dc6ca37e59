"""Intervals cover as often as they say, tests find what is there and not more than they may."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification.significance import (
    block_length,
    bootstrap_weights,
    compare,
    confidence_intervals,
    diebold_mariano,
    false_discovery,
    ratio_intervals,
)


def autocorrelated(rng, n, members, memory):
    """Unit-variance AR(1) series (n, members) with lag-one correlation ``memory``."""
    series = np.empty((n, members))
    series[0] = rng.normal(size=members)
    for step in range(1, n):
        series[step] = memory * series[step - 1] + np.sqrt(1 - memory**2) * rng.normal(size=members)
    return series


def fake_scores(mse, acc=None, *, channels=None, spacing=12, leads=(24,)):
    """Scores made of squared errors (init, channel) for one region and source, the same at every lead time."""
    n_init, n_channel = mse.shape
    dims = ("source", "channel", "region", "lead_time", "init_time")
    data = np.repeat(mse.T[None, :, None, None, :], len(leads), axis=3)
    acc = np.zeros_like(mse) if acc is None else acc
    return xr.Dataset(
        {
            "mse_by_init": (dims, data),
            "bias_by_init": (dims, 0 * data),
            "acc_by_init": (dims, np.repeat(acc.T[None, :, None, None, :], len(leads), axis=3)),
            "rmse": (dims[:4], np.sqrt(data.mean(-1))),
        },
        coords={
            "source": ["forecast"],
            "channel": list(channels or [f"c{i}" for i in range(n_channel)]),
            "region": ["global"],
            "lead_time": list(leads),
            "init_time": np.datetime64("2001-01-01") + spacing * np.arange(n_init) * np.timedelta64(1, "h"),
            "units": ("channel", ["K"] * n_channel),
        },
    )


def test_resamples_are_whole_blocks_round_the_clock():
    weights = bootstrap_weights(12, 4, 500, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(1), 1.0)
    np.testing.assert_allclose(weights.mean(0), 1 / 12, rtol=0.15)
    counts = np.round(12 * weights).astype(int)
    # Three blocks of four: the draws of neighbours go together, all round.
    assert ((counts > 0).sum(1) <= 12).all()
    differing = (counts != np.roll(counts, 1, axis=1)).sum(1)
    assert differing.max() <= 6
    single = np.round(12 * bootstrap_weights(12, 12, 50, np.random.default_rng(0)))
    assert (single == 1).all()
    with pytest.raises(VerificationError, match="does not fit"):
        bootstrap_weights(3, 4, 5, np.random.default_rng(0))


def test_block_length_grows_with_lead_time_and_stays_within_a_third():
    lengths = [block_length(200, 12, lead) for lead in (6, 72, 240)]
    assert lengths == sorted(lengths) == [6, 10, 24]
    assert block_length(9, 6, 240) == 3
    assert block_length(1, float("nan"), 6) == 1
    assert block_length(64, 24 * 30, 120) == 4


def test_intervals_cover_where_errors_are_correlated_and_plain_resampling_does_not():
    rng = np.random.default_rng(0)
    members, n_init = 300, 120
    series = 10 + autocorrelated(rng, n_init, members, 0.7)
    scores = fake_scores(series)
    covered = {}
    for block in (1, 12):
        bounds = confidence_intervals(scores, level=0.9, n_resamples=400, block=block).squeeze()
        inside = (bounds["rmse_lower"] <= np.sqrt(10)) & (bounds["rmse_upper"] >= np.sqrt(10))
        covered[block] = float(inside.mean())
    assert covered[1] < 0.7
    assert 0.78 < covered[12] < 0.95
    default = confidence_intervals(scores, level=0.9)
    assert int(default["block"][0]) == 6
    assert default.attrs["few_blocks"] == 0


def test_intervals_are_reproducible_hold_the_score_and_follow_units(scored):
    scores, *_ = scored()
    first = confidence_intervals(scores, n_resamples=200)
    xr.testing.assert_identical(first, confidence_intervals(scores, n_resamples=200))
    assert not first.equals(confidence_intervals(scores, n_resamples=200, seed=1))
    for name in ("rmse", "bias", "acc"):
        value, here = scores[name], first
        if name == "acc":
            value, here = value.sel(source=["forecast"]), here.sel(source=["forecast"])
        assert bool(
            ((here[f"{name}_lower"] <= value + 1e-6) & (value <= here[f"{name}_upper"] + 1e-6)).all()
        ), name
    assert np.isnan(first["acc_lower"].sel(source="climatology")).all()


def test_paired_comparison_finds_a_small_consistent_gain_that_unpaired_intervals_hide():
    rng = np.random.default_rng(1)
    weather = 10 + 3 * autocorrelated(rng, 100, 1, 0.6)
    ours = weather * 0.97 * (1 + 0.01 * rng.normal(size=weather.shape))
    a, b = fake_scores(ours), fake_scores(weather)
    bounds = [confidence_intervals(each).squeeze() for each in (a, b)]
    assert bounds[0]["rmse_upper"] > bounds[1]["rmse_lower"]
    result = compare(a, b).squeeze()
    assert float(result["rmse_change"]) == pytest.approx(100 * (np.sqrt(0.97) - 1), abs=0.2)
    assert (
        float(result["rmse_change_lower"])
        < float(result["rmse_change"])
        < float(result["rmse_change_upper"])
        < 0
    )
    assert bool(result["significant"])
    assert float(result["p_value"]) == pytest.approx(2 / 2001)
    assert float(result["p_value_dm"]) < 1e-6
    swapped = compare(b, a).squeeze()
    assert float(swapped["rmse_change"]) > 0
    assert bool(swapped["significant"])


def test_equal_runs_do_not_differ_more_often_than_they_may():
    rng = np.random.default_rng(2)
    members = 300
    a, b = (fake_scores(10 + autocorrelated(rng, 150, members, 0.5)) for _ in range(2))
    result = compare(a, b, n_resamples=500).squeeze()
    for name in ("p_value", "p_value_dm"):
        share = float((result[name] < 0.05).mean())
        assert 0.02 < share < 0.12, (name, share)
    assert int(result["significant"].sum()) <= 3
    same = compare(a, a, n_resamples=100).squeeze()
    np.testing.assert_array_equal(same["rmse_change"], 0.0)
    np.testing.assert_array_equal(same["p_value"], 1.0)
    assert not same["significant"].any()


def test_runs_are_paired_on_what_they_share():
    rng = np.random.default_rng(3)
    mse = 10 + rng.random(size=(40, 3))
    a = fake_scores(mse, channels=("x", "y", "z"))
    b = fake_scores(mse, channels=("w", "y", "z")).isel(init_time=slice(10, 40))
    result = compare(a, b, n_resamples=50)
    assert result["channel"].to_numpy().tolist() == ["y", "z"]
    assert result.attrs["n_init_times"] == 30
    np.testing.assert_allclose(result["rmse_change"], 0, atol=1e-12)
    late = b.assign_coords(init_time=b["init_time"] + np.timedelta64(3650, "D"))
    with pytest.raises(VerificationError, match="0 init_time in common"):
        compare(a, late)
    with pytest.raises(VerificationError, match="no values by initial time"):
        compare(a, b.drop_vars("mse_by_init"))


def test_a_forecast_against_persistence_of_its_own_run(scored):
    scores, *_ = scored(noise=0.2)
    result = compare(scores, scores, baseline_source="persistence", n_resamples=200)
    ratio = scores["rmse"].sel(source="forecast") / scores["rmse"].sel(source="persistence")
    np.testing.assert_allclose(result["rmse_change"], 100 * (ratio - 1), rtol=1e-5)
    assert result["significant"].all()


def test_diebold_mariano_is_the_t_test_where_errors_are_independent():
    from scipy.stats import ttest_1samp

    difference = np.random.default_rng(4).normal(0.2, 1, size=(50, 4))
    np.testing.assert_allclose(diebold_mariano(difference, 1), ttest_1samp(difference, 0).pvalue, rtol=1e-10)
    assert np.isnan(diebold_mariano(np.zeros((10, 1)), 1)).all()


def test_false_discovery_is_benjamini_and_hochberg():
    from scipy.stats import false_discovery_control

    p_values = np.random.default_rng(5).random(60) ** 3
    with_gap = np.append(p_values, np.nan).reshape(1, -1)
    expected = np.append(false_discovery_control(p_values) <= 0.1, False).reshape(1, -1)
    np.testing.assert_array_equal(false_discovery(with_gap, 0.1), expected)
    assert not false_discovery(np.full(3, np.nan), 0.1).any()


def test_ratios_are_paired_by_initial_time(scored):
    scores = scored()[0]
    bounds = ratio_intervals(scores, ["persistence", "climatology"], n_resamples=300)
    ratio = scores["rmse"].sel(source="forecast") / scores["rmse"].sel(source=["persistence", "climatology"])
    ratio = ratio.drop_vars("source").rename(source="reference").assign_coords(reference=bounds["reference"])
    assert ((bounds["rmse_ratio_lower"] <= ratio) & (ratio <= bounds["rmse_ratio_upper"])).all()
    # Weather that is hard for one is hard for the other: where both are the same, nothing is uncertain.
    hard = 1.0 + np.arange(24) % 7
    square = scores["mse_by_init"]
    scores["mse_by_init"] = square.copy(data=np.broadcast_to(hard.astype(np.float32), square.shape).copy())
    scores["mse_by_init"].loc[{"source": "forecast"}] = 0.25 * hard
    exact = ratio_intervals(scores, ["persistence"], n_resamples=100)
    np.testing.assert_allclose(exact["rmse_ratio_lower"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(exact["rmse_ratio_upper"], 0.5, rtol=1e-6)
    few = ratio_intervals(scores.isel(init_time=slice(0, 2)), ["persistence"], n_resamples=10)
    assert np.isnan(few["rmse_ratio_lower"]).all()
