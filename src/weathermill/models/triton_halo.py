"""CUDA forms of what fills halos, folds their gradients, and packs fields into the network's layout."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.sphere import Halo, SphereGrid
from weathermill.models.triton_launch import channel_block, launch

#: Kinds of edges in kernels; a closed one is periodic or lies beyond a pole.
CLOSED, ZEROS, REPLICATE, REFLECT = (tl.constexpr(kind) for kind in range(4))
KINDS = {"zeros": 1, "replicate": 2, "reflect": 3}


@triton.jit
def _fill_halo_kernel(
    buffer_ptr, channels, stride_cell,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH: tl.constexpr, SOUTH: tl.constexpr,
    WEST: tl.constexpr, EAST: tl.constexpr, NORTH_SHIFT: tl.constexpr, SOUTH_SHIFT: tl.constexpr,
    ZERO_NORTH: tl.constexpr, ZERO_SOUTH: tl.constexpr, ZERO_COLUMNS: tl.constexpr,
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
    column = tl.where(j == 0, WEST, tl.where(j == COLUMNS + 1, EAST, j - 1))
    row = tl.where(i == 0, NORTH, tl.where(i == ROWS + 1, SOUTH, i - 1))
    if NORTH_SHIFT == SOUTH_SHIFT:
        column = tl.where(in_rows, (column + NORTH_SHIFT) % COLUMNS, column)
    else:
        shift = tl.where(i == 0, NORTH_SHIFT, SOUTH_SHIFT)
        column = tl.where(in_rows, (column + shift) % COLUMNS, column)
    source = base + ((row + 1) * width + column + 1)[:, None] * stride_cell + c[None, :]
    known = mask
    if ZERO_NORTH:
        known = known & (i != 0)[:, None]
    if ZERO_SOUTH:
        known = known & (i != ROWS + 1)[:, None]
    if ZERO_COLUMNS:
        known = known & ((j != 0) & (j != COLUMNS + 1))[:, None]
    tl.store(target, tl.load(source, mask=known, other=0.0), mask=mask)


def fill_halo(buffer: Tensor, halo: Halo) -> None:
    """See `kernels.fill_halo`."""
    n, _, _, channels = buffer.shape
    rows, columns = halo.shape
    block_c = channel_block(channels)
    block_m = 32
    grid = (triton.cdiv(2 * (columns + 2) + 2 * rows, block_m), n, triton.cdiv(channels, block_c))
    launch(_fill_halo_kernel, grid,
        buffer, channels, channels, rows, columns, halo.north, halo.south, halo.west, halo.east,
        halo.north_shift % columns, halo.south_shift % columns,
        halo.zero_north, halo.zero_south, halo.zero_columns, block_m, block_c,
    )  # fmt: skip


@triton.jit
def _fold_halo_kernel(
    buffer_ptr, channels, stride_cell,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH: tl.constexpr, SOUTH: tl.constexpr,
    WEST: tl.constexpr, EAST: tl.constexpr, NORTH_SHIFT: tl.constexpr, SOUTH_SHIFT: tl.constexpr,
    ZERO_NORTH: tl.constexpr, ZERO_SOUTH: tl.constexpr, ZERO_COLUMNS: tl.constexpr,
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
    north_k = (j + COLUMNS - NORTH_SHIFT) % COLUMNS
    south_k = (j + COLUMNS - SOUTH_SHIFT) % COLUMNS
    # Zeros stand for no cell, so that their gradient goes nowhere.
    if ZERO_COLUMNS:
        at_west, at_east = at_west & (j < 0), at_east & (j < 0)
    if ZERO_NORTH:
        at_north = at_north & (i < 0)
    if ZERO_SOUTH:
        at_south = at_south & (i < 0)
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
            k = north_k if edge < 5 else south_k
            if (edge - 2) % 3 == 0:
                cell, here = row * width + k + 1, polar
            elif (edge - 2) % 3 == 1:
                cell, here = row * width + 0 * k, polar & (k == WEST)
            else:
                cell, here = row * width + COLUMNS + 1 + 0 * k, polar & (k == EAST)
            if ZERO_COLUMNS and (edge - 2) % 3 != 0:
                here = here & (j < 0)
        source = base + cell[:, None] * stride_cell + c[None, :]
        total += tl.load(source, mask=(owned & here)[:, None] & channel, other=0.0).to(tl.float32)
    tl.store(target, total.to(buffer_ptr.dtype.element_ty), mask=owned[:, None] & channel)


def fold_halo(buffer: Tensor, halo: Halo) -> None:
    """See `kernels.fold_halo`."""
    n, _, _, channels = buffer.shape
    rows, columns = halo.shape
    block_c = channel_block(channels)
    block_m = 32
    grid = (triton.cdiv(2 * columns + 2 * rows, block_m), n, triton.cdiv(channels, block_c))
    launch(_fold_halo_kernel, grid,
        buffer, channels, channels, rows, columns, halo.north, halo.south, halo.west, halo.east,
        halo.north_shift % columns, halo.south_shift % columns,
        halo.zero_north, halo.zero_south, halo.zero_columns, block_m, block_c,
    )  # fmt: skip


@triton.jit
def _pack_kernel(
    state_ptr, static_ptr, buffer_ptr, n_state, n_static, s_b,
    S_C: tl.constexpr, CHANNELS: tl.constexpr, ALIGN: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    NORTH_MARGIN: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, HALF: tl.constexpr,
    NORTH: tl.constexpr, SOUTH: tl.constexpr, EAST: tl.constexpr,
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
        # Rows of margins are those inside in reverse, half a circle away where they lie beyond a pole.
        above, below = row < 0, row >= H
        north_row = FIRST - 1 - row
        south_row = LAST - 1 - (row - H)
        if NORTH == REPLICATE:
            north_row = 0 * row
        if SOUTH == REPLICATE:
            south_row = 0 * row + H - 1
        source_row = tl.where(above, north_row, tl.where(below, south_row, row))
        if EAST == REPLICATE:
            source_column = tl.minimum(j, W - 1)
        elif EAST == REFLECT:
            source_column = tl.where(j < W, j, 2 * (W - 1) - j)
        else:
            turned = above | below
            if NORTH != CLOSED:
                turned = turned & (row >= 0)
            if SOUTH != CLOSED:
                turned = turned & (row < H)
            source_column = tl.where(turned, (j + HALF) % W, j % W)
        inside = i < ROWS
        if NORTH == ZEROS:
            inside = inside & (row >= 0)
        if SOUTH == ZEROS:
            inside = inside & (row < H)
        if EAST == ZEROS:
            inside = inside & (j < W)
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
        stride_c, channels, unit, h, w, rows, columns, grid.margins[0], *grid.mirrors, grid.half_circle,
        *(KINDS.get(edge, 0) for edge in (grid.edges.north, grid.edges.south, grid.edges.longitude)),
        block_p, block_c,
    )  # fmt: skip
