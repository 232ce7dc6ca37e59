"""The loss in one pass against the loss by autograd, on CUDA or in Triton's interpreter."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from weathermill.training import pointwise
from weathermill.training.losses import KINDS, AreaWeightedLoss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton_only = pytest.mark.skipif(
    not (os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available()),
    reason="needs CUDA, or TRITON_INTERPRET=1 and Triton",
)
SHAPE = (3, 5, 37, 30)


def fields(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@triton_only
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("per_cell", [False, True])
def test_one_pass_measures_and_differentiates_as_autograd_does(kind, masked, scaled, per_cell, monkeypatch):
    areas = np.linspace(1, 2, SHAPE[2])[:, None] * np.linspace(1, 3, SHAPE[3] if per_cell else 1)
    loss = AreaWeightedLoss(kind, areas if per_cell else areas[:, 0], delta=0.7)
    # A view of a window of float16, as training hands it over.
    window = torch.stack([fields(3), fields(4)], dim=1).to(torch.float16)
    mask = scale = None
    if masked:
        mask = fields(5) > -0.5
        mask[:, 1] = False
        window[:, 1][~mask] = torch.nan
    if scaled:
        scale = torch.linspace(0.5, 2, SHAPE[1])[:, None, None]
    weights = torch.linspace(-1, 2, SHAPE[1], device=DEVICE)
    results = []
    for one_pass in (False, True):
        if one_pass:
            loss, window = loss.to(DEVICE), window.to(DEVICE)
            mask, scale = (None if t is None else t.to(DEVICE) for t in (mask, scale))
        prediction = fields(6).to(window.device).requires_grad_()
        monkeypatch.setattr("weathermill.training.losses.in_one_pass", lambda *_, on=one_pass: on)
        per_channel = loss.pointwise(prediction, window[:, 1], mask, scale)
        (per_channel * weights.to(window.device)).sum().backward()
        results.append((per_channel.detach().cpu(), prediction.grad.cpu()))
    for plain, triton in zip(*results, strict=True):
        torch.testing.assert_close(triton, plain, rtol=1e-5, atol=1e-7)


def test_which_fields_go_in_one_pass():
    x = fields(0)
    assert not pointwise.in_one_pass(x, x)
    meta = x.to("meta")
    assert pointwise.in_one_pass(meta, meta.half())
    assert not pointwise.in_one_pass(meta.double(), meta)
    assert not pointwise.in_one_pass(meta, meta.double())
    assert not pointwise.in_one_pass(meta, meta.requires_grad_())


def test_shapes_of_meta_tensors_are_those_of_the_loss():
    loss = AreaWeightedLoss("mse", np.ones(SHAPE[2])).to("meta")
    prediction = fields(0).to("meta").requires_grad_()
    per_channel = loss.pointwise(prediction, fields(1).to("meta"))
    per_channel.sum().backward()
    assert per_channel.shape == SHAPE[1:2] and prediction.grad.shape == SHAPE
