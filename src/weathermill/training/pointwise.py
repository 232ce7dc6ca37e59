"""The loss of each cell, summed by channel, in one pass over the fields and one for the gradient."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weathermill.models.kernels import has_triton

if TYPE_CHECKING:
    from weathermill.training.losses import AreaWeightedLoss


def in_one_pass(prediction: Tensor, target: Tensor) -> bool:
    """Whether `measure_in_one_pass` takes these: float32 predictions on CUDA; meta tensors stand for those."""
    suited = prediction.dtype == torch.float32 and target.dtype != torch.float64 and not target.requires_grad
    return suited and (prediction.is_meta or (prediction.is_cuda and has_triton()))


def measure_in_one_pass(
    loss: AreaWeightedLoss, prediction: Tensor, target: Tensor, mask: Tensor | None, scale: Tensor | None
) -> Tensor:
    """Give what ``loss.pointwise`` does; see there."""
    mask = None if mask is None else mask.expand_as(prediction)
    return _Pointwise.apply(prediction, target, mask, scale, loss)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, mask, scale, loss: AreaWeightedLoss) -> Tensor:
        ctx.loss = loss
        sums, known = prediction.new_empty((2, prediction.shape[1])).unbind()
        if not prediction.is_meta:
            _triton().pointwise(prediction, target, mask, scale, loss, sums, known)
        cells = known.clamp_min(torch.finfo(known.dtype).tiny)
        ctx.save_for_backward(prediction, target, mask, scale, cells)
        return sums / cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dper_channel: Tensor):
        prediction, target, mask, scale, cells = ctx.saved_tensors
        dprediction = torch.empty_like(prediction, memory_format=torch.contiguous_format)
        if not prediction.is_meta:
            _triton().pointwise_backward(
                prediction, target, mask, scale, ctx.loss, dper_channel / cells, dprediction
            )
        return dprediction, None, None, None, None


def _triton() -> ModuleType:
    return importlib.import_module("weathermill.training.pointwise_triton")
