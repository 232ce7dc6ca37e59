"""Missing cells from the store to the loss: they count in no value and in no gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.store import TensorStore, TensorWriter
from weathermill.training.engine import TrainConfig, train
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.rollout import RolloutConfig, rollout_loss
from weathermill.training.step import StepConfig, TrainingStep
from weathermill.training.tracker import NullTracker

SHAPE = (9, 12)
AREAS = np.linspace(1, 2, SHAPE[0])
LAND = np.zeros(SHAPE, bool)
LAND[2:5, 3:7] = True
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def forecaster(target="tendency", double=True, **changes) -> Forecaster:
    torch.manual_seed(0)
    channels = [
        Channel("a", "a"),
        Channel("sst", "sst", may_be_missing=True),
        Channel("snow", "snow", role="forcing", may_be_missing=True),
    ]
    model = Forecaster(
        ModelConfig(base_channels=4, depth=2, target=target),
        ChannelTable(channels),
        np.linspace(90, -90, SHAPE[0]),
        np.arange(SHAPE[1]) * 30.0,
        mean=np.zeros(3),
        std=np.array([2.0, 3.0, 1.0]),
        tendency_std=np.array([0.5, 0.25, 1.0]),
        missing_share=np.stack([LAND, np.zeros(SHAPE)]).astype(np.float32),
        **changes,
    )
    return model.double() if double else model


def window(steps, dtype=torch.float64, gaps=True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, steps + 1, 3, *SHAPE, dtype=torch.float64, generator=generator)
    if gaps:
        x[:, :, 1, LAND] = torch.nan
        x[0, 0, 1, 0, 0:2] = torch.nan
        x[1, 1, 1, 8, 5] = torch.nan
        x[:, :, 2, 7, 7] = torch.nan
    return x.to(dtype)


def reference(model, x, steps, weights):
    """The loss by loops over channels and cells, from its definition."""
    ratio = [0.25, 0.25 / 3]
    tendency = model.config.target == "tendency"
    known0 = ~torch.isnan(x[:, 0, :2])
    lost = torch.from_numpy(LAND).expand(2, -1, -1)
    lost = lost | ~known0[:, 1] if tendency else lost
    state = torch.nan_to_num(x[:, 0], nan=0.0)
    state[:, 1][lost] = 0.0
    total = 0.0
    for step in range(steps):
        with torch.no_grad():
            output = model.raw_output(state)
            following = state[:, :2] + output * model.tendency_ratio if tendency else output.clone()
        following[:, 1][lost] = 0.0
        for channel in range(2):
            numerator = denominator = 0.0
            for b in range(2):
                for i in range(SHAPE[0]):
                    for j in range(SHAPE[1]):
                        true = float(x[b, step + 1, channel, i, j])
                        if np.isnan(true) or (channel == 1 and bool(lost[b, i, j])):
                            continue
                        error = float(following[b, channel, i, j]) - true
                        error /= ratio[channel] if tendency else 1.0
                        numerator += AREAS[i] * error**2
                        denominator += AREAS[i]
            total += weights[step] / steps * numerator / denominator / 2
        state = torch.cat([following, torch.nan_to_num(x[:, step + 1, 2:], nan=0.0)], 1)
    return total


@pytest.mark.parametrize("target", ["tendency", "state"])
def test_loss_of_a_rollout_is_that_of_its_definition_over_known_cells(target):
    model = forecaster(target).eval()
    config = RolloutConfig(step_weights=(1.0, 2.0))
    terms = rollout_loss(model, AreaWeightedLoss("mse", AREAS), window(3), config)
    expected = reference(model, window(3), 3, config.weights(3))
    # The area weights are kept in single precision.
    assert float(terms.total.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("target", ["tendency", "state"])
@pytest.mark.parametrize(
    "rollout", [RolloutConfig(), RolloutConfig(checkpoint_steps=True), RolloutConfig(push_forward=True)]
)
def test_what_missing_cells_hold_changes_neither_loss_nor_gradient(target, rollout):
    x = window(2)
    results = []
    for value in (torch.nan, 0.0, 1e3):
        model = forecaster(target).train()
        held = x.clone()
        # Land alone: there the static mask knows, whatever is in the cells.
        held[:, :, 1, LAND] = value
        terms = rollout_loss(model, AreaWeightedLoss("mse", AREAS), held, rollout)
        results.append((terms.total.detach(), *torch.autograd.grad(terms.total, list(model.parameters()))))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b) and torch.isfinite(a).all()


def test_the_gradient_of_a_missing_cell_is_exactly_zero():
    model, x = forecaster().eval(), window(1)
    state = torch.nan_to_num(x[:, 0], nan=0.0)
    held = model.missing.held(x[:, 0])
    output = torch.zeros(2, 2, *SHAPE, dtype=torch.float64, requires_grad=True)
    forecast = model.missing.hold(model.advance(state, output), held)
    known = model.missing.known(x[:, 1, :2], held)
    loss = AreaWeightedLoss("huber", AREAS)
    loss.total(loss.per_channel(forecast, x[:, 1, :2], known, model.error_scale)).backward()
    assert (output.grad[~known] == 0).all() and (output.grad[known] != 0).all()
    assert not known[:, 1, torch.from_numpy(LAND)].any() and not known[1, 1, 8, 5]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_a_training_step_takes_stores_with_gaps(stored, device):
    step = TrainingStep(
        forecaster(double=False),
        AreaWeightedLoss("mse", AREAS),
        OptimiserConfig(learning_rate=3e-2),
        StepConfig(),
        RolloutConfig(noise_std=0.01),
        device,
        torch.Generator(device).manual_seed(0),
    )
    x = window(2, stored).to(device)
    losses = [step(x).loss.item() for _ in range(20)]
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    assert all(torch.isfinite(p).all() for p in step.forecaster.parameters())
    assert np.isfinite(step.evaluate(x).loss.item())


def test_a_channel_without_a_known_cell_costs_nothing():
    x = window(1)
    x[:, :, 1] = torch.nan
    terms = rollout_loss(forecaster().eval(), AreaWeightedLoss("mse", AREAS), x)
    assert float(terms.per_channel[0, 1]) == 0.0 and torch.isfinite(terms.total)


def write(path, x, **changes):
    channels = ChannelTable([Channel("a", "a"), Channel("sst", "sst", may_be_missing=True)])
    writer = TensorWriter(
        path,
        channels=channels,
        latitude=np.linspace(90, -90, SHAPE[0]),
        longitude=np.arange(SHAPE[1]) * 30.0,
        times=np.arange(len(x)) * 21600,
        calendar="standard",
        time_step=21600,
        area_weights=AREAS / AREAS.mean(),
        mean=np.zeros(2),
        std=np.ones(2),
        tendency_std=np.full(2, 0.5),
        splits={"train": [(0, 20)], "validation": [(20, 28)]},
        dtype="float16",
        steps_per_shard=7,
    )
    for start, stop in writer.pending():
        writer.write(start, x[start:stop])
    writer.finish()
    return TensorStore(path)


@pytest.mark.parametrize("tier", ["device", "mapped"])
def test_training_on_a_store_with_gaps_never_meets_nan(tmp_path, tier):
    x = np.random.default_rng(0).standard_normal((28, 2, *SHAPE)).astype(np.float32)
    x[:, 1, LAND] = np.nan
    x[::3, 1, 0, :4] = np.nan
    store = write(tmp_path / "store", x)
    result = train(
        store,
        ModelConfig(base_channels=4, depth=1),
        TrainConfig(epochs=2, batch_size=4, learning_rate=1e-2, rollout=(1, 2), feed=tier),
        None,
        NullTracker(),
        device="cpu",
        progress=False,
    )
    assert all(np.isfinite([row["train_loss"], row["validation_loss"]]).all() for row in result.history)
    forecast = next(iter(result.forecaster.rollout_physical(store.physical(21, 22), 1)))
    assert np.isnan(forecast[0, 1][LAND]).all()
    assert np.isfinite(forecast[0, 1][~LAND]).sum() >= (~LAND).sum() - 4
