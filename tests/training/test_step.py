from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from weathermill.errors import CheckpointError, ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.rollout import RolloutConfig
from weathermill.training.spectral import SpectralTerm
from weathermill.training.step import StepConfig, TrainingStep

SHAPE = (17, 32)
CHANNELS = ChannelTable([Channel(f"c{i}", "c") for i in range(5)] + [Channel("mask", "mask", role="static")])
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

# Relative errors of the first step's loss and gradient against float64; mantissas have 24, 11, 8 and 11 bits.
# The gradient loses more than the loss: rounding near zero turns whole ReLUs and pooling windows over.
BOUNDS = {"fp32": (1e-6, 2e-5), "tf32": (1e-3, 6e-2), "bf16": (1e-2, 2e-1), "fp16": (2e-3, 6e-2)}


# Forecasts and losses that more than the fast pass's own kernels compute: model, loss.
GENERAL = {
    "damped": ({"residual": "damped_persistence", "damping": 2.0}, {}),
    "constrained": (
        {
            "residual": "damped_persistence",
            "damping": 2.0,
            "zonal_filter": 8,
            "conserve_mean": ("c0",),
            "pin_mean": ("c1",),
            "non_negative": ("c2",),
        },
        {},
    ),
    "spectral": ({}, {"spectral": True}),
    "state": ({}, {"unit": "state", "kind": "huber", "channel_weights": [1, 2, 3, 4, 5]}),
    "missing": ({}, {"missing": True}),
}


def forecaster(channels=CHANNELS, **config) -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(
        ModelConfig(**{"base_channels": 16, "depth": 2, **config}),
        channels,
        np.linspace(90, -90, SHAPE[0]),
        np.arange(SHAPE[1]) * 11.25,
        mean=np.zeros(6),
        std=np.ones(6),
        tendency_std=np.full(6, 0.5),
        static=np.random.default_rng(0).normal(size=(1, *SHAPE)),
    )


def loss(kind="mse", spectral=False, **options) -> AreaWeightedLoss:
    areas = np.cos(np.deg2rad(np.linspace(90, -90, SHAPE[0]))) + 0.05
    term = SpectralTerm(0.5, areas, np.arange(SHAPE[1]) * 11.25) if spectral else None
    return AreaWeightedLoss(kind, areas, spectral=term, **options)


def window(batch=4, steps=1, seed=1, dtype=torch.float16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps + 1, 5, *SHAPE, generator=generator).to(dtype)


def make(
    device="cpu", optimiser=None, rollout=None, double=False, model=None, generator=None, error=None, **config
):
    model = model or forecaster()
    model = model.double() if double else model
    optimiser = optimiser or OptimiserConfig(learning_rate=1e-3)
    return TrainingStep(model, error or loss(), optimiser, StepConfig(**config), rollout, device, generator)


def gradient(step: TrainingStep) -> torch.Tensor:
    return torch.cat([p.grad.flatten().double().cpu() for p in step.forecaster.parameters()])


def error(value: torch.Tensor, reference: torch.Tensor) -> float:
    value, reference = value.double().cpu(), reference.double()
    return float(torch.linalg.vector_norm(value - reference) / torch.linalg.vector_norm(reference))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_stays_within_its_bound_of_a_float64_step(precision, steps, device):
    exact = make(double=True)
    reference = exact(window(steps=steps).double())
    step = make(device, precision=precision, cuda_graph=False)
    result = step(window(steps=steps).to(device))
    loss_bound, gradient_bound = BOUNDS[precision]
    got = gradient(step)
    assert error(result.loss, reference.loss) < loss_bound
    assert error(got, gradient(exact)) < gradient_bound
    assert error(result.grad_norm, reference.grad_norm) < gradient_bound
    assert result.loss.dtype == torch.float32 and result.per_channel.shape == (steps, 5)
    assert {p.dtype for p in step.forecaster.parameters()} == {torch.float32}
    for name, buffer in step.forecaster.named_buffers():
        if "running" in name:
            assert error(buffer, dict(exact.forecaster.named_buffers())[name]) < 3 * loss_bound, name


def test_float16_master_weights_would_be_caught_by_the_bounds():
    exact, step = make(double=True), make(precision="fp32")
    exact(window().double())
    with torch.no_grad():
        for p in step.forecaster.parameters():
            p.copy_(p.half())
    step(window())
    assert error(gradient(step), gradient(exact)) > BOUNDS["fp32"][1]


@pytest.mark.parametrize("device", DEVICES)
def test_training_lowers_the_loss(device):
    step = make(device, clip_norm=1.0, ema_decay=0.9)
    batch = window().to(device)
    losses = [float(step(batch).loss) for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


def test_weights_follow_adamw():
    step = make(double=True, optimiser=OptimiserConfig(learning_rate=0.01, weight_decay=0.1))
    before = [p.detach().clone() for p in step.forecaster.parameters()]
    step(window().double())
    for p, old in zip(step.forecaster.parameters(), before, strict=True):
        expected = old * (1 - 0.01 * 0.1) - 0.01 * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-6, atol=1e-8)


def test_learning_rate_changes_without_a_new_optimiser():
    step = make()
    before = [p.detach().clone() for p in step.forecaster.parameters()]
    step.set_learning_rate(0.0)
    step(window())
    assert all(torch.equal(a, b) for a, b in zip(before, step.forecaster.parameters(), strict=True))


def test_clipping_limits_the_gradient_and_reports_its_norm_before():
    step = make(clip_norm=0.01)
    norm = float(step(window()).grad_norm)
    assert norm > 0.01
    assert abs(float(gradient(step).norm()) - 0.01) < 1e-4
    assert abs(norm - float(make()(window()).grad_norm)) < 1e-5 * norm


def test_accumulation_is_the_mean_over_parts():
    model = forecaster(norm="group", base_channels=16)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    whole = make(model=model, double=True)
    reference = whole(window(6).double())
    other = forecaster(norm="group", base_channels=16)
    other.load_state_dict(state)
    parts = make(model=other, double=True, accumulate=4)
    result = parts(window(6).double())
    torch.testing.assert_close(result.loss, reference.loss)
    torch.testing.assert_close(result.per_channel, reference.per_channel)
    torch.testing.assert_close(gradient(parts), gradient(whole))


def test_the_moving_average_lags_behind_and_can_be_looked_at():
    step = make(ema_decay=0.75, double=True)
    average = [p.detach().clone() for p in step.forecaster.parameters()]
    for seed in range(3):
        step(window(seed=seed).double())
        average = [
            0.75 * a + 0.25 * p.detach() for a, p in zip(average, step.forecaster.parameters(), strict=True)
        ]
    trained = [p.detach().clone() for p in step.forecaster.parameters()]
    with step.averaged_weights():
        for p, a in zip(step.forecaster.parameters(), average, strict=True):
            torch.testing.assert_close(p.detach(), a)
    for p, kept in zip(step.forecaster.parameters(), trained, strict=True):
        assert torch.equal(p, kept)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(precision):
    step = make(precision=precision, clip_norm=1.0)
    step(window())
    before = {k: v.clone() for k, v in step.state_dict().items() if "running" not in k and "batches" not in k}
    bad = window()
    bad[1, 1, 2, 3, 4] = torch.inf
    assert not torch.isfinite(step(bad).grad_norm)
    for key, value in before.items():
        if key == "scaler.scale":
            assert step.state_dict()[key] == value / 2
        elif key != "scaler.age":
            assert torch.equal(step.state_dict()[key], value), key


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_taken_from_a_saved_state_goes_on_as_if_never_stopped(precision, device):
    options = {"precision": precision, "ema_decay": 0.9, "clip_norm": 1.0, "deterministic": True}
    first = make(device, **options)
    first(window(seed=0).to(device))
    state = {k: v.cpu().clone() for k, v in first.state_dict().items()}
    expected = first(window(seed=1).to(device)).loss.clone()
    second = make(device, model=forecaster(), **options)
    with torch.no_grad():
        for p in second.forecaster.parameters():
            p.add_(1.0)
    second.load_state_dict(state)
    assert torch.equal(second(window(seed=1).to(device)).loss, expected)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    with pytest.raises(CheckpointError, match="lacks"):
        second.load_state_dict({k: v for k, v in state.items() if not k.startswith("ema")})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name", GENERAL)
def test_every_path_through_the_loss_stays_within_its_bound_of_a_float64_step(name, steps, device):
    model, options = GENERAL[name][0], dict(GENERAL[name][1])
    missing = options.pop("missing", False)
    table = ChannelTable([replace(c, may_be_missing=missing and c.name == "c3") for c in CHANNELS])
    data = window(steps=steps)
    if missing:
        data[:, :, 3, :6] = float("nan")
    exact, step = (
        make(to, model=forecaster(table, **model), error=loss(**options), double=double, precision="fp32")
        for to, double in (("cpu", True), (device, False))
    )
    reference, result = exact(data.double()), step(data.to(device))
    assert error(result.loss, reference.loss) < 1e-6
    assert error(result.per_channel, reference.per_channel) < 1e-5
    # Over four steps, rounding turns single ReLUs over, and their share of the gradient with them.
    assert error(gradient(step), gradient(exact)) < (2e-5 if steps < 4 else 2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cuda_graph_computes_what_eager_steps_do(precision):
    options = {"precision": precision, "ema_decay": 0.9, "clip_norm": 1.0, "deterministic": True}
    eager, graph = (make("cuda", cuda_graph=on, **options) for on in (False, True))
    for seed, batch in ((0, 4), (1, 4), (2, 3), (3, 4)):
        a, b = (step(window(batch, seed=seed).cuda()) for step in (eager, graph))
        assert error(b.loss, a.loss.cpu()) < 1e-5
    for (key, a), b in zip(eager.state_dict().items(), graph.state_dict().values(), strict=True):
        if a.is_floating_point():
            assert error(b, a.cpu()) < 1e-4 or float(a.abs().max()) == 0, key


def test_noise_comes_from_its_own_generator_and_moves_the_initial_state_only():
    rollout = RolloutConfig(noise_std=0.1)
    losses = [
        float(make(rollout=rollout, generator=torch.Generator().manual_seed(seed))(window()).loss)
        for seed in (5, 5, 6)
    ]
    assert losses[0] == losses[1] != losses[2]
    batch = window()
    kept = batch.clone()
    step = make(rollout=rollout, generator=torch.Generator().manual_seed(5))
    step(batch)
    assert torch.equal(batch, kept)
    assert float(step.evaluate(batch).loss) == float(step.evaluate(batch).loss)
    with pytest.raises(ParameterError, match="noise_generator"):
        make(rollout=rollout)(window())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_noise_keeps_the_window_s_precision_and_leaves_forcings_and_targets_alone(dtype):
    step = make(rollout=RolloutConfig(noise_std=0.1), generator=torch.Generator().manual_seed(5))
    step.forecaster.n_prognostic = 3
    batch = window(64, dtype=dtype)
    noisy = batch.clone()
    step._add_noise(noisy)
    assert noisy.dtype == dtype
    assert torch.equal(noisy[:, 1:], batch[:, 1:]) and torch.equal(noisy[:, 0, 3:], batch[:, 0, 3:])
    assert float((noisy - batch).float()[:, 0, :3].std()) == pytest.approx(0.1, rel=0.02)


def test_evaluation_changes_nothing():
    step = make(ema_decay=0.9)
    before = {k: v.clone() for k, v in step.state_dict().items()}
    result = step.evaluate(window(steps=3))
    assert result.grad_norm is None and result.per_channel.shape == (3, 5)
    assert all(torch.equal(v, before[k]) for k, v in step.state_dict().items())


def test_checkpointing_blocks_and_channels_last_do_not_change_the_step():
    plain = make(double=True)
    plain(window(steps=2).double())
    other = make(
        double=True, checkpointing=True, channels_last=True, rollout=RolloutConfig(checkpoint_steps=True)
    )
    other(window(steps=2).double())
    torch.testing.assert_close(gradient(other), gradient(plain), rtol=1e-9, atol=1e-12)


def test_nonsense_is_refused():
    for arguments in ({"precision": "fp8"}, {"accumulate": 0}, {"clip_norm": 0}, {"ema_decay": 1.0}):
        with pytest.raises(ParameterError):
            StepConfig(**arguments)
    for bad in (window()[:, 0], window()[:, :1]):
        with pytest.raises(ParameterError, match="window"):
            make()(bad)
