"""Layers of the networks: convolutions that see across date line and poles, and normalisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from weathermill.errors import ModelError
from weathermill.models.sphere import Halo

# Tensor cores take bf16 operands in groups of eight channels; cuDNN falls back to slow kernels otherwise.
CHANNEL_MULTIPLE = 8


def padded_channels(channels: int) -> int:
    """Return `channels` rounded up to what tensor cores take."""
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


class ConvNormReLU(nn.Module):
    """A 3x3 convolution over a halo, a normalisation and a ReLU.

    The convolution has a bias, as in the published network. Before a batch normalisation in training mode it
    has no effect on the output, so it enters the running mean only and its gradient is exactly zero (rather
    than round-off, which Adam would scale up to full steps).

    Parameters
    ----------
    in_channels, out_channels
        Channels.
    halo
        What surrounds the level's grid.
    norm
        ``"batch"``, ``"group"`` or ``"none"``.
    """

    def __init__(self, in_channels: int, out_channels: int, halo: Halo, norm: str = "batch") -> None:
        super().__init__()
        self.halo = halo
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3)
        self.norm = make_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, rows, columns) to (batch, out_channels, rows, columns)."""
        x = self.halo.pad(x)
        weight = self.conv.weight
        if x.is_cuda and weight.shape[1] % CHANNEL_MULTIPLE:
            missing = padded_channels(weight.shape[1]) - weight.shape[1]
            weight = F.pad(weight, (0, 0, 0, 0, 0, missing))
            x = F.pad(x, (0, 0, 0, 0, 0, missing))
        if isinstance(self.norm, nn.BatchNorm2d) and self.norm.training:
            x = batch_norm_after_bias(F.conv2d(x, weight), self.conv.bias, self.norm)
        else:
            x = self.norm(F.conv2d(x, weight, self.conv.bias))
        return F.relu(x)


def batch_norm_after_bias(x: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch normalisation, in training mode, of x + bias.

    Parameters
    ----------
    x
        (batch, channel, rows, columns), without the bias.
    bias
        (channel,).
    norm
        Its running statistics are updated as those of x + bias.

    Returns
    -------
    torch.Tensor
        Of the shape of x.

    Raises
    ------
    ModelError
        When there is one value per channel only, which has no variance.
    """
    if x.numel() == x.shape[1]:
        raise ModelError(
            "Batch normalisation has a single value per channel: one sample, one cell at the coarsest level.",
            remedy="Use a larger batch, fewer levels (depth), or norm: group.",
        )
    with torch.no_grad():
        mean = norm.running_mean - bias
    shift = norm.bias + 0.0 * bias
    y = F.batch_norm(x, mean, norm.running_var, norm.weight, shift, True, norm.momentum, norm.eps)
    with torch.no_grad():
        # Not when recomputing: taking the bias away and adding it again need not give the same bits.
        if norm.momentum:
            norm.running_mean.copy_(mean + bias)
        norm.num_batches_tracked.add_(1)
    return y


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation `kind` over `channels`; groups have 16 channels where that divides."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        groups = channels // 16 if channels % 16 == 0 else 1
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a 1x1 convolution whose output channels are padded for the tensor cores and cut off again.

    Parameters
    ----------
    x
        (batch, in_channels, rows, columns).
    weight, bias
        (out_channels, in_channels, 1, 1) and (out_channels,).
    """
    channels = weight.shape[0]
    if x.is_cuda and channels % CHANNEL_MULTIPLE:
        missing = padded_channels(channels) - channels
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing))
        bias = None if bias is None else F.pad(bias, (0, missing))
    return F.conv2d(x, weight, bias)[:, :channels]


def recomputed(function: Callable[..., Tensor], module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call ``function(*inputs)`` without keeping its activations: the backward pass computes them again.

    Gradients are exactly those of the plain call. The running statistics of batch normalisations in `module`
    are updated once, not twice; random layers draw the same numbers again.

    Parameters
    ----------
    function
        What to call; deterministic but for dropout in `module`.
    module
        Holds the layers that `function` runs.
    inputs
        Tensors.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    # Saving the random state is not allowed while a CUDA graph is captured, and pointless without dropout.
    random = any(getattr(m, "dropout", 0.0) for m in module.modules())
    first = True

    def run(*inputs: Tensor) -> Tensor:
        nonlocal first
        if first:
            first = False
            return function(*inputs)
        momenta = [norm.momentum for norm in norms]
        counts = [norm.num_batches_tracked.clone() for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            return function(*inputs)
        finally:
            for norm, momentum, count in zip(norms, momenta, counts, strict=True):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=random)
