"""CUDA forms of what lays out a transposed convolution's products on the finer grid, and gathers their gradients."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.triton_launch import launch, strides_of, sum_grid, tile_of, turns_of
from weathermill.models.triton_sums import sum_partials


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
    block_m, block_c, grid = tile_of(cells, channels)
    launch(
        _scatter_up_kernel,
        grid,
        products,
        bias,
        target,
        cells,
        channels,
        *strides_of(target),
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
    block_m, block_c, grid = sum_grid(cells, channels)
    partial = torch.empty((grid[0], channels), dtype=torch.float32, device=gradient.device)
    launch(_gather_up_kernel, grid,
        gradient, products, partial, cells, channels, *strides_of(gradient), rows, columns, block_m, block_c,
        turns_of(cells, block_m, grid),
    )  # fmt: skip
    sum_partials(partial, dbias)
