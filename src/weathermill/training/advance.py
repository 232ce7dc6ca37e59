"""Advance the state and measure its error in one pass over the network's output, as it lies in the fast pass."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weathermill.models.forecaster import Forecaster
from weathermill.models.kernels import accumulator
from weathermill.training.losses import AreaWeightedLoss


def advance_and_measure(
    forecaster: Forecaster,
    loss: AreaWeightedLoss,
    state: Tensor,
    target: Tensor,
    *,
    more: bool,
    unit: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Forecast one step by the network's fast pass.

    Parameters
    ----------
    forecaster
        Its network has a fast pass for `state`.
    loss
        How to measure.
    state
        (batch, n_dynamic, latitudes, longitudes), normalised.
    target
        (batch, n_prognostic, latitudes, longitudes): the true next state.
    more
        Whether the next state is needed.
    unit
        What errors are counted in, ``"tendency"`` or ``"state"``; what the network puts out when None.

    Returns
    -------
    tuple
        Loss of each channel (n_prognostic,), and the next prognostic state in float32, or None.
    """
    output = forecaster.network.forward_padded(state, forecaster.static)
    factor = forecaster.error_scale_in(unit or forecaster.config.target) / forecaster.error_scale
    per_channel, prognostic = _Advance.apply(output, state, target, factor, forecaster, loss, more)
    return per_channel, prognostic if more else None


class _Advance(torch.autograd.Function):
    """``next = residual(state) + ratio * output`` and its loss; for states as targets, ``next = output``."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        state: Tensor,
        target: Tensor,
        factor: Tensor,
        forecaster: Forecaster,
        loss: AreaWeightedLoss,
        more: bool,
    ):
        kind = accumulator(output.dtype)
        n, (rows, columns) = forecaster.n_prognostic, forecaster.grid_shape
        batch = state.shape[0]
        per_channel = torch.empty(n, dtype=kind, device=output.device)
        shape = (batch, n, rows, columns) if more else (0,)
        prognostic = torch.empty(shape, dtype=kind, device=output.device)
        ctx.forecaster, ctx.loss = forecaster, loss
        ctx.save_for_backward(output, state, target, factor)
        if output.is_cuda:
            _triton().measure(
                output, state, target, forecaster, loss, factor, per_channel, prognostic if more else None
            )
        elif not output.is_meta:
            error, advanced = _error(output, state, target, factor, forecaster)
            weights = loss.area_weights.to(kind)
            per_channel.copy_((loss.measure(error) * weights).mean(dim=(0, 2, 3)))
            if more:
                prognostic.copy_(advanced)
        return per_channel, prognostic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dper_channel: Tensor, dprognostic: Tensor):
        output, state, target, factor = ctx.saved_tensors
        forecaster, loss = ctx.forecaster, ctx.loss
        doutput = torch.empty_like(output)
        more = dprognostic.numel() > 0
        dstate = None
        if ctx.needs_input_grad[1]:
            shape = state.shape[0], forecaster.n_dynamic, *forecaster.grid_shape
            dstate = torch.empty(shape, dtype=accumulator(output.dtype), device=output.device)
        dnext = dprognostic if more else None
        if output.is_cuda:
            _triton().measure_backward(
                output, state, target, forecaster, loss, factor, dper_channel, dnext, doutput, dstate
            )
        elif not output.is_meta:
            _backward(output, state, target, forecaster, loss, factor, dper_channel, dnext, doutput, dstate)
        return doutput, dstate, None, None, None, None, None


def _error(
    output: Tensor, state: Tensor, target: Tensor, factor: Tensor, forecaster: Forecaster
) -> tuple[Tensor, Tensor]:
    kind = accumulator(output.dtype)
    n = forecaster.n_prognostic
    y = forecaster.network.grid.crop(output[..., :n].permute(0, 3, 1, 2)).to(kind)
    target, factor = target.to(kind), factor.to(kind)
    if forecaster.config.target == "state":
        return (y - target) * factor, y
    before = forecaster.residual(state[:, :n].to(kind))
    ratio = forecaster.tendency_ratio.to(kind)
    return (y - (target - before) / ratio) * factor, before + y * ratio


def _backward(output, state, target, forecaster, loss, factor, dper_channel, dnext, doutput, dstate) -> None:
    n = forecaster.n_prognostic
    error, _ = _error(output, state, target, factor, forecaster)
    weights = loss.area_weights.to(error.dtype) / (error.numel() // n)
    derror = loss.slope(error) * weights * dper_channel[:, None, None] * factor.to(error.dtype)
    tendency = forecaster.config.target == "tendency"
    ratio = forecaster.tendency_ratio.to(error.dtype) if tendency else 1.0
    dy = derror if dnext is None else derror + dnext * ratio
    doutput.zero_()
    forecaster.network.grid.crop(doutput[..., :n].permute(0, 3, 1, 2)).copy_(dy)
    if dstate is not None:
        dstate.zero_()
        if tendency:
            dstate[:, :n] = dy / ratio * forecaster.residual.kept.to(error.dtype)


def _triton():
    return importlib.import_module("weathermill.training.advance_triton")
