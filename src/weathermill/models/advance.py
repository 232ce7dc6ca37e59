"""Apply the output of a network's fast pass, as it lies there, to the state that it was made from."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weathermill.models.kernels import accumulator

if TYPE_CHECKING:
    from weathermill.models.forecaster import Forecaster


def advance_padded(forecaster: Forecaster, output: Tensor, state: Tensor) -> Tensor:
    """Give the next state, before constraints: ``residual(state) + ratio * output``, or the output itself.

    Parameters
    ----------
    forecaster
        Says what the output means.
    output
        (batch, rows, columns, channels), from ``network.forward_padded``.
    state
        (batch, n_dynamic, latitudes, longitudes), normalised, of any floating dtype.

    Returns
    -------
    torch.Tensor
        (batch, n_prognostic, latitudes, longitudes), contiguous, float32 (float64 for float64 outputs).
    """
    return _Next.apply(output, state, forecaster)


class _Next(torch.autograd.Function):
    """It is linear in output and state, so that nothing need be kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, state: Tensor, forecaster: Forecaster) -> Tensor:
        kind = accumulator(output.dtype)
        n = forecaster.n_prognostic
        ctx.forecaster, ctx.dtype, ctx.shape = forecaster, output.dtype, output.shape
        shape = (state.shape[0], n, *forecaster.grid_shape)
        after = torch.empty(shape, dtype=kind, device=output.device)
        if output.is_cuda:
            _triton().advance(output, state, forecaster, after)
        elif not output.is_meta:
            after.copy_(forecaster.network.grid.crop(output[..., :n].permute(0, 3, 1, 2)))
            if forecaster.config.target == "tendency":
                after.mul_(forecaster.tendency_ratio).add_(forecaster.residual(state[:, :n].to(kind)))
        return after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dafter: Tensor):
        forecaster = ctx.forecaster
        n = forecaster.n_prognostic
        doutput = torch.empty(ctx.shape, dtype=ctx.dtype, device=dafter.device)
        dstate = None
        if ctx.needs_input_grad[1]:
            shape = dafter.shape[0], forecaster.n_dynamic, *forecaster.grid_shape
            dstate = torch.empty(shape, dtype=dafter.dtype, device=dafter.device)
        if dafter.is_cuda:
            _triton().advance_backward(dafter, forecaster, doutput, dstate)
        elif not dafter.is_meta:
            tendency = forecaster.config.target == "tendency"
            doutput.zero_()
            inside = forecaster.network.grid.crop(doutput[..., :n].permute(0, 3, 1, 2))
            inside.copy_(dafter * forecaster.tendency_ratio if tendency else dafter)
            if dstate is not None:
                dstate.zero_()
                if tendency:
                    dstate[:, :n] = dafter * forecaster.residual.kept.to(dafter.dtype)
        return doutput, dstate, None


def _triton() -> ModuleType:
    return importlib.import_module("weathermill.models.triton_advance")
