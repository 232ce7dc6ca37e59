from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import VerificationError
from weathermill.verification.scores import ScoreAccumulator
from weathermill.verification.seasons import seasonal_scores


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
