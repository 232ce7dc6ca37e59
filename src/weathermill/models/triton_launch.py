"""Launching Triton kernels over tiles of images: tile sizes, grids, and compiling many kernels at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.runtime._async_compile import AsyncCompileMode, active_mode

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


def channel_block(channels: int, largest: int = 128) -> int:
    """Channels of a tile."""
    return min(triton.next_power_of_2(channels), largest)


def tile_of(cells: int, channels: int, elements: int = TILE_ELEMENTS) -> tuple[int, int, tuple[int, int]]:
    """Cells and channels of a tile, and the grid of tiles over an image."""
    block_c = channel_block(channels)
    block_m = max(elements // block_c, 16)
    return block_m, block_c, (triton.cdiv(cells, block_m), triton.cdiv(channels, block_c))


def sum_grid(
    cells: int, channels: int, elements: int = SUM_TILE_ELEMENTS
) -> tuple[int, int, tuple[int, int]]:
    """Cells and channels of a tile of a sum, and the grid of programs over an image."""
    block_m, block_c, (tiles, blocks) = tile_of(cells, channels, elements)
    return block_m, block_c, (spread(tiles, SUM_PROGRAMS // blocks)[0], blocks)


def spread(tiles: int, programs: int) -> tuple[int, int]:
    """Programs, about as many as given, and the tiles that each takes: a power of two, so that few forms compile."""
    turns = triton.next_power_of_2(triton.cdiv(tiles, programs))
    return triton.cdiv(tiles, turns), turns


def turns_of(cells: int, block_m: int, grid: tuple[int, int]) -> int:
    """Tiles that each program of a sum takes."""
    return triton.next_power_of_2(triton.cdiv(triton.cdiv(cells, block_m), grid[0]))


def strides_of(view: Tensor) -> tuple[int, int, int]:
    """Batch, row and column strides of a channel-innermost view."""
    if view.stride(3) != 1:
        raise ValueError(f"channels must be innermost; strides are {view.stride()}")
    return view.stride(0), view.stride(1), view.stride(2)


@triton.jit
def offsets_of(m, COLUMNS: tl.constexpr, CELLS: tl.constexpr, s_n, s_i, s_j):
    """Offset of flat cell m of images of CELLS cells in a strided view."""
    n = m // CELLS
    cell = m - n * CELLS
    i = cell // COLUMNS
    j = cell - i * COLUMNS
    return n.to(tl.int64) * s_n + i * s_i + j * s_j
