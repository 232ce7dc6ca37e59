from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from weathermill.errors import ModelError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.models.residual import Residual, damping
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.shards import encode

SHAPE = (9, 16)


def red_noise(autocorrelation: float, steps: int, shape=(), seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(steps + 500, *shape))
    return lfilter([1.0], [1.0, -autocorrelation], noise, axis=0)[500:]


def test_damping_is_the_autocorrelation_of_a_stationary_series():
    for autocorrelation in (0.5, 0.9, 0.99):
        x = red_noise(autocorrelation, 400_000)
        assert damping(np.diff(x).std() / x.std()) == pytest.approx(autocorrelation, abs=3e-3)
    # Changes larger than those of white noise say nothing about what lasts.
    assert damping(np.array([1.6])) == 0.0


def forecaster(**config) -> Forecaster:
    channels = ChannelTable(
        [Channel("fast", "fast"), Channel("slow", "slow"), Channel("sun", "sun", role="forcing")]
    )
    config = ModelConfig(base_channels=4, depth=1, zero_head=True, **config)
    grid = np.linspace(80, -80, SHAPE[0]), np.arange(SHAPE[1]) * 22.5
    return Forecaster(config, channels, *grid, np.zeros(3), np.full(3, 4.0), np.ones(3)).eval()


def store(steps=200, gap=False, dtype="float32"):
    """Red noise around a climatology that differs from cell to cell, with other values outside the training period."""
    climatology = np.random.default_rng(1).normal(size=(2, *SHAPE))
    fields = np.stack([red_noise(a, steps, SHAPE, seed) for seed, a in enumerate((0.5, 0.95))], axis=1)
    changes = np.diff(fields, axis=0).std(axis=(0, 2, 3))
    fields = np.concatenate([fields + climatology, np.full((steps, 1, *SHAPE), 7.0)], axis=1)
    fields[steps // 2 :] = 1e3
    if gap:
        fields[::3, 0, 4, 5] = np.nan
        fields[:, 1, 2, 3] = np.nan
    return climatology, SimpleNamespace(
        splits={"train": [(0, steps // 4), (steps // 4, steps // 2)], "test": [(steps // 2, steps)]},
        dtype=dtype,
        read=lambda i: encode(fields[i].astype(np.float32), dtype),
        grid_shape=SHAPE,
        area_weights=np.ones(SHAPE[0]),
        std=np.full(3, 4.0),
        tendency_std=np.array([*(changes * 4.0), 1.0]),
    )


def test_a_factor_multiplies_the_loss_of_an_anomaly():
    _, data = store(2000)
    once, thrice = (Residual(2, SHAPE, damped=True, factor=factor) for factor in (1.0, 3.0))
    once.fit(data)
    thrice.fit(data)
    torch.testing.assert_close(1 - thrice.kept, (3 * (1 - once.kept)).clamp(max=1.0))
    assert thrice.kept[0] == 0 and 0.8 < thrice.kept[1] < 0.9
    with pytest.raises(ModelError, match="damping"):
        ModelConfig(damping=0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("gap", [False, True])
def test_climatology_and_damping_are_those_of_the_training_period(gap, dtype):
    climatology, data = store(2000, gap, dtype)
    residual = Residual(2, SHAPE, damped=True)
    residual.fit(data)
    kept = residual.kept.numpy()
    np.testing.assert_allclose(kept[:, 0, 0], [0.5, 0.95], atol=0.02)
    found = residual.offset.numpy() / (1 - kept)
    if gap:
        assert found[1, 2, 3] == 0
        found[1, 2, 3] = climatology[1, 2, 3]
    # The mean of 256 states of red noise is that uncertain.
    assert np.abs(found - climatology)[0].max() < 0.6 and np.abs(found - climatology)[1].mean() < 1.0
    np.testing.assert_allclose(residual(torch.zeros(1, 2, *SHAPE))[0], residual.offset)


def test_a_network_that_adds_nothing_falls_back_to_the_climatology_of_each_cell(tmp_path):
    _, data = store()
    model = forecaster(residual="damped_persistence")
    model.residual.fit(data)
    kept = model.residual.kept
    centre = model.residual.offset / (1 - kept)
    x = torch.randn(2, 3, *SHAPE)
    forcings = torch.zeros(2, 4, 1, *SHAPE)
    after = model.rollout(x, 5, forcings)[:, -1]
    torch.testing.assert_close(after, centre + kept**5 * (x[:, :2] - centre), rtol=1e-4, atol=1e-4)
    loaded = Forecaster.load(model.save(tmp_path))
    assert torch.equal(loaded.rollout(x, 5, forcings)[:, -1], after)


def test_persistence_is_the_state_and_needs_nothing():
    model = forecaster()
    x = torch.randn(2, 3, *SHAPE)
    assert torch.equal(model(x), x[:, :2])
    assert not [name for name in model.state_dict() if name.startswith("residual")]
    with pytest.raises(ModelError, match="residual"):
        ModelConfig(residual="climatology")
