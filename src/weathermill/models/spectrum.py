"""Fourier transforms along circles of latitude, with gradients that take as many transforms as the forecast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def waves_to_fields(waves: Tensor, longitudes: int, norm: str = "backward") -> Tensor:
    """Give ``torch.fft.irfft`` along the last axis.

    Parameters
    ----------
    waves
        (..., longitudes // 2 + 1), complex.
    longitudes
        Length of the result's last axis.
    norm
        As of `torch.fft.irfft`.
    """
    # cuFFT overwrites what it transforms back, so that torch hands it a copy: the memory ledger is to see it.
    copied = waves.clone() if waves.is_meta else None
    fields = torch.fft.irfft(waves, n=longitudes, dim=-1, norm=norm)
    del copied
    return fields


class _Filter(torch.autograd.Function):
    """A real response by wavenumber is symmetric as a map of fields: the gradient is filtered as the fields are.

    The gradient of ``rfft`` by autograd is a complex transform of all wavenumbers, twice as long.
    """

    @staticmethod
    def forward(ctx: Any, fields: Tensor, response: Tensor) -> Tensor:
        ctx.save_for_backward(response)
        waves = torch.fft.rfft(fields, dim=-1)
        # With the scale of the transform back, which else would take a pass of its own.
        waves *= response.to(fields.dtype) / fields.shape[-1]
        return waves_to_fields(waves, fields.shape[-1], "forward")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        return _Filter.apply(gradient, *ctx.saved_tensors), None


def filter_zonally(fields: Tensor, response: Tensor) -> Tensor:
    """Multiply the waves along each circle of latitude by a real response; differentiable in `fields`.

    Parameters
    ----------
    fields
        (..., latitudes, longitudes), float32 or float64.
    response
        (latitudes, longitudes // 2 + 1), real.

    Returns
    -------
    torch.Tensor
        The shape and dtype of `fields`.
    """
    return _Filter.apply(fields, response)
