from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import VerificationError
from weathermill.verification.scores import ScoreAccumulator
from weathermill.verification.seasons import (
    compare_seasons,
    enough_blocks,
    seasonal_scores,
    seasons_within,
    with_seasons,
)
from weathermill.verification.significance import compare


def test_forecasts_count_to_the_season_in_which_they_verify(grid):
    latitude, longitude, weights = grid
    accumulator = ScoreAccumulator(["x"], [24, 240], weights, latitude=latitude, longitude=longitude)
    truth = np.zeros((1, 2, 1, 19, 24), np.float32)
    # The second verifies in winter at both lead times; the first at 240 h only.
    for init, error in (("2001-11-25", 3.0), ("2001-12-10", 4.0), ("2001-10-01", 1.0)):
        accumulator.update(truth + np.float32(error), truth, np.zeros_like(truth), np.datetime64(init))
    result = seasonal_scores(accumulator.result()).sel(source="forecast", region="global", channel="x")
    assert result["season"].to_numpy().tolist() == ["DJF", "SON"]
    np.testing.assert_allclose(result["rmse"].sel(season="DJF"), [4.0, np.sqrt(12.5)])
    np.testing.assert_allclose(result["rmse"].sel(season="SON"), [np.sqrt(5.0), 1.0])
    np.testing.assert_allclose(result["bias"].sel(season="DJF"), [4.0, 3.5])
    assert result["n_init"].to_numpy().tolist() == [[1, 2], [2, 1]]
    with pytest.raises(VerificationError, match="by initial time"):
        seasonal_scores(accumulator.result(by_init=False))


def test_a_failed_forecast_fails_its_season(grid):
    latitude, longitude, weights = grid
    accumulator = ScoreAccumulator(["x"], [6], weights, latitude=latitude, longitude=longitude)
    truth = np.zeros((1, 1, 1, 19, 24), np.float32)
    accumulator.update(truth + np.nan, truth, None, np.datetime64("2001-01-01"))
    accumulator.update(truth + 1, truth, None, np.datetime64("2001-07-01"))
    rmse = (
        seasonal_scores(accumulator.result())
        .sel(source="forecast", region="global", channel="x")["rmse"]
        .squeeze()
    )
    assert np.isnan(rmse.sel(season="DJF"))
    assert float(rmse.sel(season="JJA")) == 1.0


def two_years(grid, errors, *, n_init=146, every_days=5, seed=0):
    """Scores of forecasts whose error has a standard deviation by month of the initial time."""
    latitude, longitude, weights = grid
    accumulator = ScoreAccumulator(["x", "y"], [24, 72], weights, latitude=latitude, longitude=longitude)
    inits = np.datetime64("2001-01-01") + every_days * np.arange(n_init) * np.timedelta64(1, "D")
    truth = np.random.default_rng(1).normal(size=(n_init, 2, 2, 19, 24)).astype(np.float32)
    noise = np.random.default_rng(seed).normal(size=truth.shape).astype(np.float32)
    month = inits.astype("datetime64[M]").astype(int) % 12 + 1
    noise *= np.array([errors(m) for m in month], np.float32)[:, None, None, None, None]
    accumulator.update(truth + noise, truth, np.zeros_like(truth), inits)
    return accumulator.result()


def test_a_run_that_is_better_in_winter_alone_is_so_told(grid):
    winter = two_years(grid, lambda month: 0.7 if month in (12, 1, 2) else 1.0, seed=2)
    seasons = compare_seasons(winter, two_years(grid, lambda month: 1.0, seed=3), n_resamples=500)
    assert seasons["season"].values.tolist() == ["DJF", "MAM", "JJA", "SON"]
    assert seasons["significant"].dims == ("season", "channel", "region", "lead_time")
    assert seasons["significant"].sel(season="DJF").all() and enough_blocks(seasons, "DJF")
    np.testing.assert_allclose(
        seasons["rmse_change"].sel(season="DJF", region="global", lead_time=24), -30, atol=3
    )
    # At a false discovery rate of 5 % one or two of seventeen may be wrong; over twenty seeds it is 1.4.
    assert seasons["significant"].sel(season=["MAM", "JJA", "SON"]).sum() <= 3
    assert (seasons["n_init"].sum("season") == 146).all()
    equal = two_years(grid, lambda month: 1.0, seed=4)
    assert not compare_seasons(equal, two_years(grid, lambda month: 1.0, seed=3), n_resamples=500)[
        "significant"
    ].any()


def test_a_season_is_the_comparison_of_its_initial_times(grid):
    ours, theirs = (two_years(grid, lambda month: 1.0, seed=seed) for seed in (2, 3))
    seasons = compare_seasons(ours, theirs, n_resamples=200).sel(season="JJA", lead_time=72)
    verifying = ours["init_time"] + np.timedelta64(72, "h")
    summer = np.flatnonzero(verifying.dt.season == "JJA")
    alone = compare(ours.isel(init_time=summer), theirs.isel(init_time=summer), n_resamples=200).sel(
        lead_time=72
    )
    for name in ("rmse_change", "rmse_change_lower", "acc_change", "p_value_dm", "p_value"):
        np.testing.assert_array_equal(seasons[name], alone[name], err_msg=name)
    assert int(seasons["n_init"]) == len(summer) and int(seasons["block"]) == int(alone["block"])


def test_few_blocks_show_nothing_however_clear(grid):
    ours = two_years(grid, lambda month: 0.5, n_init=20, every_days=1, seed=2).isel(init_time=slice(None, 14))
    theirs = two_years(grid, lambda month: 1.0, n_init=20, every_days=1, seed=3)
    assert compare(ours, theirs, n_resamples=200)["significant"].all()
    alone = compare_seasons(ours, theirs, n_resamples=200)
    assert not alone["significant"].any()
    np.testing.assert_array_equal(alone["p_value"].sel(lead_time=24), 2.0 ** (1 - 14 // 3))
    assert alone["season"].values.tolist() == ["DJF"]
    whole = with_seasons(compare(ours, theirs, n_resamples=200), alone)
    assert not enough_blocks(alone, "DJF")
    assert seasons_within(whole) is None and whole.attrs["seasons"] == "DJF"
