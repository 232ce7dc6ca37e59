from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from weathermill.errors import ModelError
from weathermill.models.forecaster import Forecaster, read_metadata
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable

SHAPE = (12, 16)


def forecaster(*, forcing=1, static=1, seed=0, **config) -> Forecaster:
    channels = [Channel(f"temperature_{i}", "temperature", float(i)) for i in (500, 850, 1000)]
    channels += [Channel(f"forcing_{i}", "forcing", role="forcing") for i in range(forcing)]
    channels += [Channel(f"static_{i}", "static", role="static") for i in range(static)]
    rng = np.random.default_rng(seed)
    n = len(channels)
    torch.manual_seed(seed)
    return Forecaster(
        ModelConfig(**{"base_channels": 4, "depth": 2, **config}),
        ChannelTable(channels),
        np.linspace(90, -90, SHAPE[0]),
        np.arange(SHAPE[1]) * 22.5,
        mean=rng.normal(250, 10, n),
        std=rng.uniform(1e-7, 5, n),
        tendency_std=rng.uniform(1e-8, 1, n),
        static=rng.normal(size=(static, *SHAPE)).astype(np.float32),
    ).eval()


def test_a_tendency_of_one_moves_the_state_by_one_tendency_std():
    model = forecaster()
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.fill_(1.0)
    state = torch.randn(2, 4, *SHAPE)
    change = model.denormalise(model(state)).astype(np.float64) - model.denormalise(state[:, :3])
    expected = np.broadcast_to(model.tendency_std[:3, None, None], change.shape)
    np.testing.assert_allclose(change, expected, atol=1e-6 * np.abs(model.mean[:3]).max())


def test_an_untrained_forecaster_with_a_zero_head_is_persistence_or_climatology():
    state = torch.randn(2, 4, *SHAPE)
    assert torch.equal(forecaster(zero_head=True)(state), state[:, :3])
    assert torch.equal(forecaster(zero_head=True, target="state")(state), torch.zeros(2, 3, *SHAPE))


def test_rollout_feeds_each_state_and_its_forcing_to_the_next_step():
    model = forecaster()
    state, forcings = torch.randn(2, 4, *SHAPE), torch.randn(2, 2, 1, *SHAPE)
    with torch.no_grad():
        first = model(state)
        second = model(torch.cat([first, forcings[:, 0]], 1))
        third = model(torch.cat([second, forcings[:, 1]], 1))
        torch.testing.assert_close(model.rollout(state, 3, forcings), torch.stack([first, second, third], 1))
    with pytest.raises(ModelError, match="forcing"):
        model.rollout(state, 3)


def test_rollout_in_physical_units_is_the_normalised_one_denormalised():
    model = forecaster()
    rng = np.random.default_rng(1)
    physical = rng.normal(size=(2, 4, *SHAPE)) * model.std[:4, None, None] + model.mean[:4, None, None]
    forcings = rng.normal(size=(2, 1, 1, *SHAPE)) * model.std[3] + model.mean[3]
    steps = list(model.rollout_physical(physical, 2, forcings))
    normalised = torch.tensor((physical - model.mean[:4, None, None]) / model.std[:4, None, None]).float()
    normalised_forcings = torch.tensor((forcings - model.mean[3]) / model.std[3]).float()
    with torch.no_grad():
        expected = model.rollout(normalised, 2, normalised_forcings)
    for i, step in enumerate(steps):
        assert step.dtype == np.float32 and step.shape == (2, 3, *SHAPE)
        np.testing.assert_allclose(step, model.denormalise(expected[:, i]), rtol=1e-5)


def test_half_precision_states_are_taken():
    model = forecaster()
    state = torch.randn(1, 4, *SHAPE).half()
    torch.testing.assert_close(model(state), model(state.float()))


def test_saving_and_loading_keeps_every_bit(tmp_path):
    model = forecaster(target="state", norm="group", base_channels=16)
    loaded = Forecaster.load(model.save(tmp_path / "model"))
    state = torch.randn(1, 4, *SHAPE)
    assert torch.equal(model(state), loaded(state)) and not loaded.training
    assert loaded.config == model.config and loaded.channels == model.channels
    for name in ("latitude", "longitude", "mean", "std", "tendency_std"):
        assert np.array_equal(getattr(loaded, name), getattr(model, name))
    assert read_metadata(tmp_path / "model")["channels"][0]["name"] == "temperature_500"
    assert not [p for p in (tmp_path / "model").iterdir() if "partial" in p.name]


def test_a_damaged_model_is_refused(tmp_path):
    folder = forecaster().save(tmp_path / "model")
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match="checksum"):
        Forecaster.load(folder)
    weights.write_bytes(good)
    text = json.loads((folder / "model.json").read_text())
    text["mean"][0] += 1
    (folder / "model.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match="cannot be read"):
        Forecaster.load(folder)
    with pytest.raises(ModelError, match="cannot be read"):
        Forecaster.load(tmp_path / "nowhere")


def test_wrong_states_and_statistics_are_named():
    model = forecaster()
    with pytest.raises(ModelError, match=r"\(1, 3, 12, 16\).*4"):
        model(torch.zeros(1, 3, *SHAPE))
    with pytest.raises(ModelError, match="std is not positive and finite for temperature_850"):
        Forecaster(
            ModelConfig(base_channels=4, depth=1),
            ChannelTable([Channel("temperature_500", "t"), Channel("temperature_850", "t")]),
            np.linspace(90, -90, 8),
            np.arange(8.0),
            [0, 0],
            [1, 0],
            [1, 1],
        )
