"""What a forecaster does about cells without a value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.errors import ModelError, ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable

SHAPE = (9, 12)
LAND = np.zeros(SHAPE, bool)
LAND[2:5, 3:7] = True
NAMES = ["temperature_850", "sea_surface_temperature", "snow"]


def forecaster(target="tendency", **config) -> Forecaster:
    torch.manual_seed(0)
    channels = [
        Channel("temperature_850", "temperature", 850.0),
        Channel("sea_surface_temperature", "sea_surface_temperature", may_be_missing=True),
        Channel("snow", "snow", role="forcing", may_be_missing=True),
        Channel("land", "land", role="static"),
    ]
    share = np.stack([LAND.astype(np.float32), np.zeros(SHAPE, np.float32)])
    share[0, 0, 0] = 0.5
    return Forecaster(
        ModelConfig(base_channels=4, depth=2, target=target, **config),
        ChannelTable(channels),
        np.linspace(90, -90, SHAPE[0]),
        np.arange(SHAPE[1]) * 30.0,
        mean=np.array([270.0, 290.0, 1.0, 0.0]),
        std=np.array([10.0, 5.0, 1.0, 1.0]),
        tendency_std=np.array([2.0, 0.1, 1.0, 1.0]),
        static=LAND[None].astype(np.float32),
        missing_share=share,
    ).eval()


def physical(seed=0, batch=2):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(batch, 3, *SHAPE)).astype(np.float32) * np.array([10, 5, 1])[:, None, None]
    state += np.array([270, 290, 1])[:, None, None]
    state[:, 1][:, LAND] = np.nan
    return state.astype(np.float32)


@pytest.mark.parametrize("target", ["tendency", "state"])
def test_cells_that_never_had_a_value_stay_the_mean_and_come_out_missing(target):
    model, state = forecaster(target), physical()
    forcings = np.ones((2, 4, 1, *SHAPE), np.float32)
    forcings[:, :, 0, 4, 4] = np.nan
    for step in model.rollout_physical(state, 5, forcings):
        assert np.isnan(step[:, 1][:, LAND]).all()
        assert np.isfinite(step[:, 1][:, ~LAND]).all() and np.isfinite(step[:, 0]).all()
    normalised = model.rollout(model.normalise(state), 5, model.normalise(forcings, slice(2, 3)))
    assert (normalised[:, :, 1][:, :, torch.from_numpy(LAND)] == 0).all()


def test_missing_cells_are_the_mean_to_the_network_whatever_they_hold():
    model, state = forecaster(), physical()
    mean, wild = state.copy(), state.copy()
    mean[:, 1][:, LAND], wild[:, 1][:, LAND] = 290.0, 1e6
    forcings = np.ones((2, 2, 1, *SHAPE), np.float32)
    states = [list(model.rollout_physical(x, 3, forcings)) for x in (state, mean, wild)]
    np.testing.assert_array_equal(states[0], states[1])
    np.testing.assert_array_equal(states[0], states[2])


def test_a_cell_missing_at_the_start_is_missing_to_a_tendency_and_forecast_by_a_network_of_states():
    state = physical()
    state[0, 1, 0, 0] = np.nan
    forcings = np.ones((2, 2, 1, *SHAPE), np.float32)
    for target, missing in (("tendency", True), ("state", False)):
        for step in forecaster(target).rollout_physical(state, 3, forcings):
            assert np.isnan(step[0, 1, 0, 0]) == missing
            assert np.isfinite(step[1, 1, 0, 0])


def test_nan_in_a_channel_that_may_not_be_missing_stays_in_sight():
    model, state = forecaster(), physical(batch=1)
    state[0, 0, 4, 4] = np.nan
    assert np.isnan(next(iter(model.rollout_physical(state, 1)))[0, 0, 4, 4])
    assert model.missing.unexpected(state, NAMES) == {"temperature_850": 1}


def test_values_missing_where_there_always_was_one_are_counted():
    model, state = forecaster(), physical()
    assert model.missing.unexpected(state, NAMES) == {}
    state[0, 1, 0, 0] = np.nan
    assert model.missing.unexpected(state, NAMES) == {}
    state[0, 1, 8, 1:4], state[1, 2, 0, 0], state[1, 1, 0, 0] = np.nan, np.nan, np.inf
    assert model.missing.unexpected(state, NAMES) == {"sea_surface_temperature": 4, "snow": 1}


def test_a_saved_model_keeps_where_values_are_missing(tmp_path):
    model, state = forecaster(), physical()
    again = Forecaster.load(model.save(tmp_path / "model"))
    assert again.channels == model.channels and torch.equal(again.missing.share, model.missing.share)
    forcings = np.ones((2, 2, 1, *SHAPE), np.float32)
    for a, b in zip(
        model.rollout_physical(state, 3, forcings), again.rollout_physical(state, 3, forcings), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_without_such_channels_there_is_nothing_to_keep():
    channels = ChannelTable([Channel("a", "a")])
    model = Forecaster(
        ModelConfig(base_channels=4, depth=1), channels, np.linspace(90, -90, 9), np.arange(12) * 30.0,
        *np.ones((3, 1)),
    )  # fmt: skip
    assert not model.missing
    assert not [name for name in model.state_dict() if "missing" in name]
    assert model.missing.unexpected(np.full((1, 1, *SHAPE), np.nan), ["a"]) == {"a": 108}


def test_global_means_with_gaps_and_static_gaps_are_refused():
    with pytest.raises(ModelError, match=r"global mean of sea_surface_temperature.*(?s:.*)ingest\.fill"):
        forecaster(conserve_mean=("sea_surface_temperature",))
    with pytest.raises(ParameterError, match="static channel 'land'"):
        Channel("land", "land", role="static", may_be_missing=True)
    with pytest.raises(ModelError, match="shares of missing values have shape"):
        Forecaster(
            ModelConfig(base_channels=4, depth=1),
            ChannelTable([Channel("a", "a", may_be_missing=True)]),
            np.linspace(90, -90, 9),
            np.arange(12) * 30.0,
            *np.ones((3, 1)),
            missing_share=np.zeros((2, 9, 12)),
        )
