"""CUDA forms of `weathermill.training.advance`, in Triton.

The network's output lies channel-innermost, states lie longitude-innermost: tiles are turned in shared
memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.forecaster import Forecaster
from weathermill.models.kernels_triton import sum_partials
from weathermill.training.losses import KINDS, AreaWeightedLoss

PROGRAMS = 1056
BLOCK_J, BLOCK_C = 64, 32


@triton.jit
def _error_tile(
    output_ptr, state_ptr, target_ptr, ratio, b, i, j, c, channels, mask,
    s_b, s_c, s_i, s_j, t_b, t_c, t_i, t_j,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr, TENDENCY: tl.constexpr,
):  # fmt: skip
    """Error and next state of a tile of channels by longitudes."""
    cell = (b * ROWS + i + NORTH_MARGIN) * COLUMNS + j
    y = tl.load(output_ptr + cell[:, None] * channels + c[None, :], mask=tl.trans(mask), other=0.0)
    y = tl.trans(y).to(tl.float32)
    c_wide = c.to(tl.int64)[:, None]
    target = tl.load(target_ptr + b * t_b + c_wide * t_c + i * t_i + j[None, :] * t_j, mask=mask, other=0.0)
    target = target.to(tl.float32)
    if TENDENCY:
        state = tl.load(state_ptr + b * s_b + c_wide * s_c + i * s_i + j[None, :] * s_j, mask=mask, other=0.0)
        state = state.to(tl.float32)
        error = y - (target - state) / ratio[:, None]
        advanced = state + y * ratio[:, None]
    else:
        error = y - target
        advanced = y
    return error, advanced


@triton.jit
def _measure_kernel(
    output_ptr, state_ptr, target_ptr, ratio_ptr, area_ptr, next_ptr, partial_ptr,
    tiles, n, channels, s_b, s_c, s_i, s_j, t_b, t_c, t_i, t_j, a_i, a_j, delta,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr,
    TENDENCY: tl.constexpr, MEASURE: tl.constexpr, NEXT: tl.constexpr,
    BLOCK_J: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    ratio = tl.load(ratio_ptr + c, mask=c < n, other=1.0)
    across: tl.constexpr = (W + BLOCK_J - 1) // BLOCK_J
    total = tl.zeros([BLOCK_C], dtype=tl.float32)
    for turn in range(TURNS):
        tile = turn * tl.num_programs(0) + tl.program_id(0)
        row = tile // across
        b = (row // H).to(tl.int64)
        i = row % H
        j = (tile % across) * BLOCK_J + tl.arange(0, BLOCK_J)
        mask = (c < n)[:, None] & ((j < W) & (tile < tiles))[None, :]
        error, advanced = _error_tile(
            output_ptr, state_ptr, target_ptr, ratio, b, i, j, c, channels, mask,
            s_b, s_c, s_i, s_j, t_b, t_c, t_i, t_j, ROWS, COLUMNS, NORTH_MARGIN, TENDENCY,
        )  # fmt: skip
        area = tl.load(area_ptr + i * a_i + j * a_j, mask=(j < W) & (tile < tiles), other=0.0)
        if MEASURE == 0:
            value = error * error
        elif MEASURE == 1:
            value = tl.abs(error)
        else:
            size = tl.abs(error)
            value = tl.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
        total += tl.sum(tl.where(mask, value * area[None, :], 0.0), axis=1)
        if NEXT:
            place = next_ptr + ((b * n + c[:, None]) * H + i) * W + j[None, :]
            tl.store(place, advanced, mask=mask)
    tl.store(partial_ptr + tl.program_id(0) * n + c, total, mask=c < n)


@triton.jit
def _measure_backward_kernel(
    output_ptr, state_ptr, target_ptr, ratio_ptr, area_ptr, dper_ptr, dnext_ptr, doutput_ptr, dstate_ptr,
    n, n_dynamic, channels, s_b, s_c, s_i, s_j, t_b, t_c, t_i, t_j, d_b, d_c, d_i, d_j, a_i, a_j, delta, share,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr,
    TENDENCY: tl.constexpr, MEASURE: tl.constexpr, NEXT: tl.constexpr, STATE_GRADIENT: tl.constexpr,
    BLOCK_J: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(0) // ROWS).to(tl.int64)
    i = tl.program_id(0) % ROWS - NORTH_MARGIN
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (i >= 0) & (i < H)
    mask = (c < n)[:, None] & ((j < W) & inside)[None, :]
    ratio = tl.load(ratio_ptr + c, mask=c < n, other=1.0)
    error, _ = _error_tile(
        output_ptr, state_ptr, target_ptr, ratio, b, i, j, c, channels, mask,
        s_b, s_c, s_i, s_j, t_b, t_c, t_i, t_j, ROWS, COLUMNS, NORTH_MARGIN, TENDENCY,
    )  # fmt: skip
    area = tl.load(area_ptr + i * a_i + j * a_j, mask=(j < W) & inside, other=0.0) * share
    weight = tl.load(dper_ptr + c, mask=c < n, other=0.0)
    if MEASURE == 0:
        slope = 2.0 * error
    elif MEASURE == 1:
        slope = tl.where(error > 0.0, 1.0, tl.where(error < 0.0, -1.0, 0.0))
    else:
        slope = tl.minimum(tl.maximum(error, -delta), delta)
    gradient = slope * weight[:, None] * area[None, :]
    if NEXT:
        source = dnext_ptr + b * d_b + c[:, None].to(tl.int64) * d_c + i * d_i + j[None, :] * d_j
        dnext = tl.load(source, mask=mask, other=0.0)
        gradient += dnext * ratio[:, None] if TENDENCY else dnext
    gradient = tl.where(mask, gradient, 0.0)
    cell = (b * ROWS + i + NORTH_MARGIN) * COLUMNS + j
    target = doutput_ptr + cell[:, None] * channels + c[None, :]
    # Margins and padded channels get zeros: they are part of the network's output, not of the forecast.
    tl.store(
        target,
        tl.trans(gradient).to(doutput_ptr.dtype.element_ty),
        mask=(j < COLUMNS)[:, None] & (c < channels)[None, :],
    )
    if STATE_GRADIENT:
        place = dstate_ptr + ((b * n_dynamic + c[:, None]) * H + i) * W + j[None, :]
        back = gradient / ratio[:, None] if TENDENCY else gradient * 0.0
        tl.store(place, back, mask=(c < n_dynamic)[:, None] & ((j < W) & inside)[None, :])


def _constants(forecaster: Forecaster, loss: AreaWeightedLoss) -> tuple:
    rows, columns = forecaster.network.grid.padded_shape
    tendency = forecaster.config.target == "tendency"
    return (
        *forecaster.grid_shape, rows, columns, forecaster.network.grid.margins[0], tendency, KINDS.index(loss.kind),
    )  # fmt: skip


def _area_strides(loss: AreaWeightedLoss) -> tuple[int, int]:
    areas = loss.area_weights
    return tuple(0 if size == 1 else stride for size, stride in zip(areas.shape, areas.stride(), strict=True))


def measure(
    output: Tensor,
    state: Tensor,
    target: Tensor,
    forecaster: Forecaster,
    loss: AreaWeightedLoss,
    per_channel: Tensor,
    prognostic: Tensor | None,
) -> None:
    """Fill the loss of each channel and, unless None, the next state; see `advance`."""
    (h, w), n, batch = forecaster.grid_shape, forecaster.n_prognostic, state.shape[0]
    tiles = batch * h * triton.cdiv(w, BLOCK_J)
    programs = min(tiles, PROGRAMS)
    partial = torch.empty((programs, n), dtype=torch.float32, device=output.device)
    _measure_kernel[(programs, triton.cdiv(n, BLOCK_C))](
        output, state, target, forecaster.tendency_ratio, loss.area_weights,
        partial if prognostic is None else prognostic, partial,
        tiles, n, output.shape[-1], *state.stride(), *target.stride(), *_area_strides(loss), loss.delta,
        *_constants(forecaster, loss), prognostic is not None, BLOCK_J, BLOCK_C, triton.cdiv(tiles, programs),
    )  # fmt: skip
    sum_partials(partial, per_channel)
    per_channel.mul_(1.0 / (batch * h * w))


def measure_backward(
    output: Tensor,
    state: Tensor,
    target: Tensor,
    forecaster: Forecaster,
    loss: AreaWeightedLoss,
    dper_channel: Tensor,
    dnext: Tensor | None,
    doutput: Tensor,
    dstate: Tensor | None,
) -> None:
    """Fill the gradients of the output and, unless None, of the state; see `advance`."""
    (h, w), batch = forecaster.grid_shape, state.shape[0]
    rows, columns = forecaster.network.grid.padded_shape
    channels = output.shape[-1]
    last = max(channels, 0 if dstate is None else forecaster.n_dynamic)
    grid = batch * rows, triton.cdiv(columns, BLOCK_J), triton.cdiv(last, BLOCK_C)
    _measure_backward_kernel[grid](
        output, state, target, forecaster.tendency_ratio, loss.area_weights, dper_channel.contiguous(),
        output if dnext is None else dnext, doutput, output if dstate is None else dstate,
        forecaster.n_prognostic, forecaster.n_dynamic, channels, *state.stride(), *target.stride(),
        *((0, 0, 0, 0) if dnext is None else dnext.stride()), *_area_strides(loss), loss.delta,
        1.0 / (batch * h * w), *_constants(forecaster, loss), dnext is not None, dstate is not None,
        BLOCK_J, BLOCK_C,
    )  # fmt: skip
