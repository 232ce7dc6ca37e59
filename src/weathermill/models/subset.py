"""Change some channels of a state, with gradients that leave the others where they are.

Autograd's own gradients of taking channels out and putting them back are whole states of zeros and their sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def on_channels(change: Callable[..., Tensor], fields: Tensor, index: Tensor, *given: Tensor) -> Tensor:
    """Replace some channels by what becomes of them.

    Parameters
    ----------
    change
        Takes the channels (batch, len(index), latitudes, longitudes) and `given`, and gives the new ones. It is called
        again for the gradient, with gradients enabled then, and only then.
    fields
        (batch, channel, latitudes, longitudes).
    index
        int64, of different channels.
    given
        Further tensors, which the gradient reaches too.

    Returns
    -------
    torch.Tensor
        Like `fields`, which is left alone.
    """
    return _OnChannels.apply(change, fields, index, *given)


def take_channels(fields: Tensor, index: Tensor) -> Tensor:
    """Give ``fields[:, index]`` for different channels; see `on_channels`."""
    return _Taken.apply(fields, index)


class _OnChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, change: Callable[..., Tensor], fields: Tensor, index: Tensor, *given: Tensor):
        mine = fields.index_select(1, index)
        ctx.change = change
        ctx.save_for_backward(mine, index, *given)
        return fields.index_copy(1, index, change(mine, *given))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        mine, index, *given = ctx.saved_tensors
        with torch.enable_grad():
            mine = mine.detach().requires_grad_()
            given = [
                t.detach().requires_grad_(need)
                for t, need in zip(given, ctx.needs_input_grad[3:], strict=True)
            ]
            changed = ctx.change(mine, *given)
        wanted = [mine, *(t for t in given if t.requires_grad)]
        mine_gradient = gradient.index_select(1, index)
        if changed.requires_grad:
            dmine, *rest = torch.autograd.grad(
                changed, wanted, mine_gradient, allow_unused=True, materialize_grads=True
            )
        else:
            dmine, *rest = (torch.zeros_like(t) for t in wanted)
        left = iter(rest)
        dgiven = (next(left) if t.requires_grad else None for t in given)
        return None, gradient.index_copy(1, index, dmine), None, *dgiven


class _Taken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fields: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = fields.shape
        return fields.index_select(1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(1, index, gradient), None
