"""CUDA forms of `weathermill.training.advance`, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.forecaster import Forecaster
from weathermill.models.triton_advance import (
    BLOCK_C,
    BLOCK_P,
    cells_of,
    clear_margins,
    output_tile,
    padded_constants,
    residual_tile,
    store_output_gradient,
    tiles_of,
)
from weathermill.models.triton_halo import planes
from weathermill.models.triton_launch import launch, spread
from weathermill.models.triton_sums import sum_partials
from weathermill.training.losses import KINDS, AreaWeightedLoss
from weathermill.training.measures_triton import area_strides, areas_of, measure_of, slope_of

PROGRAMS = 1056


@triton.jit
def _error_tile(
    output_ptr, state_ptr, target_ptr, offset_ptr, ratio, kept, factor, b, p, c, cell, mask, within, s_b, t_b,
    S_C: tl.constexpr, T_C: tl.constexpr, S_UNIT: tl.constexpr, T_UNIT: tl.constexpr, CHANNELS: tl.constexpr,
    CELLS: tl.constexpr, TENDENCY: tl.constexpr, DAMPED: tl.constexpr,
):  # fmt: skip
    """Error and next state of a tile of channels by cells."""
    y = output_tile(output_ptr, cell, c, within, CHANNELS)
    c_wide = c.to(tl.int64)[:, None]
    target = tl.load(target_ptr + b * t_b * T_UNIT + c_wide * T_C + p[None, :], mask=mask, other=0.0)
    target = target.to(tl.float32)
    if TENDENCY:
        state = residual_tile(
            state_ptr, offset_ptr, kept, b, p, c_wide, mask, s_b, S_C, S_UNIT, CELLS, DAMPED
        )
        error = y - (target - state) * (1.0 / ratio)[:, None]
        advanced = state + y * ratio[:, None]
    else:
        error = y - target
        advanced = y
    return error * factor[:, None], advanced


@triton.jit
def _measure_kernel(
    output_ptr, state_ptr, target_ptr, ratio_ptr, kept_ptr, offset_ptr, factor_ptr, area_ptr, next_ptr, partial_ptr,
    batch, n, s_b, t_b, a_i, a_j, delta,
    S_C: tl.constexpr, T_C: tl.constexpr, S_UNIT: tl.constexpr, T_UNIT: tl.constexpr, CHANNELS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr,
    TENDENCY: tl.constexpr, DAMPED: tl.constexpr, MEASURE: tl.constexpr, NEXT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    ratio = tl.load(ratio_ptr + c, mask=c < n, other=1.0)
    kept = tl.load(kept_ptr + c, mask=c < n, other=1.0)
    factor = tl.load(factor_ptr + c, mask=c < n, other=1.0)
    tiles: tl.constexpr = (H * W + BLOCK_P - 1) // BLOCK_P
    total = tl.zeros([BLOCK_C, BLOCK_P], dtype=tl.float32)
    for turn in range(TURNS):
        tile = turn * tl.num_programs(0) + tl.program_id(0)
        b = (tile // tiles).to(tl.int64)
        p = (tile % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
        within = (p < H * W) & (b < batch)
        mask = (c < n)[:, None] & within[None, :]
        cell = cells_of(b, p, W, ROWS, COLUMNS, NORTH_MARGIN)
        error, advanced = _error_tile(
            output_ptr, state_ptr, target_ptr, offset_ptr, ratio, kept, factor, b, p, c, cell, mask, within,
            s_b, t_b, S_C, T_C, S_UNIT, T_UNIT, CHANNELS, H * W, TENDENCY, DAMPED,
        )  # fmt: skip
        area = areas_of(area_ptr, p, a_i, a_j, p < H * W, W)
        value = measure_of(error, delta, MEASURE)
        total += tl.where(mask, value * area[None, :], 0.0)
        if NEXT:
            place = next_ptr + (b * n + c[:, None]) * (H * W) + p[None, :]
            tl.store(place, advanced, mask=mask)
    tl.store(partial_ptr + tl.program_id(0) * n + c, tl.sum(total, axis=1), mask=c < n)


@triton.jit
def _measure_backward_kernel(
    output_ptr, state_ptr, target_ptr, ratio_ptr, kept_ptr, offset_ptr, factor_ptr, area_ptr, dper_ptr, dnext_ptr, doutput_ptr, dstate_ptr,
    n, n_dynamic, s_b, t_b, a_i, a_j, delta, share,
    S_C: tl.constexpr, T_C: tl.constexpr, S_UNIT: tl.constexpr, T_UNIT: tl.constexpr, CHANNELS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr,
    TENDENCY: tl.constexpr, DAMPED: tl.constexpr, MEASURE: tl.constexpr, NEXT: tl.constexpr, STATE_GRADIENT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (H * W + BLOCK_P - 1) // BLOCK_P
    b = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (c < n)[:, None] & (p < H * W)[None, :]
    ratio = tl.load(ratio_ptr + c, mask=c < n, other=1.0)
    kept = tl.load(kept_ptr + c, mask=c < n, other=1.0)
    factor = tl.load(factor_ptr + c, mask=c < n, other=1.0)
    cell = cells_of(b, p, W, ROWS, COLUMNS, NORTH_MARGIN)
    error, _ = _error_tile(
        output_ptr, state_ptr, target_ptr, offset_ptr, ratio, kept, factor, b, p, c, cell, mask, p < H * W,
        s_b, t_b, S_C, T_C, S_UNIT, T_UNIT, CHANNELS, H * W, TENDENCY, DAMPED,
    )  # fmt: skip
    area = areas_of(area_ptr, p, a_i, a_j, p < H * W, W) * share
    weight = tl.load(dper_ptr + c, mask=c < n, other=0.0)
    slope = slope_of(error, delta, MEASURE)
    gradient = slope * (weight * factor)[:, None] * area[None, :]
    if NEXT:
        dnext = tl.load(dnext_ptr + (b * n + c[:, None]) * (H * W) + p[None, :], mask=mask, other=0.0)
        gradient += dnext * ratio[:, None] if TENDENCY else dnext
    gradient = tl.where(mask, gradient, 0.0)
    store_output_gradient(doutput_ptr, gradient, cell, c, p < H * W, CHANNELS)
    if STATE_GRADIENT:
        back = gradient * (kept / ratio)[:, None] if TENDENCY else gradient * 0.0
        place = dstate_ptr + (b * n_dynamic + c[:, None]) * (H * W) + p[None, :]
        tl.store(place, back, mask=(c < n_dynamic)[:, None] & (p < H * W)[None, :])


def _constants(state: Tensor, target: Tensor, channels: int, forecaster: Forecaster, loss: AreaWeightedLoss):
    """Fields with contiguous planes, their batch strides, and what the kernels are compiled for."""
    state, s_b, s_c, s_unit = planes(state)
    target, t_b, t_c, t_unit = planes(target)
    tendency = forecaster.config.target == "tendency"
    constants = (
        s_c, t_c, s_unit, t_unit, *padded_constants(forecaster, channels), tendency,
        forecaster.residual.damped, KINDS.index(loss.kind),
    )  # fmt: skip
    return state, target, (s_b, t_b), constants


def measure(
    output: Tensor,
    state: Tensor,
    target: Tensor,
    forecaster: Forecaster,
    loss: AreaWeightedLoss,
    factor: Tensor,
    per_channel: Tensor,
    prognostic: Tensor | None,
) -> None:
    """Fill the loss of each channel and, unless None, the next state; see `advance`."""
    (h, w), n, batch = forecaster.grid_shape, forecaster.n_prognostic, state.shape[0]
    state, target, strides, constants = _constants(state, target, output.shape[-1], forecaster, loss)
    tiles = batch * triton.cdiv(h * w, BLOCK_P)
    programs, turns = spread(tiles, PROGRAMS)
    partial = torch.empty((programs, n), dtype=torch.float32, device=output.device)
    launch(_measure_kernel, (programs, triton.cdiv(n, BLOCK_C)),
        output, state, target, forecaster.tendency_ratio, forecaster.residual.kept, forecaster.residual.offset, factor, loss.area_weights,
        partial if prognostic is None else prognostic, partial,
        batch, n, *strides, *area_strides(loss), loss.delta, *constants, prognostic is not None,
        BLOCK_P, BLOCK_C, turns,
    )  # fmt: skip
    sum_partials(partial, per_channel)
    per_channel.mul_(1.0 / (batch * h * w))


def measure_backward(
    output: Tensor,
    state: Tensor,
    target: Tensor,
    forecaster: Forecaster,
    loss: AreaWeightedLoss,
    factor: Tensor,
    dper_channel: Tensor,
    dnext: Tensor | None,
    doutput: Tensor,
    dstate: Tensor | None,
) -> None:
    """Fill the gradients of the output and, unless None, of the state; see `advance`."""
    (h, w), batch = forecaster.grid_shape, state.shape[0]
    channels = output.shape[-1]
    state, target, strides, constants = _constants(state, target, channels, forecaster, loss)
    clear_margins(doutput, forecaster)
    last = max(channels, 0 if dstate is None else forecaster.n_dynamic)
    launch(_measure_backward_kernel, tiles_of(forecaster, batch, last),
        output, state, target, forecaster.tendency_ratio, forecaster.residual.kept, forecaster.residual.offset, factor, loss.area_weights, dper_channel.contiguous(),
        output if dnext is None else dnext.contiguous(), doutput, output if dstate is None else dstate,
        forecaster.n_prognostic, forecaster.n_dynamic, *strides, *area_strides(loss), loss.delta,
        1.0 / (batch * h * w), *constants, dnext is not None, dstate is not None, BLOCK_P, BLOCK_C,
    )  # fmt: skip
