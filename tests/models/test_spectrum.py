"""Zonal filters against NumPy and their gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.models.spectrum import filter_zonally, waves_to_fields


@pytest.mark.parametrize("longitudes", [12, 13])
def test_a_filter_multiplies_waves_and_so_does_its_gradient(longitudes):
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(2, 3, 5, longitudes, dtype=torch.float64, generator=generator, requires_grad=True)
    response = torch.rand(5, longitudes // 2 + 1, dtype=torch.float64, generator=generator)
    expected = np.fft.irfft(np.fft.rfft(fields.detach().numpy()) * response.numpy(), n=longitudes)
    np.testing.assert_allclose(filter_zonally(fields, response).detach(), expected, atol=1e-14)
    assert torch.autograd.gradcheck(filter_zonally, (fields, response))
    assert torch.autograd.gradgradcheck(filter_zonally, (fields, response))


def test_fields_come_back_from_their_waves_and_leave_them_alone():
    fields = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    waves = torch.fft.rfft(fields)
    kept = waves.clone()
    torch.testing.assert_close(waves_to_fields(waves, 9), fields)
    assert torch.equal(waves, kept)
    assert waves_to_fields(waves.to("meta"), 9).shape == fields.shape
