from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.errors import ModelError
from weathermill.models.forecaster import Forecaster
from weathermill.models.harmonics import HarmonicTransform, legendre, quadrature_weights
from weathermill.models.registry import ModelConfig, available_networks, build_network
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.ledger import predict
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.step import StepConfig, TrainingStep


def grid(rows, poles):
    last = 90.0 if poles else 90.0 - 90.0 / rows
    return np.linspace(last, -last, rows)


def test_legendre_functions_are_the_known_ones():
    x = np.linspace(-1, 1, 9)
    cosine = np.sqrt(1 - x**2)
    p = legendre(4, 4, x)
    np.testing.assert_allclose(p[0, 0], np.full(9, np.sqrt(1 / 2)))
    np.testing.assert_allclose(p[0, 2], np.sqrt(5 / 8) * (3 * x**2 - 1), atol=1e-14)
    np.testing.assert_allclose(p[1, 1], -np.sqrt(3 / 4) * cosine, atol=1e-14)
    np.testing.assert_allclose(p[2, 3], np.sqrt(105 / 16) * x * cosine**2, atol=1e-14)
    assert not p[2, 1].any()


def test_quadrature_on_pole_points_is_that_of_clenshaw_and_curtis():
    np.testing.assert_allclose(quadrature_weights(grid(3, True)), [1 / 3, 4 / 3, 1 / 3])
    np.testing.assert_allclose(quadrature_weights(grid(5, True)), np.array([1, 8, 12, 8, 1]) / 15)
    assert abs(quadrature_weights(grid(181, True)).sum() - 2) < 1e-10
    with pytest.raises(ModelError, match="from pole to pole"):
        quadrature_weights(np.linspace(60, -60, 31))


@pytest.mark.parametrize(("rows", "columns", "poles"), [(13, 24, True), (16, 32, False), (32, 63, False)])
def test_transform_and_inverse_are_exact_for_what_is_resolved(rows, columns, poles):
    transform = HarmonicTransform(grid(rows, poles), columns).double()
    n = transform.degrees
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(2, n, n, dtype=torch.complex128, generator=generator).tril()
    coefficients[..., 0] = coefficients[..., 0].real.to(torch.complex128)
    fields = transform.inverse(coefficients)
    assert fields.shape == (2, rows, columns)
    torch.testing.assert_close(transform(fields), coefficients, rtol=0, atol=1e-6)
    power = quadrature_weights(grid(rows, poles))[:, None] * fields.numpy() ** 2 * 2 * np.pi / columns
    parts = np.abs(coefficients.numpy()) ** 2
    expected = parts[..., 0].sum(-1) + 2 * parts[..., 1:].sum((-1, -2))
    np.testing.assert_allclose(power.sum((-1, -2)), expected, rtol=1e-5)


def sfno(rows=16, columns=32, channels=5, **config):
    return build_network(
        ModelConfig(name="sfno", base_channels=8, depth=2, **config),
        in_channels=channels,
        out_channels=channels,
        grid_shape=(rows, columns),
        latitude=grid(rows, False),
    )


def test_it_commutes_with_rolling_by_any_number_of_cells():
    network = sfno().double()
    x = torch.randn(2, 5, 16, 32, dtype=torch.float64)
    for cells in (1, 5, 16):
        torch.testing.assert_close(network(x.roll(cells, -1)), network(x).roll(cells, -1), rtol=0, atol=1e-10)


def test_a_spectral_convolution_commutes_with_rotation_over_the_pole():
    network = sfno().double().blocks[0].spectral
    latitude, columns = grid(16, False), 32
    lam, phi = np.meshgrid(np.arange(columns) * 2 * np.pi / columns, np.deg2rad(latitude))
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)

    def field(x, y, z):
        return np.stack([x * y + 0.3 * z, z**2 - x, y * z * x, x + y + z, x**3, y**2, z**3, x * z])

    with torch.no_grad():
        here = network(torch.tensor(field(x, y, z))[None])
        turned = network(torch.tensor(field(z, x, y))[None])
    # Degree by degree the same power: a rotation of the input is one of the output.
    powers = [network.transform(f).abs().square() for f in (here, turned)]
    totals = [p[..., 0] + 2 * p[..., 1:].sum(-1) for p in powers]
    torch.testing.assert_close(*totals, rtol=1e-6, atol=1e-8)


def test_it_trains_through_the_same_door(tmp_path):
    assert "sfno" in available_networks()
    torch.manual_seed(0)
    ones = np.ones(4)
    model = Forecaster(
        ModelConfig(name="sfno", base_channels=8, depth=2),
        ChannelTable([Channel(f"c{i}", "c") for i in range(3)] + [Channel("land", "land", role="static")]),
        grid(17, True),
        np.arange(24) * 15.0,
        0 * ones,
        ones,
        0.5 * ones,
        np.ones((1, 17, 24)),
    )
    loss = AreaWeightedLoss("mse", np.cos(np.deg2rad(grid(17, True))) + 0.1)
    window = torch.randn(4, 3, 3, 17, 24, generator=torch.Generator().manual_seed(1)).half()
    for options in ({}, {"precision": "bf16"}, {"checkpointing": True, "ema_decay": 0.9}):
        step = TrainingStep(model, loss, OptimiserConfig(3e-3), StepConfig(clip_norm=1.0, **options))
        losses = [float(step(window).loss) for _ in range(15)]
        assert losses[-1] < losses[0]
    loaded = Forecaster.load(model.save(tmp_path))
    state = torch.randn(1, 3, 17, 24)
    torch.testing.assert_close(loaded(state), model.eval()(state))


def test_the_ledger_counts_it():
    plain, recomputed = (
        predict(
            ModelConfig(name="sfno", base_channels=16, depth=4), 5, (33, 64), 2, StepConfig(checkpointing=c)
        )
        for c in (False, True)
    )
    assert recomputed.total < plain.total
    assert any("blocks.3" in part for part in plain.parts)


def test_it_refuses_what_it_cannot():
    with pytest.raises(ModelError, match="boundary"):
        sfno(boundary="zeros")
