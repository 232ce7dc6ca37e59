from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.errors import ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.rollout import RolloutConfig, rollout_loss

SHAPE = (9, 12)


def forecaster(target="tendency") -> Forecaster:
    torch.manual_seed(0)
    channels = [Channel("a", "a"), Channel("b", "b"), Channel("sun", "sun", role="forcing")]
    return Forecaster(
        ModelConfig(base_channels=4, depth=2, target=target),
        ChannelTable(channels),
        np.linspace(90, -90, SHAPE[0]),
        np.arange(SHAPE[1]) * 30.0,
        mean=np.zeros(3),
        std=np.array([2.0, 3.0, 1.0]),
        tendency_std=np.array([0.5, 0.25, 1.0]),
    ).double()


def window(steps, batch=2):
    return torch.randn(
        batch, steps + 1, 3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


LOSS = AreaWeightedLoss("mse", np.linspace(1, 2, 9))


def gradients(model, terms):
    return torch.autograd.grad(terms.total, list(model.parameters()))


def test_one_step_is_the_loss_of_the_normalised_tendency():
    model, x = forecaster().eval(), window(1)
    tendency = (x[:, 1, :2] - x[:, 0, :2]) * torch.tensor([4.0, 12.0])[:, None, None]
    expected = LOSS(model.raw_output(x[:, 0]), tendency)
    torch.testing.assert_close(rollout_loss(model, LOSS, x).total, expected)


def test_one_step_with_states_as_target_is_the_loss_of_the_state():
    model, x = forecaster("state").eval(), window(1)
    torch.testing.assert_close(
        rollout_loss(model, LOSS, x).total, LOSS(model.raw_output(x[:, 0]), x[:, 1, :2])
    )


def test_steps_are_weighted_and_forcings_advance():
    model, x = forecaster().eval(), window(3)
    states = model.rollout(x[:, 0], 3, x[:, 1:, 2:])
    errors = [
        LOSS.total(LOSS.per_channel(states[:, s], x[:, s + 1, :2], scale=model.error_scale)) for s in range(3)
    ]
    terms = rollout_loss(model, LOSS, x, RolloutConfig(step_weights=(1.0, 3.0)))
    torch.testing.assert_close(terms.total, (errors[0] + 3 * errors[1] + 3 * errors[2]) / 7)
    torch.testing.assert_close(terms.per_channel.mean(1), torch.stack(errors))


def test_the_gradient_goes_through_all_steps():
    model, x = forecaster(), window(2)
    whole = gradients(model, rollout_loss(model, LOSS, x))
    model2 = forecaster()
    second = model2(torch.cat([model2(x[:, 0]).detach(), x[:, 1, 2:]], 1))
    cut = torch.autograd.grad(
        LOSS.total(LOSS.per_channel(second, x[:, 2, :2], scale=model2.error_scale)) / 2,
        list(model2.parameters()),
    )
    assert max(float((a - b).abs().max()) for a, b in zip(whole, cut, strict=True)) > 1e-3
    eps, model = 1e-6, forecaster().eval()
    weight = model.network.head.weight
    analytic = torch.autograd.grad(rollout_loss(model, LOSS, x).total, weight)[0][0, 0, 0, 0]
    with torch.no_grad():
        weight[0, 0, 0, 0] += eps
        above = rollout_loss(model, LOSS, x).total
        weight[0, 0, 0, 0] -= 2 * eps
        below = rollout_loss(model, LOSS, x).total
    torch.testing.assert_close(analytic, (above - below) / (2 * eps), rtol=1e-5, atol=1e-7)


def test_push_forward_has_the_gradient_of_the_last_step_alone():
    model, x = forecaster(), window(2)
    got = gradients(model, rollout_loss(model, LOSS, x, RolloutConfig(push_forward=True)))
    model = forecaster()
    with torch.no_grad():
        first = model(x[:, 0])
    last = model(torch.cat([first, x[:, 1, 2:]], 1))
    expected = torch.autograd.grad(
        LOSS.total(LOSS.per_channel(last, x[:, 2, :2], scale=model.error_scale)), list(model.parameters())
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("blocks", [False, True])
def test_recomputing_steps_gives_the_same_gradients_and_statistics(blocks):
    results = []
    for recompute in (False, True):
        model = forecaster()
        model.network.checkpoint_blocks = blocks and recompute
        terms = rollout_loss(model, LOSS, window(3), RolloutConfig(checkpoint_steps=recompute))
        results.append((*gradients(model, terms), *model.buffers()))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_nonsense_is_refused():
    for arguments in ({"step_weights": (0.0,)}, {"step_weights": (-1.0, 2.0)}, {"noise_std": -1.0}):
        with pytest.raises(ParameterError):
            RolloutConfig(**arguments)
    with pytest.raises(ParameterError, match="all zero"):
        RolloutConfig(step_weights=(0.0, 1.0)).weights(1)
