from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.errors import ParameterError
from weathermill.training.losses import AreaWeightedLoss

LATITUDE = np.linspace(90, -90, 7)
AREAS = np.cos(np.deg2rad(LATITUDE)) + 0.1


def fields(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "measure"),
    [
        ("mse", lambda e: e**2),
        ("mae", np.abs),
        ("huber", lambda e: np.where(np.abs(e) <= 0.5, e**2 / 2, 0.5 * (np.abs(e) - 0.25))),
    ],
)
def test_loss_is_the_weighted_mean_of_its_definition(kind, measure):
    x, y = fields(3, 4, 7, 6), fields(3, 4, 7, 6, seed=1)
    weights = np.array([1.0, 2.0, 0.5, 0.0])
    loss = AreaWeightedLoss(kind, AREAS, weights, delta=0.5)
    areas = (AREAS / AREAS.mean())[:, None]
    expected = (measure((x - y).numpy()) * areas).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(loss.per_channel(x, y), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(x, y), (expected * weights / weights.mean()).mean(), rtol=1e-6)


def test_weights_of_cells_may_vary_with_longitude():
    x, y = fields(1, 1, 7, 6), fields(1, 1, 7, 6, seed=1)
    areas = np.repeat(AREAS[:, None], 6, axis=1)
    torch.testing.assert_close(AreaWeightedLoss("mse", areas)(x, y), AreaWeightedLoss("mse", AREAS)(x, y))


def test_a_uniform_error_costs_its_square_whatever_the_weights():
    x = fields(2, 3, 7, 6)
    assert abs(float(AreaWeightedLoss("mse", AREAS * 17, [3, 1, 2])(x, x + 2.0)) - 4.0) < 1e-6


def test_missing_cells_count_neither_in_value_nor_in_gradient():
    x, y = fields(2, 3, 7, 6).requires_grad_(), fields(2, 3, 7, 6, seed=1)
    mask = torch.rand(2, 1, 7, 6, generator=torch.Generator().manual_seed(2)) > 0.3
    holed = torch.where(mask, y, torch.nan)
    loss = AreaWeightedLoss("mse", AREAS)
    areas = (AREAS / AREAS.mean())[:, None] * mask.numpy()
    expected = (((x.detach() - y) ** 2).numpy() * areas).sum(axis=(0, 2, 3)) / areas.sum()
    np.testing.assert_allclose(loss.per_channel(x, holed, mask).detach(), expected, rtol=1e-6)
    loss(x, holed, mask).backward()
    assert torch.isfinite(x.grad).all() and (x.grad[~mask.expand_as(x)] == 0).all()


def test_differences_of_half_precision_fields_are_taken_in_single():
    x = torch.full((1, 1, 7, 6), 2048.0, dtype=torch.float16)
    prediction = torch.full((1, 1, 7, 6), 2048.5, dtype=torch.float32)
    assert abs(float(AreaWeightedLoss()(prediction, x)) - 0.25) < 1e-6


def test_nonsense_is_refused():
    for arguments in (
        {"kind": "mare"},
        {"delta": 0},
        {"area_weights": [1, -1]},
        {"channel_weights": [np.nan]},
    ):
        with pytest.raises(ParameterError):
            AreaWeightedLoss(**arguments)
