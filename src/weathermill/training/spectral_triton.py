"""CUDA forms of `weathermill.training.spectral_powers`, in Triton.

Coefficients lie as pairs of real numbers along each circle. All products are of real with real and of imaginary with
imaginary parts, so that kernels run along the pairs without taking them apart.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.triton_launch import launch

BLOCK_J, BLOCK_I = 128, 8


@triton.jit
def _power_sums_kernel(
    difference_ptr, truth_ptr, rows_ptr, sums_ptr, stride,
    H: tl.constexpr, LENGTH: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    error = tl.zeros([BLOCK_I, BLOCK_J], dtype=tl.float32)
    gain = tl.zeros([BLOCK_I, BLOCK_J], dtype=tl.float32)
    p = tl.zeros([BLOCK_I, BLOCK_J], dtype=tl.float32)
    q = tl.zeros([BLOCK_I, BLOCK_J], dtype=tl.float32)
    for first in range(0, H, BLOCK_I):
        i = first + tl.arange(0, BLOCK_I)
        mask = (i < H)[:, None] & (j < LENGTH)[None, :]
        place = plane * (H * LENGTH) + i[:, None] * LENGTH + j[None, :]
        d = tl.load(difference_ptr + place, mask=mask, other=0.0)
        t = tl.load(truth_ptr + place, mask=mask, other=0.0)
        weight = tl.load(rows_ptr + i, mask=i < H, other=0.0)[:, None]
        error += weight * d * d
        gain += weight * d * (d + 2.0 * t)
        p += weight * (d + t) * (d + t)
        q += weight * t * t
    target = sums_ptr + plane * LENGTH + j
    tl.store(target, tl.sum(error, axis=0), mask=j < LENGTH)
    tl.store(target + stride, tl.sum(gain, axis=0), mask=j < LENGTH)
    tl.store(target + 2 * stride, tl.sum(p, axis=0), mask=j < LENGTH)
    tl.store(target + 3 * stride, tl.sum(q, axis=0), mask=j < LENGTH)


@triton.jit
def _combine_kernel(
    difference_ptr, truth_ptr, rows_ptr, a_ptr, b_ptr, waves_ptr,
    H: tl.constexpr, LENGTH: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    k = plane * (LENGTH // 2) + j // 2
    a = tl.load(a_ptr + k, mask=j < LENGTH, other=0.0)[None, :]
    b = tl.load(b_ptr + k, mask=j < LENGTH, other=0.0)[None, :]
    for first in range(0, H, BLOCK_I):
        i = first + tl.arange(0, BLOCK_I)
        mask = (i < H)[:, None] & (j < LENGTH)[None, :]
        place = plane * (H * LENGTH) + i[:, None] * LENGTH + j[None, :]
        d = tl.load(difference_ptr + place, mask=mask, other=0.0)
        t = tl.load(truth_ptr + place, mask=mask, other=0.0)
        weight = tl.load(rows_ptr + i, mask=i < H, other=0.0)[:, None]
        tl.store(waves_ptr + place, weight * (a * d + b * t), mask=mask)


def _sizes(waves: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid of programs over planes and pairs of numbers, and the size of a plane."""
    batch, channels, rows, count, _ = waves.shape
    return (batch * channels, triton.cdiv(2 * count, BLOCK_J)), (rows, 2 * count)


def power_sums(difference: Tensor, truth: Tensor, rows: Tensor, sums: Tensor) -> None:
    """Fill (4, batch, channel, wavenumber, 2): the sums over latitude of the products of parts."""
    grid, plane = _sizes(difference)
    launch(_power_sums_kernel, grid,
        difference.contiguous(), truth.contiguous(), rows.contiguous(), sums, sums.stride(0), *plane,
        BLOCK_I, BLOCK_J,
    )  # fmt: skip


def combine(difference: Tensor, truth: Tensor, rows: Tensor, a: Tensor, b: Tensor, waves: Tensor) -> None:
    """Fill ``rows * (a * difference + b * truth)``; `a` and `b` are (batch, channel, wavenumber)."""
    grid, plane = _sizes(difference)
    launch(_combine_kernel, grid,
        difference.contiguous(), truth.contiguous(), rows.contiguous(), a.contiguous(), b.contiguous(), waves,
        *plane, BLOCK_I, BLOCK_J,
    )  # fmt: skip
