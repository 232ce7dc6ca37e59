"""Powers of a forecast, of the truth and of their difference by zonal wavenumber, in one pass over their waves."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weathermill.models.kernels import has_triton
from weathermill.models.spectrum import waves_to_fields


def powers(
    prediction: Tensor, target: Tensor, rows: Tensor, multiplicity: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Area means over latitude of the powers of waves along circles of latitude.

    Of the coefficients :math:`X_k, Y_k` of forecast and truth and their difference :math:`D_k = X_k - Y_k`, taken
    of the difference of the fields so that nearly equal ones lose no digits.

    Parameters
    ----------
    prediction, target
        (batch, channel, latitude, longitude), float32 or float64; the gradient of `target` is not taken.
    rows
        (latitude, 1) area weights of sum one.
    multiplicity
        (longitude // 2 + 1,): how many coefficients of a full transform each one stands for.

    Returns
    -------
    tuple
        :math:`|D_k|^2`; :math:`|X_k|^2 - |Y_k|^2`, from :math:`D_k`; :math:`|X_k|^2`; :math:`|Y_k|^2`; each
        (batch, channel, longitude // 2 + 1).
    """
    return _Powers.apply(prediction, target, rows.to(prediction.dtype), multiplicity.to(prediction.dtype))


class _Powers(torch.autograd.Function):
    """Its gradient is one transform back of a sum of both fields' waves."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, rows: Tensor, multiplicity: Tensor):
        difference = torch.view_as_real(torch.fft.rfft(prediction - target))
        truth = torch.view_as_real(torch.fft.rfft(target))
        ctx.save_for_backward(difference, truth, rows)
        ctx.longitudes = prediction.shape[-1]
        # Coefficients are left as sums over longitude: scaling them would take a pass of its own.
        multiplicity = multiplicity / ctx.longitudes**2
        sums = difference.new_empty((4, *difference.shape[:2], *difference.shape[3:]))
        if _has_kernels(difference):
            _triton().power_sums(difference, truth, rows, sums)
        elif not difference.is_meta:
            d, t, weights = difference, truth, rows[..., None]
            for total, values in zip(sums, (d * d, d * (d + 2 * t), (d + t) ** 2, t * t), strict=True):
                total.copy_((values * weights).sum(dim=2))
        return tuple((sums.sum(dim=-1) * multiplicity).unbind())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, derror: Tensor, dgain: Tensor, dprediction: Tensor, dtarget: Tensor):
        difference, truth, rows = ctx.saved_tensors
        both = dgain + dprediction
        # Each coefficient of the transform back stands for its conjugate too: the multiplicity cancels.
        of_difference, of_truth = (2.0 / ctx.longitudes**2 * c for c in (derror + both, both))
        waves = torch.empty_like(difference)
        if _has_kernels(difference):
            _triton().combine(difference, truth, rows, of_difference, of_truth, waves)
        elif not difference.is_meta:
            a, b = (c[:, :, None, :, None] for c in (of_difference, of_truth))
            waves.copy_(rows[..., None] * (a * difference + b * truth))
        return waves_to_fields(torch.view_as_complex(waves), ctx.longitudes, "forward"), None, None, None


def _has_kernels(waves: Tensor) -> bool:
    return waves.is_cuda and waves.dtype == torch.float32 and has_triton()


def _triton() -> ModuleType:
    return importlib.import_module("weathermill.training.spectral_triton")
