from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from weathermill.errors import ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training import spectral_powers
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.spectral import SpectralTerm
from weathermill.training.spectral_powers import powers
from weathermill.training.step import StepConfig, TrainingStep

AREAS = np.cos(np.deg2rad(np.linspace(80, -80, 9))) + 0.1


def longitudes(n):
    return np.arange(n) * 360.0 / n


def fields(n=12, channels=2, seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, 9, n, generator=generator, dtype=torch.float64)


def amse(x, y):
    """The loss of Subich et al. (2025), eq. 6, by zonal wavenumber; and the mean square error by Parseval."""
    n = x.shape[-1]
    rows = (AREAS / AREAS.sum())[:, None]
    count = np.full(n // 2 + 1, 2.0)
    count[0] = 1.0
    if n % 2 == 0:
        count[-1] = 1.0
    a, b = (np.fft.rfft(f, axis=-1) / n for f in (x, y))
    p, q = ((rows * count * np.abs(c) ** 2).sum(-2) for c in (a, b))
    coherence = (rows * count * (a * b.conj()).real).sum(-2) / np.sqrt(p * q)
    s = (np.sqrt(p) - np.sqrt(q)) ** 2 + 2 * np.maximum(p, q) * (1 - coherence)
    e = (np.sqrt(p) - np.sqrt(q)) ** 2 + 2 * np.sqrt(p * q) * (1 - coherence)
    return s.sum(-1).mean(0), e.sum(-1).mean(0)


@pytest.mark.parametrize("n", [12, 13])
def test_with_the_mean_square_error_it_is_the_loss_of_the_paper(n):
    x, y = fields(n), 0.6 * fields(n, seed=1)
    expected, square = amse(x.numpy(), y.numpy())
    term = SpectralTerm(1.0, AREAS, longitudes(n))
    np.testing.assert_allclose(term(x, y), expected - square, rtol=2e-6)
    loss = AreaWeightedLoss("mse", AREAS, spectral=term)
    np.testing.assert_allclose(loss.pointwise(x, y), square, rtol=1e-6)
    np.testing.assert_allclose(loss.per_channel(x, y), expected, rtol=1e-6)
    half = AreaWeightedLoss("mse", AREAS, spectral=SpectralTerm(0.5, AREAS, longitudes(n)))
    np.testing.assert_allclose(half.per_channel(x, y), (expected + square) / 2, rtol=1e-6)


def test_it_is_zero_for_equal_fields_with_a_gradient_of_zero():
    x = fields().float().requires_grad_()
    term = SpectralTerm(1.0, AREAS, longitudes(12))(x, x.detach())
    assert (term == 0).all()
    term.sum().backward()
    assert (x.grad == 0).all()


def test_it_does_not_change_when_both_fields_turn_about_the_axis():
    x, y = fields(), fields(seed=1)
    term = SpectralTerm(1.0, AREAS, longitudes(12))
    for shift in (1, 5):
        np.testing.assert_allclose(term(x.roll(shift, -1), y.roll(shift, -1)), term(x, y), rtol=1e-12)


@pytest.mark.parametrize("n", [6, 7])
def test_gradients_are_those_of_differences(n):
    term = SpectralTerm(0.7, AREAS, longitudes(n)).double()
    x, y = fields(n, batch=1).requires_grad_(), 0.5 * fields(n, seed=1, batch=1)
    scale = torch.tensor([2.0, 0.3], dtype=torch.float64)[:, None, None]
    mask = torch.rand(1, 1, 9, n, generator=torch.Generator().manual_seed(2)) > 0.2
    assert torch.autograd.gradcheck(lambda x: term(x, y, mask, scale), (x,))


def test_single_precision_and_autocast_agree_with_double():
    x, y = fields(24), fields(24, seed=1)
    y = x + 0.05 * y
    term = SpectralTerm(1.0, AREAS, longitudes(24))
    exact = term(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = term(x.float(), y.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, exact, rtol=1e-3)
    assert torch.isfinite(term(x.half(), y.half())).all()


def test_fading_what_cannot_be_placed_gains_nothing():
    """Of forecasts of a wave in an unknown place, the mean square error likes none best, and this one the full wave."""
    longitude = torch.tensor(np.deg2rad(longitudes(24)))
    truth = torch.stack([torch.cos(3 * longitude + phase) for phase in np.linspace(0, 2 * np.pi, 16, False)])
    truth = truth[:, None, None].expand(-1, 1, 9, -1)
    strengths = [0.02, 0.25, 0.5, 0.75, 1.0, 1.25]
    forecasts = [s * torch.cos(3 * longitude).expand_as(truth) for s in strengths]
    plain = AreaWeightedLoss("mse", AREAS)
    kept = AreaWeightedLoss("mse", AREAS, spectral=SpectralTerm(1.0, AREAS, longitudes(24)))
    assert np.argmin([float(plain(f, truth)) for f in forecasts]) == 0
    assert np.argmin([float(kept(f, truth)) for f in forecasts]) == strengths.index(1.0)


def test_missing_cells_may_hold_anything_and_have_no_gradient():
    x, y = fields().requires_grad_(), fields(seed=1)
    mask = torch.rand(3, 1, 9, 12, generator=torch.Generator().manual_seed(2)) > 0.3
    term = SpectralTerm(1.0, AREAS, longitudes(12))
    value = term(x, torch.where(mask, y, torch.nan), mask)
    assert torch.equal(value, term(x, torch.where(mask, y, 7.0), mask))
    value.sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[~mask.expand_as(x)] == 0).all()


def test_it_applies_to_chosen_channels_and_to_empty_fields():
    x, y = fields(), fields(seed=1)
    chosen = SpectralTerm(1.0, AREAS, longitudes(12), np.array([False, True]))(x, y)
    every = SpectralTerm(1.0, AREAS, longitudes(12))(x, y)
    assert chosen[0] == 0 and chosen[1] == every[1]
    zero = torch.zeros(1, 2, 9, 12, requires_grad=True)
    term = SpectralTerm(1.0, AREAS, longitudes(12))(zero, torch.zeros(1, 2, 9, 12))
    term.sum().backward()
    assert (term == 0).all() and torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_training_step_takes_it_at_every_step_of_a_rollout(device):
    torch.manual_seed(0)
    channels = ChannelTable([Channel("a", "a"), Channel("b", "b")])
    latitude = np.linspace(80, -80, 9)
    statistics = np.zeros(2), np.ones(2), np.full(2, 0.5)
    model = Forecaster(ModelConfig(base_channels=4, depth=2), channels, latitude, longitudes(12), *statistics)
    spectral = SpectralTerm(1.0, AREAS, longitudes(12))
    loss = AreaWeightedLoss("mse", AREAS, unit="state", spectral=spectral)
    step = TrainingStep(model, loss, OptimiserConfig(1e-2), StepConfig(), None, device)
    x = torch.stack([fields(12, seed=seed, batch=4) for seed in range(3)], dim=1).half().to(device)
    losses = [step(x).loss.item() for _ in range(20)]
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]
    with torch.no_grad():
        states = model.eval().rollout(x[:, 0].float(), 2)
        expected = [loss.per_channel(states[:, k], x[:, k + 1]).mean().item() for k in range(2)]
    assert step.evaluate(x).loss.item() == pytest.approx(
        np.mean(expected), rel=2e-2 if device == "cuda" else 1e-5
    )


def test_faults():
    with pytest.raises(ParameterError, match="all round the globe"):
        SpectralTerm(1.0, AREAS, np.arange(12) * 2.0)
    with pytest.raises(ParameterError, match="must be positive"):
        SpectralTerm(-1.0, AREAS, longitudes(12))


@pytest.mark.parametrize("n", [12, 13])
def test_the_gradient_of_powers_is_that_of_finite_differences(n):
    x, y = fields(n, batch=1).requires_grad_(), fields(n, seed=1, batch=1)
    rows = torch.linspace(0.1, 0.2, 9, dtype=torch.float64)[:, None]
    multiplicity = torch.linspace(1, 2, n // 2 + 1, dtype=torch.float64)
    multiplicity[1:-1] = 2.0
    multiplicity[0], multiplicity[-1] = 1.0, 1.0 if n % 2 == 0 else 2.0
    assert torch.autograd.gradcheck(lambda f: powers(f, y, rows, multiplicity), (x,))


@pytest.mark.skipif(
    not (os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available()),
    reason="needs CUDA, or TRITON_INTERPRET=1 and Triton",
)
def test_triton_sums_powers_and_combines_waves():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    triton = spectral_powers._triton()
    d, t = (torch.randn(2, 3, 21, 70, 2, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    rows = torch.linspace(0.1, 0.5, 21)[:, None]
    w = rows[..., None]
    expected = torch.stack([(v * w).sum(2) for v in (d * d, d * (d + 2 * t), (d + t) ** 2, t * t)])
    a, b = (torch.randn(2, 3, 70, generator=torch.Generator().manual_seed(k)) for k in (2, 3))
    combined = w * (a[:, :, None, :, None] * d + b[:, :, None, :, None] * t)
    sums = torch.full((4, 2, 3, 70, 2), torch.nan, device=device)
    d, t, rows, a, b = (x.to(device) for x in (d, t, rows, a, b))
    triton.power_sums(d, t, rows, sums)
    torch.testing.assert_close(sums.cpu(), expected, rtol=1e-5, atol=1e-6)
    waves = torch.full_like(d, torch.nan)
    triton.combine(d, t, rows, a, b, waves)
    torch.testing.assert_close(waves.cpu(), combined, rtol=1e-6, atol=1e-6)
