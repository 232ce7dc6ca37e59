"""CUDA forms of `weathermill.models.kernels`, in Triton; see there for what each one computes.

All of these are bound by memory: each reads and writes an image once, in 16-byte pieces, with a tile of cells
by channels a program. Sums go through one partial sum a program and a second small kernel, never through
atomics, so that they repeat to the bit.
"""

# Triton compiles these bodies: constants are upper case there, and the names of pointers end in _ptr.

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime._async_compile import AsyncCompileMode, active_mode

from weathermill.models.sphere import Halo, SphereGrid

TILE_ELEMENTS = 4096
# Sums keep one number a cell of the tile in registers, so their tiles are smaller.
SUM_TILE_ELEMENTS = 2048
SUM_PROGRAMS = 1056
FINISH_PARTIALS, FINISH_CHANNELS = 512, 8


_ahead: Any = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch a kernel; within `compiling_ahead`, only begin to compile it."""
    if _ahead is None:
        kernel[grid](*arguments, **options)
        return
    # A context variable, and the backward pass runs in a thread of its own: set here, not once.
    token = active_mode.set(_ahead)
    try:
        kernel.run(*arguments, grid=grid, warmup=True, **options)
    finally:
        active_mode.reset(token)


@contextlib.contextmanager
def compiling_ahead(threads: int) -> Iterator[None]:
    """Inside, kernels are not run but compiled, many at a time; at the end all are ready.

    One at a time, the kernels of a grid take most of a minute to compile, the first time on a machine.
    """
    global _ahead
    with ThreadPoolExecutor(threads) as executor:
        mode = AsyncCompileMode(executor, ignore_errors=True)
        _ahead = mode
        try:
            yield
        finally:
            _ahead = None
            for kernel in mode.future_kernels.values():
                kernel.result(ignore_errors=True)


def _channel_block(channels: int, largest: int = 128) -> int:
    return min(triton.next_power_of_2(channels), largest)


def _tile(cells: int, channels: int, elements: int = TILE_ELEMENTS) -> tuple[int, int, tuple[int, int]]:
    """Cells and channels of a tile, and the grid of tiles over an image."""
    block_c = _channel_block(channels)
    block_m = max(elements // block_c, 16)
    return block_m, block_c, (triton.cdiv(cells, block_m), triton.cdiv(channels, block_c))


def _sum_grid(
    cells: int, channels: int, elements: int = SUM_TILE_ELEMENTS
) -> tuple[int, int, tuple[int, int]]:
    block_m, block_c, (tiles, blocks) = _tile(cells, channels, elements)
    return block_m, block_c, (spread(tiles, SUM_PROGRAMS // blocks)[0], blocks)


def spread(tiles: int, programs: int) -> tuple[int, int]:
    """Programs, about as many as given, and the tiles that each takes: a power of two, so that few forms compile."""
    turns = triton.next_power_of_2(triton.cdiv(tiles, programs))
    return triton.cdiv(tiles, turns), turns


def _turns(cells: int, block_m: int, grid: tuple[int, int]) -> int:
    """Tiles that each program of a sum takes."""
    return triton.next_power_of_2(triton.cdiv(triton.cdiv(cells, block_m), grid[0]))


def _strides(view: Tensor) -> tuple[int, int, int]:
    """Batch, row and column strides of a channel-innermost view."""
    if view.stride(3) != 1:
        raise ValueError(f"channels must be innermost; strides are {view.stride()}")
    return view.stride(0), view.stride(1), view.stride(2)


@triton.jit
def _offsets(m, COLUMNS: tl.constexpr, CELLS: tl.constexpr, s_n, s_i, s_j):
    """Offset of flat cell m of images of CELLS cells in a strided view."""
    n = m // CELLS
    cell = m - n * CELLS
    i = cell // COLUMNS
    j = cell - i * COLUMNS
    return n.to(tl.int64) * s_n + i * s_i + j * s_j


@triton.jit
def _fill_halo_kernel(
    buffer_ptr, channels, stride_cell,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH: tl.constexpr, SOUTH: tl.constexpr,
    WEST: tl.constexpr, EAST: tl.constexpr, SHIFT: tl.constexpr, ZEROS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    # Order of the border: first row, last row, first column, last column (the columns without the corners).
    width: tl.constexpr = COLUMNS + 2
    in_rows = m < 2 * width
    side = m - 2 * width
    i = tl.where(in_rows, (m // width) * (ROWS + 1), side // 2 + 1)
    j = tl.where(in_rows, m % width, (side % 2) * (COLUMNS + 1))
    inside = m < 2 * width + 2 * ROWS
    base = buffer_ptr + n * (ROWS + 2) * width * stride_cell
    target = base + (i * width + j)[:, None] * stride_cell + c[None, :]
    mask = inside[:, None] & (c < channels)[None, :]
    if ZEROS:
        tl.store(target, tl.zeros([BLOCK_M, BLOCK_C], dtype=buffer_ptr.dtype.element_ty), mask=mask)
    else:
        column = tl.where(j == 0, WEST, tl.where(j == COLUMNS + 1, EAST, j - 1))
        row = tl.where(i == 0, NORTH, tl.where(i == ROWS + 1, SOUTH, i - 1))
        column = tl.where(in_rows, (column + SHIFT) % COLUMNS, column)
        source = base + ((row + 1) * width + column + 1)[:, None] * stride_cell + c[None, :]
        tl.store(target, tl.load(source, mask=mask, other=0.0), mask=mask)


def fill_halo(buffer: Tensor, halo: Halo) -> None:
    """See `kernels.fill_halo`."""
    n, _, _, channels = buffer.shape
    rows, columns = halo.shape
    block_c = _channel_block(channels)
    block_m = 32
    grid = (triton.cdiv(2 * (columns + 2) + 2 * rows, block_m), n, triton.cdiv(channels, block_c))
    launch(_fill_halo_kernel, grid,
        buffer, channels, channels, rows, columns, halo.north, halo.south, halo.west, halo.east,
        halo.shift % columns, halo.zeros, block_m, block_c,
    )  # fmt: skip


@triton.jit
def _fold_halo_kernel(
    buffer_ptr, channels, stride_cell,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH: tl.constexpr, SOUTH: tl.constexpr,
    WEST: tl.constexpr, EAST: tl.constexpr, SHIFT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    width: tl.constexpr = COLUMNS + 2
    rows_two: tl.constexpr = NORTH != SOUTH
    columns_two: tl.constexpr = WEST != EAST
    n_rows: tl.constexpr = 2 if rows_two else 1
    n_columns: tl.constexpr = 2 if columns_two else 1
    # Every cell that gets something has one owner: cells of the two rows, then cells of the two columns
    # elsewhere.
    in_rows = m < n_rows * COLUMNS
    side = m - n_rows * COLUMNS
    i = tl.where(in_rows, tl.where(m < COLUMNS, NORTH, SOUTH), side // n_columns)
    j = tl.where(in_rows, m % COLUMNS, tl.where(side % n_columns == 0, WEST, EAST))
    owned = in_rows | ((side < n_columns * ROWS) & (i != NORTH) & (i != SOUTH))
    at_west, at_east = j == WEST, j == EAST
    at_north, at_south = i == NORTH, i == SOUTH
    k = (j + COLUMNS - SHIFT) % COLUMNS
    base = buffer_ptr + n * (ROWS + 2) * width * stride_cell
    channel = (c < channels)[None, :]
    target = base + ((i + 1) * width + j + 1)[:, None] * stride_cell + c[None, :]
    total = tl.load(target, mask=owned[:, None] & channel, other=0.0).to(tl.float32)
    for edge in tl.static_range(8):
        # 0, 1: columns beside the cell's row; 2 to 4 and 5 to 7: the rows beyond the poles and their corners.
        if edge == 0:
            cell, here = (i + 1) * width, at_west
        elif edge == 1:
            cell, here = (i + 1) * width + COLUMNS + 1, at_east
        else:
            polar = at_north if edge < 5 else at_south
            row = 0 if edge < 5 else ROWS + 1
            if (edge - 2) % 3 == 0:
                cell, here = row * width + k + 1, polar
            elif (edge - 2) % 3 == 1:
                cell, here = row * width + 0 * k, polar & (k == WEST)
            else:
                cell, here = row * width + COLUMNS + 1 + 0 * k, polar & (k == EAST)
        source = base + cell[:, None] * stride_cell + c[None, :]
        total += tl.load(source, mask=(owned & here)[:, None] & channel, other=0.0).to(tl.float32)
    tl.store(target, total.to(buffer_ptr.dtype.element_ty), mask=owned[:, None] & channel)


def fold_halo(buffer: Tensor, halo: Halo) -> None:
    """See `kernels.fold_halo`."""
    n, _, _, channels = buffer.shape
    rows, columns = halo.shape
    block_c = _channel_block(channels)
    block_m = 32
    grid = (triton.cdiv(2 * columns + 2 * rows, block_m), n, triton.cdiv(channels, block_c))
    launch(_fold_halo_kernel, grid,
        buffer, channels, channels, rows, columns, halo.north, halo.south, halo.west, halo.east,
        halo.shift % columns, block_m, block_c,
    )  # fmt: skip


@triton.jit
def _pack_kernel(
    state_ptr, static_ptr, buffer_ptr, n_state, n_static, s_b,
    S_C: tl.constexpr, CHANNELS: tl.constexpr, ALIGN: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    NORTH_MARGIN: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, HALF: tl.constexpr, ZEROS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (ROWS * COLUMNS + BLOCK_P - 1) // BLOCK_P
    b = (tl.program_id(0) // tiles).to(tl.int64)
    start = (tl.program_id(0) % tiles) * BLOCK_P
    p = start + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    i = p // COLUMNS
    j = p % COLUMNS
    base = state_ptr + b * s_b * ALIGN
    first, last = start - NORTH_MARGIN * COLUMNS, start + BLOCK_P - NORTH_MARGIN * COLUMNS
    if (COLUMNS == W) & (first >= 0) & (last <= H * W):
        # All of the tile lies in the fields: whole vectors can be read.
        cell = tl.multiple_of(first, ALIGN) + tl.arange(0, BLOCK_P)
        mask = (c < n_state)[:, None] & (cell >= 0)[None, :]
        values = tl.load(base + c[:, None].to(tl.int64) * S_C + cell[None, :], mask=mask, other=0.0).to(
            tl.float32
        )
        k = c - n_state
        mask = ((k >= 0) & (k < n_static))[:, None] & (cell >= 0)[None, :]
        values += tl.load(static_ptr + k[:, None] * (H * W) + cell[None, :], mask=mask, other=0.0).to(
            tl.float32
        )
    else:
        row = i - NORTH_MARGIN
        # Margins lie beyond the poles: rows in reverse, half a circle away.
        above, below = row < 0, row >= H
        source_row = tl.where(above, FIRST - 1 - row, tl.where(below, LAST - 1 - (row - H), row))
        source_column = tl.where(above | below, (j + HALF) % W, j % W)
        if ZEROS:
            inside = (row >= 0) & (row < H) & (j < W)
            source_row = tl.where(inside, row, 0)
            source_column = tl.where(inside, j, 0)
        else:
            inside = i < ROWS
        cell = source_row * W + source_column
        mask = (c < n_state)[:, None] & inside[None, :]
        values = tl.load(base + c[:, None].to(tl.int64) * S_C + cell[None, :], mask=mask, other=0.0).to(
            tl.float32
        )
        k = c - n_state
        mask = ((k >= 0) & (k < n_static))[:, None] & inside[None, :]
        values += tl.load(static_ptr + k[:, None] * (H * W) + cell[None, :], mask=mask, other=0.0).to(
            tl.float32
        )
    target = ((b * (ROWS + 2) + i + 1) * (COLUMNS + 2) + j + 1)[:, None] * CHANNELS + c[None, :]
    mask = (i < ROWS)[:, None] & (c < CHANNELS)[None, :]
    tl.store(buffer_ptr + target, tl.trans(values).to(buffer_ptr.dtype.element_ty), mask=mask)


def planes(fields: Tensor) -> tuple[Tensor, int, int, int]:
    """Give fields whose planes are contiguous, their batch stride in units, channel stride, and the unit."""
    w = fields.shape[3]
    if fields.stride(3) != 1 or fields.stride(2) != w:
        fields = fields.contiguous()
    unit = math.gcd(8, fields.stride(0), fields.stride(1))
    return fields, fields.stride(0) // unit, fields.stride(1), unit


def pack(state: Tensor, static: Tensor, grid: SphereGrid, buffer: Tensor) -> None:
    """See `kernels.pack`; fills the interior alone."""
    rows, columns = grid.padded_shape
    h, w = grid.shape
    static = static.to(torch.float32).contiguous()
    state, stride_b, stride_c, unit = planes(state)
    # The first row of the fields must start on a whole vector too.
    unit = math.gcd(unit, grid.margins[0] * columns) if grid.margins[0] else unit
    stride_b = state.stride(0) // unit
    block_p, block_c = 128, 32
    channels = buffer.shape[-1]
    tiles = (buffer.shape[0] * triton.cdiv(rows * columns, block_p), triton.cdiv(channels, block_c))
    launch(_pack_kernel, tiles,
        state, static if static.numel() else buffer, buffer, state.shape[1], static.shape[0], stride_b,
        stride_c, channels, unit, h, w, rows, columns, grid.margins[0], int(grid.pole_points[0]),
        h - int(grid.pole_points[1]), grid.half_circle, grid.zeros, block_p, block_c,
    )  # fmt: skip


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
    block_m, block_c, grid = _sum_grid(cells, channels)
    partial = torch.empty((grid[0], 2, channels), dtype=torch.float32, device=y.device)
    launch(
        _moment_sums_kernel, grid, y, partial, cells, channels, block_m, block_c, _turns(cells, block_m, grid)
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
    z = tl.maximum(y * scale[None, :] + shift[None, :], 0.0)
    target = z_ptr + _offsets(m, COLUMNS, CELLS, s_n, s_i, s_j)[:, None] + c[None, :]
    tl.store(target, z.to(z_ptr.dtype.element_ty), mask=mask)


def rectify(y: Tensor, m, target: Tensor) -> None:
    """See `kernels.rectify`; `target` is a view of the shape of y."""
    n, rows, columns, channels = y.shape
    cells = n * rows * columns
    block_m, block_c, grid = _tile(cells, channels)
    launch(
        _rectify_kernel,
        grid,
        y,
        m.scale,
        m.shift,
        target,
        cells,
        channels,
        *_strides(target),
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
        z = tl.maximum(y * scale + shift, 0.0)
        tl.store(
            target + (corner // 2) * s_i + (corner % 2) * s_j, z.to(skip_ptr.dtype.element_ty), mask=mask
        )
        largest = tl.maximum(largest, z)
    pooled = pooled_ptr + (n * p_n + i * p_i + j * p_j)[:, None] + c[None, :]
    tl.store(pooled, largest.to(pooled_ptr.dtype.element_ty), mask=mask)


def rectify_pool(y: Tensor, m, skip: Tensor, pooled: Tensor) -> None:
    """See `kernels.rectify_pool`; fills the interiors alone."""
    n, rows, columns, channels = y.shape
    cells = n * rows * columns // 4
    block_c = _channel_block(channels)
    block_m = max(TILE_ELEMENTS // 4 // block_c, 16)
    grid = (triton.cdiv(cells, block_m), triton.cdiv(channels, block_c))
    launch(_rectify_pool_kernel, grid,
        y, m.scale, m.shift, skip, pooled, cells, channels, *_strides(skip), *_strides(pooled),
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
            dz = dz_ptr + _offsets(m, COLUMNS, ROWS * COLUMNS, s_n, s_i, s_j)[:, None] + c[None, :]
            g = tl.load(dz, mask=mask, other=0.0).to(tl.float32)
            g = tl.where(mask & (y * scale + shift > 0.0), g, 0.0)
            first += g
            second += g * (y - mean)
    rstd = tl.load(rstd_ptr + c, mask=channel, other=0.0)
    target = partial_ptr + tl.program_id(0) * 2 * channels + c
    tl.store(target, tl.sum(first, axis=0), mask=channel)
    tl.store(target + channels, tl.sum(second, axis=0) * rstd, mask=channel)


@triton.jit
def _sum_pairs_kernel(
    partial_ptr, first_ptr, second_ptr, programs, channels, PAIRS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    first_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    second_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for turn in range(TURNS):
        p = turn * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < programs)[:, None] & channel[None, :]
        source = partial_ptr + p[:, None] * PAIRS * channels + c[None, :]
        first_sums += tl.load(source, mask=mask, other=0.0)
        if PAIRS == 2:
            second_sums += tl.load(source + channels, mask=mask, other=0.0)
    tl.store(first_ptr + c, tl.sum(first_sums, axis=0), mask=channel)
    if PAIRS == 2:
        tl.store(second_ptr + c, tl.sum(second_sums, axis=0), mask=channel)


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
        dz = dz_ptr + _offsets(m, COLUMNS, ROWS * COLUMNS, s_n, s_i, s_j)[:, None] + c[None, :]
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
    block_m, block_c, grid = _sum_grid(cells, channels, SUM_TILE_ELEMENTS // (2 if pooled else 1))
    partial = torch.empty((grid[0], 2, channels), dtype=torch.float32, device=y.device)
    strides = (*_strides(dz), *(_strides(dpooled) if pooled else (0, 0, 0)))
    source = dpooled if pooled else dz
    launch(_rectify_backward_sums_kernel, grid,
        y, m.scale, m.shift, m.mean, m.rstd, dz, source, partial, cells, channels, *strides,
        rows, columns, pooled, block_m, block_c, _turns(cells, block_m, grid), 1 if pooled else 2,
    )  # fmt: skip
    _sum_pairs(partial, dbeta, dgamma)
    block_m, block_c, grid = _tile(cells, channels, TILE_ELEMENTS // share)
    launch(_rectify_backward_kernel, grid,
        y, m.scale, m.shift, m.mean, m.rstd, dgamma, dbeta, dz, source, dy, cells, channels,
        float(n * rows * columns), *strides, rows, columns, pooled, block_m, block_c,
    )  # fmt: skip


@triton.jit
def _scatter_up_kernel(
    products_ptr, bias_ptr, target_ptr, cells, channels, s_n, s_i, s_j,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    mask = (m < cells)[:, None] & channel[None, :]
    n = (m // (ROWS * COLUMNS)).to(tl.int64)
    cell = m % (ROWS * COLUMNS)
    i, j = cell // COLUMNS, cell % COLUMNS
    source = ((n * (ROWS // 2) + i // 2) * (COLUMNS // 2) + j // 2) * 4 + (i % 2) * 2 + j % 2
    values = tl.load(products_ptr + (source * channels)[:, None] + c[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    values += tl.load(bias_ptr + c, mask=channel, other=0.0).to(tl.float32)[None, :]
    target = target_ptr + (n * s_n + i * s_i + j * s_j)[:, None] + c[None, :]
    tl.store(target, values.to(target_ptr.dtype.element_ty), mask=mask)


def scatter_up(products: Tensor, bias: Tensor, target: Tensor) -> None:
    """See `kernels.scatter_up`."""
    n, rows, columns, channels = target.shape
    cells = n * rows * columns
    block_m, block_c, grid = _tile(cells, channels)
    launch(
        _scatter_up_kernel,
        grid,
        products,
        bias,
        target,
        cells,
        channels,
        *_strides(target),
        rows,
        columns,
        block_m,
        block_c,
    )


@triton.jit
def _gather_up_kernel(
    gradient_ptr, products_ptr, partial_ptr, cells, channels, s_n, s_i, s_j,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < channels
    total = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    for turn in range(TURNS):
        m = (turn * tl.num_programs(0) + tl.program_id(0)) * BLOCK_M + tl.arange(0, BLOCK_M)
        mask = (m < cells)[:, None] & channel[None, :]
        n = (m // (ROWS * COLUMNS)).to(tl.int64)
        cell = m % (ROWS * COLUMNS)
        i, j = cell // COLUMNS, cell % COLUMNS
        values = tl.load(
            gradient_ptr + (n * s_n + i * s_i + j * s_j)[:, None] + c[None, :], mask=mask, other=0.0
        )
        place = ((n * (ROWS // 2) + i // 2) * (COLUMNS // 2) + j // 2) * 4 + (i % 2) * 2 + j % 2
        tl.store(products_ptr + (place * channels)[:, None] + c[None, :], values, mask=mask)
        total += values.to(tl.float32)
    tl.store(partial_ptr + tl.program_id(0) * channels + c, tl.sum(total, axis=0), mask=channel)


def gather_up(gradient: Tensor, products: Tensor, dbias: Tensor) -> None:
    """See `kernels.gather_up`."""
    n, rows, columns, channels = gradient.shape
    cells = n * rows * columns
    block_m, block_c, grid = _sum_grid(cells, channels)
    partial = torch.empty((grid[0], channels), dtype=torch.float32, device=gradient.device)
    launch(_gather_up_kernel, grid,
        gradient, products, partial, cells, channels, *_strides(gradient), rows, columns, block_m, block_c,
        _turns(cells, block_m, grid),
    )  # fmt: skip
    sum_partials(partial, dbias)


def sum_partials(partial: Tensor, total: Tensor) -> None:
    """Sum (programs, channels) over programs into `total`."""
    programs, channels = partial.shape
    launch(_sum_pairs_kernel, (triton.cdiv(channels, FINISH_CHANNELS),),
        partial, total, total, programs, channels, 1, FINISH_PARTIALS, FINISH_CHANNELS,
        triton.cdiv(programs, FINISH_PARTIALS), num_warps=8,
    )  # fmt: skip


def _sum_pairs(partial: Tensor, first: Tensor, second: Tensor) -> None:
    """Sum (programs, 2, channels) over programs into `first` and `second`."""
    programs, _, channels = partial.shape
    launch(_sum_pairs_kernel, (triton.cdiv(channels, FINISH_CHANNELS),),
        partial, first, second, programs, channels, 2, FINISH_PARTIALS, FINISH_CHANNELS,
        triton.cdiv(programs, FINISH_PARTIALS), num_warps=8,
    )  # fmt: skip


@triton.jit
def _column_sums_kernel(
    x_ptr, partial_ptr, cells, CHANNELS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c < CHANNELS
    total = tl.zeros([BLOCK_M, BLOCK_C], dtype=tl.float32)
    for turn in tl.range(TURNS, loop_unroll_factor=4):
        m = (turn * tl.num_programs(0) + tl.program_id(0)) * BLOCK_M + tl.arange(0, BLOCK_M)
        mask = (m < cells)[:, None] & channel[None, :]
        values = tl.load(x_ptr + m[:, None].to(tl.int64) * CHANNELS + c[None, :], mask=mask, other=0.0)
        total += values.to(tl.float32)
    tl.store(partial_ptr + tl.program_id(0) * CHANNELS + c, tl.sum(total, axis=0), mask=channel)


def column_sums(x: Tensor, total: Tensor) -> None:
    """See `kernels.column_sums`."""
    channels = x.shape[-1]
    cells = x.numel() // channels
    block_m, block_c, grid = _sum_grid(cells, channels)
    partial = torch.empty((grid[0], channels), dtype=torch.float32, device=x.device)
    launch(
        _column_sums_kernel, grid, x, partial, cells, channels, block_m, block_c, _turns(cells, block_m, grid)
    )
    sum_partials(partial, total)
