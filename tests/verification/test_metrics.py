from __future__ import annotations

import re

import numpy as np
import pytest

from weathermill.errors import VerificationError
from weathermill.verification.metrics import headline_channels, headline_leads, rmse_ratio, scores_to_metrics


def test_names_and_values(scored):
    scores, *_ = scored()
    metrics = scores_to_metrics(scores, regions=("global", "tropics"))
    forecast = scores.sel(source="forecast", channel="geopotential_500", lead_time=72)
    assert metrics["rmse/geopotential_500/72h"] == float(forecast["rmse"].sel(region="global"))
    assert metrics["acc/geopotential_500/tropics/72h"] == float(forecast["acc"].sel(region="tropics"))
    ratio = scores["rmse"].sel(source="forecast") / scores["rmse"].sel(source="persistence")
    expected = float(ratio.sel(region="global", lead_time=6).mean())
    assert metrics["skill/rmse_ratio_persistence/mean/6h"] == pytest.approx(expected)
    assert 0 < metrics["skill/rmse_ratio_climatology/mean/6h"] < 1
    assert all(re.fullmatch(r"[\w\-. /:]+", name) for name in metrics), "MLflow allows no other characters"
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())


def test_what_is_not_there_is_left_out(scored):
    scores, *_ = scored(climatology=False)
    metrics = scores_to_metrics(scores)
    assert not any(name.startswith("acc/") or "climatology" in name for name in metrics)
    with pytest.raises(VerificationError, match="no 'climatology', but forecast, persistence"):
        rmse_ratio(scores, "climatology")


def test_headlines():
    assert headline_channels(["z", "2m_temperature", "geopotential_500"]) == [
        "geopotential_500",
        "2m_temperature",
        "z",
    ]
    assert headline_leads([12, 24, 36, 120, 132]) == [12, 24, 120, 132]
