"""CUDA forms of `weathermill.models.kernels`, in Triton; see there for what each one computes.

All of these are bound by memory: each reads and writes an image once, in 16-byte pieces, with a tile of cells
by channels a program. Sums go through one partial sum a program and a second small kernel, never through
atomics, so that they repeat to the bit.
"""

from __future__ import annotations

from weathermill.models.triton_halo import fill_halo, fold_halo, pack
from weathermill.models.triton_launch import compiling_ahead
from weathermill.models.triton_norm import moments, rectify, rectify_backward, rectify_pool
from weathermill.models.triton_sums import column_sums
from weathermill.models.triton_up import gather_up, scatter_up

__all__ = [
    "column_sums",
    "compiling_ahead",
    "fill_halo",
    "fold_halo",
    "gather_up",
    "moments",
    "pack",
    "rectify",
    "rectify_backward",
    "rectify_pool",
    "scatter_up",
]
