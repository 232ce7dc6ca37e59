"""CUDA forms of sums over cells: partial sums of programs, and sums of those."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.triton_launch import FINISH_CHANNELS, FINISH_PARTIALS, launch, sum_grid, turns_of


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


def sum_partials(partial: Tensor, total: Tensor) -> None:
    """Sum (programs, channels) over programs into `total`."""
    programs, channels = partial.shape
    launch(_sum_pairs_kernel, (triton.cdiv(channels, FINISH_CHANNELS),),
        partial, total, total, programs, channels, 1, FINISH_PARTIALS, FINISH_CHANNELS,
        triton.cdiv(programs, FINISH_PARTIALS), num_warps=8,
    )  # fmt: skip


def sum_pairs(partial: Tensor, first: Tensor, second: Tensor) -> None:
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
    block_m, block_c, grid = sum_grid(cells, channels)
    partial = torch.empty((grid[0], channels), dtype=torch.float32, device=x.device)
    launch(
        _column_sums_kernel,
        grid,
        x,
        partial,
        cells,
        channels,
        block_m,
        block_c,
        turns_of(cells, block_m, grid),
    )
    sum_partials(partial, total)
