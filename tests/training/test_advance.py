from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from weathermill.models import advance as models_advance
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import RESIDUALS, ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training import advance
from weathermill.training.losses import KINDS, AreaWeightedLoss
from weathermill.training.rollout import RolloutConfig, rollout_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton_only = pytest.mark.skipif(
    not (os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available()),
    reason="needs CUDA, or TRITON_INTERPRET=1 and Triton",
)
SHAPE = (11, 16)


def forecaster(target="tendency", prognostic=3, residual="damped_persistence", **constraints) -> Forecaster:
    torch.manual_seed(0)
    channels = [Channel(f"c{i}", "c") for i in range(prognostic)]
    channels += [Channel("sun", "sun", role="forcing"), Channel("land", "land", role="static")]
    n = len(channels)
    rng = np.random.default_rng(0)
    model = Forecaster(
        ModelConfig(base_channels=8, depth=2, target=target, residual=residual, **constraints),
        ChannelTable(channels),
        np.linspace(90, -90, SHAPE[0]),
        np.arange(SHAPE[1]) * 22.5,
        mean=np.zeros(n),
        std=rng.uniform(1, 3, n),
        tendency_std=rng.uniform(0.2, 1, n),
        static=rng.normal(size=(1, *SHAPE)),
    )
    if model.residual.damped:
        model.residual.kept.copy_(torch.tensor(rng.uniform(0.5, 1, (prognostic, 1, 1))))
        model.residual.offset.copy_(torch.tensor(rng.normal(size=(prognostic, *SHAPE))))
    return model


def window(steps, prognostic=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, steps + 1, prognostic + 1, *SHAPE, dtype=torch.float64, generator=generator)


def make_loss(kind="mse", per_cell=False) -> AreaWeightedLoss:
    areas = np.linspace(1, 2, SHAPE[0])
    areas = np.repeat(areas[:, None], SHAPE[1], 1) * np.linspace(1, 3, SHAPE[1]) if per_cell else areas
    return AreaWeightedLoss(kind, areas, [1, 2, 3], delta=0.7)


@pytest.mark.parametrize("target", ["tendency", "state"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "rollout", [RolloutConfig(), RolloutConfig(checkpoint_steps=True), RolloutConfig(push_forward=True)]
)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_fast_pass_of_a_rollout_is_the_plain_one(target, kind, rollout, steps):
    results = []
    for fast in (False, True):
        model = forecaster(target).double()
        model.network.fused = fast
        x = window(steps)
        assert model.takes_fast_pass(x) == fast
        terms = rollout_loss(model, make_loss(kind), x, rollout)
        terms.total.backward()
        named = {"total": terms.total.detach(), "per_channel": terms.per_channel}
        named |= {k: p.grad for k, p in model.named_parameters()} | dict(model.named_buffers())
        results.append(named)
    for name, value in results[0].items():
        torch.testing.assert_close(
            results[1][name], value, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("target", ["tendency", "state"])
@pytest.mark.parametrize("checkpoint_steps", [False, True])
@pytest.mark.parametrize(
    ("constraints", "unit"),
    [({}, "state"), ({}, "tendency"), ({"zonal_filter": 4, "conserve_mean": ("c1",)}, None)],
)
def test_the_fast_pass_with_units_and_constraints_is_the_plain_one(
    target, checkpoint_steps, constraints, unit
):
    results = []
    for fast in (False, True):
        model = forecaster(target, **constraints).double()
        model.network.fused = fast
        loss = make_loss("huber")
        loss.unit = unit
        terms = rollout_loss(model, loss, window(3), RolloutConfig(checkpoint_steps=checkpoint_steps))
        terms.total.backward()
        results.append({"total": terms.total.detach()} | {k: p.grad for k, p in model.named_parameters()})
    for name, value in results[0].items():
        torch.testing.assert_close(
            results[1][name], value, rtol=1e-7, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}"
        )


@triton_only
@pytest.mark.parametrize("target", ["tendency", "state"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_measures_triton_and_differentiates(target, kind, more, per_cell, residual):
    triton = advance._triton()
    model, loss = forecaster(target, residual=residual), make_loss(kind, per_cell)
    x = window(2).float()
    state, truth = x[:, 1], x[:, 2, :3]
    output = torch.randn(2, 12, 16, 8, generator=torch.Generator().manual_seed(3))
    factor = torch.tensor([1.0, 0.5, 3.0])[:, None, None]
    error, advanced = advance._error(output, state, truth, factor, model)
    expected = (loss.measure(error) * loss.area_weights).mean(dim=(0, 2, 3))
    dper = torch.tensor([0.3, -1.0, 2.0])
    dnext = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(4)) if more else None
    doutput, dstate = torch.empty(2, 12, 16, 8), torch.empty(2, 4, *SHAPE)
    advance._backward(output, state, truth, model, loss, factor, dper, dnext, doutput, dstate)

    model, loss = model.to(DEVICE), loss.to(DEVICE)
    output, state, truth, factor, dper = (t.to(DEVICE) for t in (output, state, truth, factor, dper))
    dnext = None if dnext is None else dnext.to(DEVICE)
    per_channel = torch.full((3,), torch.nan, device=DEVICE)
    prognostic = torch.full((2, 3, *SHAPE), torch.nan, device=DEVICE) if more else None
    triton.measure(output, state, truth, model, loss, factor, per_channel, prognostic)
    torch.testing.assert_close(per_channel.cpu(), expected, rtol=1e-5, atol=1e-6)
    if more:
        torch.testing.assert_close(prognostic.cpu(), advanced, rtol=1e-5, atol=1e-5)
    got, got_state = torch.full_like(output, torch.nan), torch.full((2, 4, *SHAPE), torch.nan, device=DEVICE)
    triton.measure_backward(output, state, truth, model, loss, factor, dper, dnext, got, got_state)
    torch.testing.assert_close(got.cpu(), doutput, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got_state.cpu(), dstate, rtol=1e-5, atol=1e-5)


@triton_only
@pytest.mark.parametrize("target", ["tendency", "state"])
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_advances_and_differentiates(target, residual, dtype):
    model = forecaster(target, residual=residual)
    state = window(1)[:, 1].to(torch.float16)
    output = torch.randn(2, 12, 16, 8, generator=torch.Generator().manual_seed(3)).to(dtype)
    out, before = output.clone().requires_grad_(), state.float().requires_grad_()
    expected = models_advance.advance_padded(model, out, before)
    dafter = torch.linspace(-1, 1, expected.numel()).reshape(expected.shape)
    expected.backward(dafter)

    model, triton = model.to(DEVICE), models_advance._triton()
    after = torch.full((2, 3, *SHAPE), torch.nan, device=DEVICE)
    triton.advance(output.to(DEVICE), state.to(DEVICE), model, after)
    torch.testing.assert_close(after.cpu(), expected.detach(), rtol=1e-5, atol=1e-5)
    doutput = torch.full_like(output, torch.nan, device=DEVICE)
    dstate = torch.full_like(before, torch.nan, device=DEVICE, requires_grad=False)
    triton.advance_backward(dafter.to(DEVICE), model, doutput, dstate)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(doutput.cpu(), out.grad, rtol=tolerance, atol=1e-5)
    torch.testing.assert_close(dstate.cpu(), before.grad, rtol=1e-5, atol=1e-5)
