"""CUDA forms of batch normalisation with its ReLU and pooling, forward and backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.triton_launch import (
    FINISH_CHANNELS,
    FINISH_PARTIALS,
    SUM_TILE_ELEMENTS,
    TILE_ELEMENTS,
    channel_block,
    launch,
    offsets_of,
    strides_of,
    sum_grid,
    tile_of,
    turns_of,
)
from weathermill.models.triton_sums import sum_pairs


@triton.jit
def _moment_sums_kernel(
    y_ptr, partial_ptr, cells, channels, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr
):
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    # Squares are summed about a value of the image itself, so that a large mean does not cancel.
    pivot = tl.load(y_ptr + c, mask=channel, other=0.0).to(tl.float32)
    first = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    second = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    for turn in tl.range(TURNS, loop_unroll_factor=4):
        m = (turn * tl.num_programs(0) + tl.program_id(0)) * BLOCK_M + tl.arange(0, BLOCK_M)
        mask = (m < cells)[:, None] & channel[None, :]
        values = tl.load(y_ptr + m[:, None].to(tl.int64) * channels + c[None, :], mask=mask, other=0.0)
        d = tl.where(mask, values.to(tl.float32) - pivot[None, :], 0.0)
        first += d
        second += d * d
    target = partial_ptr + tl.program_id(0) * 2 * channels + c
    tl.store(target, tl.sum(first, axis=0), mask=channel)
    tl.store(target + channels, tl.sum(second, axis=0), mask=channel)


@triton.jit
def _moment_finish_kernel(
    y_ptr, partial_ptr, gamma_ptr, beta_ptr, bias_ptr, running_mean_ptr, running_var_ptr,
    mean_ptr, rstd_ptr, scale_ptr, shift_ptr, programs, cells, channels, momentum, eps,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    first_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    second_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for turn in range(TURNS):
        p = turn * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < programs)[:, None] & channel[None, :]
        source = partial_ptr + p[:, None] * 2 * channels + c[None, :]
        first_sums += tl.load(source, mask=mask, other=0.0)
        second_sums += tl.load(source + channels, mask=mask, other=0.0)
    first = tl.sum(first_sums, axis=0)
    second = tl.sum(second_sums, axis=0)
    pivot = tl.load(y_ptr + c, mask=channel, other=0.0).to(tl.float32)
    offset = first / cells
    mean = pivot + offset
    variance = tl.maximum(second / cells - offset * offset, 0.0)
    rstd = 1.0 / tl.sqrt(variance + eps)
    scale = tl.load(gamma_ptr + c, mask=channel, other=0.0).to(tl.float32) * rstd
    shift = tl.load(beta_ptr + c, mask=channel, other=0.0).to(tl.float32) - mean * scale
    tl.store(mean_ptr + c, mean, mask=channel)
    tl.store(rstd_ptr + c, rstd, mask=channel)
    tl.store(scale_ptr + c, scale, mask=channel)
    tl.store(shift_ptr + c, shift, mask=channel)
    if momentum > 0.0:
        bias = tl.load(bias_ptr + c, mask=channel, other=0.0).to(tl.float32)
        running_mean = tl.load(running_mean_ptr + c, mask=channel, other=0.0)
        running_var = tl.load(running_var_ptr + c, mask=channel, other=0.0)
        unbiased = variance * (cells / tl.maximum(cells - 1.0, 1.0))
        tl.store(running_mean_ptr + c, running_mean + momentum * (mean + bias - running_mean), mask=channel)
        tl.store(running_var_ptr + c, running_var + momentum * (unbiased - running_var), mask=channel)


def moments(y, gamma, beta, bias, running, momentum, eps, result) -> None:
    """See `kernels.moments`."""
    channels = y.shape[-1]
    cells = y.numel() // channels
    block_m, block_c, grid = sum_grid(cells, channels)
    partial = torch.empty((grid[0], 2, channels), dtype=torch.float32, device=y.device)
    launch(
        _moment_sums_kernel,
        grid,
        y,
        partial,
        cells,
        channels,
        block_m,
        block_c,
        turns_of(cells, block_m, grid),
    )
    launch(_moment_finish_kernel, (triton.cdiv(channels, FINISH_CHANNELS),),
        y, partial, gamma, beta, bias, *running, result.mean, result.rstd, result.scale, result.shift,
        grid[0], float(cells), channels, float(momentum), float(eps),
        FINISH_PARTIALS, FINISH_CHANNELS, triton.cdiv(grid[0], FINISH_PARTIALS), num_warps=8,
    )  # fmt: skip


@triton.jit
def _rectify_kernel(
    y_ptr, scale_ptr, shift_ptr, z_ptr, cells, channels, s_n, s_i, s_j,
    COLUMNS: tl.constexpr, CELLS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    mask = (m < cells)[:, None] & channel[None, :]
    scale = tl.load(scale_ptr + c, mask=channel, other=0.0)
    shift = tl.load(shift_ptr + c, mask=channel, other=0.0)
    y = tl.load(y_ptr + m[:, None].to(tl.int64) * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
    z = tl.maximum(y * scale[None, :] + shift[None, :], 0.0, propagate_nan=tl.PropagateNan.ALL)
    target = z_ptr + offsets_of(m, COLUMNS, CELLS, s_n, s_i, s_j)[:, None] + c[None, :]
    tl.store(target, z.to(z_ptr.dtype.element_ty), mask=mask)


def rectify(y: Tensor, m, target: Tensor) -> None:
    """See `kernels.rectify`; `target` is a view of the shape of y."""
    n, rows, columns, channels = y.shape
    cells = n * rows * columns
    block_m, block_c, grid = tile_of(cells, channels)
    launch(
        _rectify_kernel,
        grid,
        y,
        m.scale,
        m.shift,
        target,
        cells,
        channels,
        *strides_of(target),
        columns,
        rows * columns,
        block_m,
        block_c,
    )


@triton.jit
def _rectify_pool_kernel(
    y_ptr, scale_ptr, shift_ptr, skip_ptr, pooled_ptr, pooled_cells, channels,
    s_n, s_i, s_j, p_n, p_i, p_j,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = COLUMNS // 2
    pooled_image: tl.constexpr = (ROWS // 2) * half
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    mask = (m < pooled_cells)[:, None] & channel[None, :]
    scale = tl.load(scale_ptr + c, mask=channel, other=0.0)[None, :]
    shift = tl.load(shift_ptr + c, mask=channel, other=0.0)[None, :]
    n = (m // pooled_image).to(tl.int64)
    cell = m % pooled_image
    i, j = cell // half, cell % half
    source = y_ptr + (((n * ROWS + 2 * i) * COLUMNS + 2 * j) * channels)[:, None] + c[None, :]
    target = skip_ptr + (n * s_n + 2 * i * s_i + 2 * j * s_j)[:, None] + c[None, :]
    largest = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    for corner in tl.static_range(4):
        shifted = source + ((corner // 2) * COLUMNS + corner % 2) * channels
        y = tl.load(shifted, mask=mask, other=0.0).to(tl.float32)
        # What is no number must stay so, for the watchdog to see it.
        z = tl.maximum(y * scale + shift, 0.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(
            target + (corner // 2) * s_i + (corner % 2) * s_j, z.to(skip_ptr.dtype.element_ty), mask=mask
        )
        largest = tl.maximum(largest, z, propagate_nan=tl.PropagateNan.ALL)
    pooled = pooled_ptr + (n * p_n + i * p_i + j * p_j)[:, None] + c[None, :]
    tl.store(pooled, largest.to(pooled_ptr.dtype.element_ty), mask=mask)


def rectify_pool(y: Tensor, m, skip: Tensor, pooled: Tensor) -> None:
    """See `kernels.rectify_pool`; fills the interiors alone."""
    n, rows, columns, channels = y.shape
    cells = n * rows * columns // 4
    block_c = channel_block(channels)
    block_m = max(TILE_ELEMENTS // 4 // block_c, 16)
    grid = (triton.cdiv(cells, block_m), triton.cdiv(channels, block_c))
    launch(_rectify_pool_kernel, grid,
        y, m.scale, m.shift, skip, pooled, cells, channels, *strides_of(skip), *strides_of(pooled),
        rows, columns, block_m, block_c,
    )  # fmt: skip


@triton.jit
def _pooled_gradient(y0, y1, y2, y3, scale, shift, dpooled, CORNER: tl.constexpr, DTYPE: tl.constexpr):
    """Share of one corner in the gradient of the maximum over a window: all, if it is the first of the largest."""
    z0 = tl.maximum(y0 * scale + shift, 0.0).to(DTYPE).to(tl.float32)
    z1 = tl.maximum(y1 * scale + shift, 0.0).to(DTYPE).to(tl.float32)
    z2 = tl.maximum(y2 * scale + shift, 0.0).to(DTYPE).to(tl.float32)
    z3 = tl.maximum(y3 * scale + shift, 0.0).to(DTYPE).to(tl.float32)
    if CORNER == 0:
        wins = (z0 >= z1) & (z0 >= z2) & (z0 >= z3)
    elif CORNER == 1:
        wins = (z1 > z0) & (z1 >= z2) & (z1 >= z3)
    elif CORNER == 2:
        wins = (z2 > z0) & (z2 > z1) & (z2 >= z3)
    else:
        wins = (z3 > z0) & (z3 > z1) & (z3 > z2)
    return tl.where(wins, dpooled, 0.0)


@triton.jit
def _rectify_backward_sums_kernel(
    y_ptr, scale_ptr, shift_ptr, mean_ptr, rstd_ptr, dz_ptr, dpooled_ptr, partial_ptr, cells, channels,
    s_n, s_i, s_j, p_n, p_i, p_j,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, POOLED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    scale = tl.load(scale_ptr + c, mask=channel, other=0.0)[None, :]
    shift = tl.load(shift_ptr + c, mask=channel, other=0.0)[None, :]
    mean = tl.load(mean_ptr + c, mask=channel, other=0.0)[None, :]
    first = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    second = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    for turn in tl.range(TURNS, loop_unroll_factor=UNROLL):
        m = (turn * tl.num_programs(0) + tl.program_id(0)) * BLOCK_M + tl.arange(0, BLOCK_M)
        mask = (m < cells)[:, None] & channel[None, :]
        if POOLED:
            half: tl.constexpr = COLUMNS // 2
            image: tl.constexpr = (ROWS // 2) * half
            n = (m // image).to(tl.int64)
            cell = m % image
            i, j = cell // half, cell % half
            source = y_ptr + (((n * ROWS + 2 * i) * COLUMNS + 2 * j) * channels)[:, None] + c[None, :]
            dz = dz_ptr + (n * s_n + 2 * i * s_i + 2 * j * s_j)[:, None] + c[None, :]
            dp = tl.load(
                dpooled_ptr + (n * p_n + i * p_i + j * p_j)[:, None] + c[None, :], mask=mask, other=0.0
            )
            dp = dp.to(tl.float32)
            y0 = tl.load(source, mask=mask, other=0.0).to(tl.float32)
            y1 = tl.load(source + channels, mask=mask, other=0.0).to(tl.float32)
            y2 = tl.load(source + COLUMNS * channels, mask=mask, other=0.0).to(tl.float32)
            y3 = tl.load(source + (COLUMNS + 1) * channels, mask=mask, other=0.0).to(tl.float32)
            for corner in tl.static_range(4):
                g = tl.load(dz + (corner // 2) * s_i + (corner % 2) * s_j, mask=mask, other=0.0).to(
                    tl.float32
                )
                g += _pooled_gradient(y0, y1, y2, y3, scale, shift, dp, corner, y_ptr.dtype.element_ty)
                if corner == 0:
                    y = y0
                elif corner == 1:
                    y = y1
                elif corner == 2:
                    y = y2
                else:
                    y = y3
                g = tl.where(mask & (y * scale + shift > 0.0), g, 0.0)
                first += g
                second += g * (y - mean)
        else:
            y = tl.load(y_ptr + m[:, None].to(tl.int64) * channels + c[None, :], mask=mask, other=0.0).to(
                tl.float32
            )
            dz = dz_ptr + offsets_of(m, COLUMNS, ROWS * COLUMNS, s_n, s_i, s_j)[:, None] + c[None, :]
            g = tl.load(dz, mask=mask, other=0.0).to(tl.float32)
            g = tl.where(mask & (y * scale + shift > 0.0), g, 0.0)
            first += g
            second += g * (y - mean)
    rstd = tl.load(rstd_ptr + c, mask=channel, other=0.0)
    target = partial_ptr + tl.program_id(0) * 2 * channels + c
    tl.store(target, tl.sum(first, axis=0), mask=channel)
    tl.store(target + channels, tl.sum(second, axis=0) * rstd, mask=channel)


@triton.jit
def _rectify_backward_kernel(
    y_ptr, scale_ptr, shift_ptr, mean_ptr, rstd_ptr, dgamma_ptr, dbeta_ptr, dz_ptr, dpooled_ptr, dy_ptr,
    cells, channels, count, s_n, s_i, s_j, p_n, p_i, p_j,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, POOLED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    scale = tl.load(scale_ptr + c, mask=channel, other=0.0)[None, :]
    shift = tl.load(shift_ptr + c, mask=channel, other=0.0)[None, :]
    mean = tl.load(mean_ptr + c, mask=channel, other=0.0)[None, :]
    rstd = tl.load(rstd_ptr + c, mask=channel, other=0.0)[None, :]
    slope = tl.load(dgamma_ptr + c, mask=channel, other=0.0)[None, :] / count * rstd
    level = tl.load(dbeta_ptr + c, mask=channel, other=0.0)[None, :] / count
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask = (m < cells)[:, None] & channel[None, :]
    kind = dy_ptr.dtype.element_ty
    if POOLED:
        half: tl.constexpr = COLUMNS // 2
        image: tl.constexpr = (ROWS // 2) * half
        n = (m // image).to(tl.int64)
        cell = m % image
        i, j = cell // half, cell % half
        offset = (((n * ROWS + 2 * i) * COLUMNS + 2 * j) * channels)[:, None] + c[None, :]
        dz = dz_ptr + (n * s_n + 2 * i * s_i + 2 * j * s_j)[:, None] + c[None, :]
        dp = tl.load(dpooled_ptr + (n * p_n + i * p_i + j * p_j)[:, None] + c[None, :], mask=mask, other=0.0)
        dp = dp.to(tl.float32)
        y0 = tl.load(y_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        y1 = tl.load(y_ptr + offset + channels, mask=mask, other=0.0).to(tl.float32)
        y2 = tl.load(y_ptr + offset + COLUMNS * channels, mask=mask, other=0.0).to(tl.float32)
        y3 = tl.load(y_ptr + offset + (COLUMNS + 1) * channels, mask=mask, other=0.0).to(tl.float32)
        for corner in tl.static_range(4):
            g = tl.load(dz + (corner // 2) * s_i + (corner % 2) * s_j, mask=mask, other=0.0).to(tl.float32)
            g += _pooled_gradient(y0, y1, y2, y3, scale, shift, dp, corner, kind)
            if corner == 0:
                y = y0
            elif corner == 1:
                y = y1
            elif corner == 2:
                y = y2
            else:
                y = y3
            g = tl.where(y * scale + shift > 0.0, g, 0.0)
            dy = scale * (g - level - (y - mean) * slope)
            place = dy_ptr + offset + ((corner // 2) * COLUMNS + corner % 2) * channels
            tl.store(place, dy.to(kind), mask=mask)
    else:
        offset = m[:, None].to(tl.int64) * channels + c[None, :]
        y = tl.load(y_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        dz = dz_ptr + offsets_of(m, COLUMNS, ROWS * COLUMNS, s_n, s_i, s_j)[:, None] + c[None, :]
        g = tl.load(dz, mask=mask, other=0.0).to(tl.float32)
        g = tl.where(y * scale + shift > 0.0, g, 0.0)
        dy = scale * (g - level - (y - mean) * slope)
        tl.store(dy_ptr + offset, dy.to(kind), mask=mask)


def rectify_backward(y, m, gamma, dz, dpooled, dy, dgamma, dbeta) -> None:
    """See `kernels.rectify_backward`."""
    n, rows, columns, channels = y.shape
    pooled = dpooled is not None
    cells = n * rows * columns // (4 if pooled else 1)
    # A pooled tile holds four cells of the image for each of its own.
    share = 4 if pooled else 1
    block_m, block_c, grid = sum_grid(cells, channels, SUM_TILE_ELEMENTS // (2 if pooled else 1))
    partial = torch.empty((grid[0], 2, channels), dtype=torch.float32, device=y.device)
    strides = (*strides_of(dz), *(strides_of(dpooled) if pooled else (0, 0, 0)))
    source = dpooled if pooled else dz
    launch(_rectify_backward_sums_kernel, grid,
        y, m.scale, m.shift, m.mean, m.rstd, dz, source, partial, cells, channels, *strides,
        rows, columns, pooled, block_m, block_c, turns_of(cells, block_m, grid), 1 if pooled else 2,
    )  # fmt: skip
    sum_pairs(partial, dbeta, dgamma)
    block_m, block_c, grid = tile_of(cells, channels, TILE_ELEMENTS // share)
    launch(_rectify_backward_kernel, grid,
        y, m.scale, m.shift, m.mean, m.rstd, dgamma, dbeta, dz, source, dy, cells, channels,
        float(n * rows * columns), *strides, rows, columns, pooled, block_m, block_c,
    )  # fmt: skip
