"""Missing values are taken where the network met them in training, and refused elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from weathermill.errors import MissingDataError, ModelError
from weathermill.forecasting import forecast
from weathermill.forecasting.requests import answer
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable

LAND = np.zeros((8, 16), bool)
LAND[2:5, 4:9] = True
COAST = (5, 5)


@pytest.fixture
def model():
    """A network whose 2 m temperature is of the sea, and now and then unseen at one cell."""
    share = LAND.astype(np.float32)
    share[COAST] = 0.25
    latitude = np.linspace(78.75, -78.75, 8)
    return Forecaster(
        ModelConfig(base_channels=4, depth=1),
        ChannelTable(
            [
                Channel("temperature_850", "temperature", 850.0, "prognostic", "K"),
                Channel("2m_temperature", "2m_temperature", None, "prognostic", "K", may_be_missing=True),
            ]
        ),
        latitude,
        np.arange(16) * 22.5,
        np.array([270.0, 288.0]),
        np.array([15.0, 21.0]),
        np.array([3.0, 4.0]),
        missing_share=share[None],
    ).eval()


@pytest.fixture
def states():
    values = 270 + np.random.default_rng(0).normal(size=(2, 2, 8, 16)).astype(np.float32)
    values[:, 1, LAND] = np.nan
    return values


def test_a_request_may_lack_what_training_lacked(model, states):
    out = answer(model, states, steps=2)["forecast"]
    assert np.isnan(out[:, :, 1, LAND]).all() and np.isfinite(out[:, :, 1, ~LAND]).all()
    assert np.isfinite(out[:, :, 0]).all()
    # JSON has no NaN of its own: programs send null.
    nulls = json.loads(json.dumps(states.tolist()).replace("NaN", "null"))
    np.testing.assert_array_equal(answer(model, nulls, steps=2)["forecast"], out)
    states[0, 1][COAST] = np.nan
    assert np.isnan(answer(model, states)["forecast"][0, 0, 1][COAST])


@pytest.mark.parametrize(
    ("at", "value"), [((0, 1, 0, 0), np.nan), ((1, 0, 3, 5), np.nan), ((0, 1, 3, 5), np.inf)]
)
def test_other_gaps_are_refused_by_name(model, states, at, value):
    states[at] = value
    name = ["temperature_850", "2m_temperature"][at[1]]
    with pytest.raises(
        ModelError, match=rf"{name} has 1 values that are missing(?s:.*)only 2m_temperature may"
    ):
        answer(model, states)


def test_a_source_may_lack_what_training_lacked(model, sources):
    source = sources().sortby("latitude", ascending=False)
    source["t2m"] = source["t2m"].where(~LAND)
    weather = forecast(model, source, lead_time_hours=12)
    assert np.isnan(weather["2m_temperature"].values[:, LAND]).all()
    assert np.isfinite(weather["2m_temperature"].values[:, ~LAND]).all()
    source["t2m"][-1, 0, 0] = np.nan
    with pytest.raises(MissingDataError, match="2001-01-02T06:00 has missing values in 2m_temperature"):
        forecast(model, source, lead_time_hours=12)


def test_values_that_are_missing_by_design_are_not_unstable(model, states):
    assert not answer(model, states, steps=2)["notes"]
    rollout = model.rollout_physical

    def failing(*arguments):
        for state in rollout(*arguments):
            state[1, 1, 0, 0] = np.nan
            yield state

    model.rollout_physical = failing
    # 15 cells of 128 are land, at which there is no value to judge.
    (note,) = answer(model, states, steps=2)["notes"]
    assert "unstable (1 of 2 forecasts)" in note
    assert "2m_temperature has 1 of 113 values that are not finite" in note
