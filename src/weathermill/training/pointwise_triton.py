"""CUDA forms of `weathermill.training.pointwise`, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.triton_halo import planes
from weathermill.models.triton_launch import launch, spread
from weathermill.models.triton_sums import sum_pairs
from weathermill.training.losses import KINDS, AreaWeightedLoss
from weathermill.training.measures_triton import area_strides, areas_of, measure_of, slope_of

BLOCK_P = 1024
PROGRAMS = 2112


@triton.jit
def _error_row(
    prediction_ptr, target_ptr, mask_ptr, scale, b, c, p, within, x_b, t_b, m_b,
    X_C: tl.constexpr, T_C: tl.constexpr, M_C: tl.constexpr,
    X_UNIT: tl.constexpr, T_UNIT: tl.constexpr, M_UNIT: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Scaled error of cells p of one channel, zero where unknown; and where it is known."""
    x = tl.load(prediction_ptr + b * x_b * X_UNIT + c * X_C + p, mask=within, other=0.0).to(tl.float32)
    t = tl.load(target_ptr + b * t_b * T_UNIT + c * T_C + p, mask=within, other=0.0).to(tl.float32)
    known = within
    if MASKED:
        known &= tl.load(mask_ptr + b * m_b * M_UNIT + c * M_C + p, mask=within, other=0) != 0
    return tl.where(known, (x - t) * scale, 0.0), known


@triton.jit
def _pointwise_kernel(
    prediction_ptr, target_ptr, mask_ptr, scale_ptr, area_ptr, partial_ptr, batch, n, x_b, t_b, m_b, a_i, a_j,
    delta, X_C: tl.constexpr, T_C: tl.constexpr, M_C: tl.constexpr,
    X_UNIT: tl.constexpr, T_UNIT: tl.constexpr, M_UNIT: tl.constexpr, MASKED: tl.constexpr,
    SCALED: tl.constexpr, H: tl.constexpr, W: tl.constexpr, MEASURE: tl.constexpr, BLOCK_P: tl.constexpr,
    TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1).to(tl.int64)
    scale = 1.0
    if SCALED:
        scale = tl.load(scale_ptr + c)
    tiles: tl.constexpr = (H * W + BLOCK_P - 1) // BLOCK_P
    total = tl.zeros([BLOCK_P], dtype=tl.float32)
    cells = tl.zeros([BLOCK_P], dtype=tl.float32)
    for turn in range(TURNS):
        tile = turn * tl.num_programs(0) + tl.program_id(0)
        b = (tile // tiles).to(tl.int64)
        p = (tile % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
        error, known = _error_row(
            prediction_ptr, target_ptr, mask_ptr, scale, b, c, p, (p < H * W) & (b < batch), x_b, t_b, m_b,
            X_C, T_C, M_C, X_UNIT, T_UNIT, M_UNIT, MASKED,
        )  # fmt: skip
        area = areas_of(area_ptr, p, a_i, a_j, p < H * W, W)
        value = measure_of(error, delta, MEASURE)
        total += value * area
        cells += tl.where(known, area, 0.0)
    place = partial_ptr + tl.program_id(0) * 2 * n + c
    tl.store(place, tl.sum(total, axis=0))
    tl.store(place + n, tl.sum(cells, axis=0))


@triton.jit
def _pointwise_backward_kernel(
    prediction_ptr, target_ptr, mask_ptr, scale_ptr, area_ptr, weight_ptr, gradient_ptr, n,
    x_b, t_b, m_b, a_i, a_j, delta, X_C: tl.constexpr, T_C: tl.constexpr, M_C: tl.constexpr,
    X_UNIT: tl.constexpr, T_UNIT: tl.constexpr, M_UNIT: tl.constexpr, MASKED: tl.constexpr,
    SCALED: tl.constexpr, H: tl.constexpr, W: tl.constexpr, MEASURE: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1).to(tl.int64)
    scale = 1.0
    if SCALED:
        scale = tl.load(scale_ptr + c)
    tiles: tl.constexpr = (H * W + BLOCK_P - 1) // BLOCK_P
    b = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    within = p < H * W
    error, _ = _error_row(
        prediction_ptr, target_ptr, mask_ptr, scale, b, c, p, within, x_b, t_b, m_b,
        X_C, T_C, M_C, X_UNIT, T_UNIT, M_UNIT, MASKED,
    )  # fmt: skip
    slope = slope_of(error, delta, MEASURE)
    area = areas_of(area_ptr, p, a_i, a_j, within, W)
    # An unknown cell's error is zero, and so is its slope.
    gradient = slope * (tl.load(weight_ptr + c) * scale) * area
    tl.store(gradient_ptr + (b * n + c) * (H * W) + p, gradient, mask=within)


def _arguments(
    prediction: Tensor, target: Tensor, mask: Tensor | None, scale: Tensor | None, loss: AreaWeightedLoss
):
    """Tensors, their batch strides, and what kernels are compiled for."""
    x, x_b, x_c, x_unit = planes(prediction)
    t, t_b, t_c, t_unit = planes(target)
    m, m_b, m_c, m_unit = (x, 0, 0, 1) if mask is None else planes(mask.contiguous().view(torch.uint8))
    tensors = (x, t, m, x if scale is None else scale, loss.area_weights)
    constants = (
        x_c, t_c, m_c, x_unit, t_unit, m_unit, mask is not None, scale is not None, *prediction.shape[2:],
        KINDS.index(loss.kind), BLOCK_P,
    )  # fmt: skip
    return tensors, (x_b, t_b, m_b, *area_strides(loss), loss.delta), constants


def pointwise(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
    scale: Tensor | None,
    loss: AreaWeightedLoss,
    sums: Tensor,
    known: Tensor,
) -> None:
    """Fill the sums over cells of each channel's area-weighted loss, and of the areas where it is known."""
    batch, n, h, w = prediction.shape
    tensors, strides, constants = _arguments(prediction, target, mask, scale, loss)
    programs, turns = spread(batch * triton.cdiv(h * w, BLOCK_P), max(1, PROGRAMS // n))
    partial = torch.empty((programs, 2, n), dtype=torch.float32, device=prediction.device)
    launch(_pointwise_kernel, (programs, n), *tensors, partial, batch, n, *strides, *constants, turns)
    sum_pairs(partial, sums, known)


def pointwise_backward(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
    scale: Tensor | None,
    loss: AreaWeightedLoss,
    weights: Tensor,
    dprediction: Tensor,
) -> None:
    """Fill the gradient of the prediction, where channels weigh `weights` (channel,)."""
    batch, n, h, w = prediction.shape
    tensors, strides, constants = _arguments(prediction, target, mask, scale, loss)
    launch(_pointwise_backward_kernel, (batch * triton.cdiv(h * w, BLOCK_P), n),
        *tensors, weights.contiguous(), dprediction, n, *strides, *constants,
    )  # fmt: skip
