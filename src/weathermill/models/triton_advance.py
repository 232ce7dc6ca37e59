"""CUDA forms of `weathermill.models.advance`, in Triton, and the tiles that they share with the loss's.

The network's output lies channel-innermost, states lie longitude-innermost: tiles are turned in shared
memory.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from weathermill.models.forecaster import Forecaster
from weathermill.models.triton_halo import planes
from weathermill.models.triton_launch import launch

BLOCK_P, BLOCK_C = 128, 32


@triton.jit
def cells_of(b, p, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr):
    """Cells on the padded grid of flat cells p of a field of sample b."""
    return (b * ROWS + p // W + NORTH_MARGIN) * COLUMNS + p % W


@triton.jit
def output_tile(output_ptr, cell, c, within, CHANNELS: tl.constexpr):
    """The network's output of channels by cells, in float32."""
    # A mask of its own, not the fields' one turned: else the compiler reads single values.
    known = within[:, None] & (c < CHANNELS)[None, :]
    y = tl.load(output_ptr + cell[:, None] * CHANNELS + c[None, :], mask=known, other=0.0)
    return tl.trans(y).to(tl.float32)


@triton.jit
def residual_tile(
    state_ptr, offset_ptr, kept, b, p, c_wide, mask, s_b,
    S_C: tl.constexpr, S_UNIT: tl.constexpr, CELLS: tl.constexpr, DAMPED: tl.constexpr,
):  # fmt: skip
    """What a tendency is added to, of channels by cells, in float32."""
    state = tl.load(state_ptr + b * s_b * S_UNIT + c_wide * S_C + p[None, :], mask=mask, other=0.0)
    state = state.to(tl.float32)
    if DAMPED:
        offset = tl.load(offset_ptr + c_wide * CELLS + p[None, :], mask=mask, other=0.0)
        state = state * kept[:, None] + offset
    return state


@triton.jit
def store_output_gradient(doutput_ptr, gradient, cell, c, within, CHANNELS: tl.constexpr):
    """Store the gradient of channels by cells; padded channels, which are no part of the forecast, come as zeros."""
    tl.store(
        doutput_ptr + cell[:, None] * CHANNELS + c[None, :],
        tl.trans(gradient).to(doutput_ptr.dtype.element_ty),
        mask=within[:, None] & (c < CHANNELS)[None, :],
    )


@triton.jit
def _advance_kernel(
    output_ptr, state_ptr, ratio_ptr, kept_ptr, offset_ptr, next_ptr, n, s_b,
    S_C: tl.constexpr, S_UNIT: tl.constexpr, CHANNELS: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NORTH_MARGIN: tl.constexpr, TENDENCY: tl.constexpr,
    DAMPED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (H * W + BLOCK_P - 1) // BLOCK_P
    b = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (c < n)[:, None] & (p < H * W)[None, :]
    cell = cells_of(b, p, W, ROWS, COLUMNS, NORTH_MARGIN)
    after = output_tile(output_ptr, cell, c, p < H * W, CHANNELS)
    if TENDENCY:
        ratio = tl.load(ratio_ptr + c, mask=c < n, other=1.0)
        kept = tl.load(kept_ptr + c, mask=c < n, other=1.0)
        c_wide = c.to(tl.int64)[:, None]
        before = residual_tile(
            state_ptr, offset_ptr, kept, b, p, c_wide, mask, s_b, S_C, S_UNIT, H * W, DAMPED
        )
        after = before + after * ratio[:, None]
    tl.store(next_ptr + (b * n + c[:, None]) * (H * W) + p[None, :], after, mask=mask)


@triton.jit
def _advance_backward_kernel(
    dnext_ptr, ratio_ptr, kept_ptr, doutput_ptr, dstate_ptr, n, n_dynamic,
    CHANNELS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    NORTH_MARGIN: tl.constexpr, TENDENCY: tl.constexpr, STATE_GRADIENT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (H * W + BLOCK_P - 1) // BLOCK_P
    b = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (c < n)[:, None] & (p < H * W)[None, :]
    gradient = tl.load(dnext_ptr + (b * n + c[:, None]) * (H * W) + p[None, :], mask=mask, other=0.0)
    back = gradient
    if TENDENCY:
        gradient *= tl.load(ratio_ptr + c, mask=c < n, other=0.0)[:, None]
    cell = cells_of(b, p, W, ROWS, COLUMNS, NORTH_MARGIN)
    store_output_gradient(doutput_ptr, gradient, cell, c, p < H * W, CHANNELS)
    if STATE_GRADIENT:
        if TENDENCY:
            back *= tl.load(kept_ptr + c, mask=c < n, other=0.0)[:, None]
        else:
            back *= 0.0
        place = dstate_ptr + (b * n_dynamic + c[:, None]) * (H * W) + p[None, :]
        tl.store(place, back, mask=(c < n_dynamic)[:, None] & (p < H * W)[None, :])


def padded_constants(forecaster: Forecaster, channels: int) -> tuple[int, int, int, int, int, int]:
    """What kernels over an output of `channels` are compiled for: channels, grid, padded grid, northern margin."""
    grid = forecaster.network.grid
    return channels, *forecaster.grid_shape, *grid.padded_shape, grid.margins[0]


def clear_margins(doutput: Tensor, forecaster: Forecaster) -> None:
    """Zero the gradient of the margins of the padded grid: they are no part of the forecast."""
    h, w = forecaster.grid_shape
    north = forecaster.network.grid.margins[0]
    for margin in (doutput[:, :north], doutput[:, north + h :], doutput[:, :, w:]):
        margin.zero_()


def tiles_of(forecaster: Forecaster, batch: int, channels: int) -> tuple[int, int]:
    """Grid of programs over tiles of channels by cells."""
    h, w = forecaster.grid_shape
    return batch * triton.cdiv(h * w, BLOCK_P), triton.cdiv(channels, BLOCK_C)


def advance(output: Tensor, state: Tensor, forecaster: Forecaster, after: Tensor) -> None:
    """Fill the next state."""
    n = forecaster.n_prognostic
    state, s_b, s_c, s_unit = planes(state)
    residual = forecaster.residual
    launch(_advance_kernel, tiles_of(forecaster, state.shape[0], n),
        output, state, forecaster.tendency_ratio, residual.kept, residual.offset, after, n, s_b,
        s_c, s_unit, *padded_constants(forecaster, output.shape[-1]), forecaster.config.target == "tendency",
        residual.damped, BLOCK_P, BLOCK_C,
    )  # fmt: skip


def advance_backward(dafter: Tensor, forecaster: Forecaster, doutput: Tensor, dstate: Tensor | None) -> None:
    """Fill the gradients of the output and, unless None, of the state."""
    channels = doutput.shape[-1]
    clear_margins(doutput, forecaster)
    last = max(channels, 0 if dstate is None else forecaster.n_dynamic)
    launch(_advance_backward_kernel, tiles_of(forecaster, dafter.shape[0], last),
        dafter.contiguous(), forecaster.tendency_ratio, forecaster.residual.kept, doutput,
        doutput if dstate is None else dstate, forecaster.n_prognostic, forecaster.n_dynamic,
        *padded_constants(forecaster, channels), forecaster.config.target == "tendency", dstate is not None,
        BLOCK_P, BLOCK_C,
    )  # fmt: skip
