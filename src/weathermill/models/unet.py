"""The reference network: a U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on the sphere or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from weathermill.models import fused
from weathermill.models.layers import ConvNormReLU, pointwise, recomputed
from weathermill.models.registry import ModelConfig, register_network
from weathermill.models.sphere import Halo, SphereGrid, pole_points


class Block(nn.Module):
    """Two convolutions, each with normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, halo: Halo, norm: str, dropout: float) -> None:
        super().__init__()
        self.first = ConvNormReLU(in_channels, out_channels, halo, norm)
        self.second = ConvNormReLU(out_channels, out_channels, halo, norm)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, rows, columns) to (batch, out_channels, rows, columns)."""
        x = self.second(self.first(x))
        return F.dropout2d(x, self.dropout, self.training) if self.dropout else x


class UNet(nn.Module):
    """U-Net with max-pooling down, transposed convolutions up and a 1x1 head, on any grid from 8x8 up.

    With ``base_channels=64``, ``depth=3`` and batch normalisation at 65 to 65 channels it is the published
    reference with 7,742,849 parameters.

    Parameters
    ----------
    config
        Sizes, boundary and normalisation.
    in_channels, out_channels
        Channels of input and output.
    grid_shape
        (latitudes, longitudes).
    latitude
        Degrees; tells whether the poles are grid points. The grid is taken to go round the circle where `config` does
        not say what its edges are.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        in_channels: int,
        out_channels: int,
        grid_shape: tuple[int, int],
        latitude: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.in_channels, self.out_channels = in_channels, out_channels
        edges = config.with_edges(latitude, None).edges
        self.grid = SphereGrid(grid_shape, config.depth, pole_points(latitude), edges)
        # Set by the training step: recompute each block's activations in the backward pass.
        self.checkpoint_blocks = False
        # Set by the rollout: keep nothing but the input, in the fast pass.
        self.checkpoint_whole = False
        # Called with the name of each part that the fast pass comes to; the memory ledger listens.
        self.observer: Callable[[str], None] | None = None
        # Type of the fast pass's images; None asks autocast.
        self.image_dtype: torch.dtype | None = None
        # None: the fast pass where it applies, on CUDA; or whether to take it.
        self.fused: bool | None = None
        # The last of the input channels are the same for every sample; see `forward_padded`.
        self.static_channels = 0
        widths = [config.base_channels * 2**level for level in range(config.depth + 1)]
        halos = [self.grid.halo(level) for level in range(config.depth + 1)]

        def block(channels_in: int, level: int) -> Block:
            return Block(channels_in, widths[level], halos[level], config.norm, config.dropout)

        self.down = nn.ModuleList(
            block(in_channels if level == 0 else widths[level - 1], level) for level in range(config.depth)
        )
        self.bottom = block(widths[-2], config.depth)
        levels = range(config.depth - 1, -1, -1)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], kernel_size=2, stride=2) for level in levels
        )
        self.merge = nn.ModuleList(block(2 * widths[level], level) for level in levels)
        self.head = nn.Conv2d(widths[0], out_channels, kernel_size=1)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights anew: He for convolutions before a ReLU; a zero head where configured."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        if self.config.zero_head:
            nn.init.zeros_(self.head.weight)
        else:
            nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")

    def blocks(self) -> Iterator[Block]:
        """All blocks, in the order of the forward pass."""
        yield from (*self.down, self.bottom, *self.merge)

    def takes_fast_pass(self, device: torch.device) -> bool:
        """Whether tensors on `device` go through `forward_padded`."""
        if self.fused is None:
            return device.type == "cuda" and fused.supports(self)
        return self.fused and fused.supports(self)

    def forward(self, x: Tensor, static: Tensor | None = None) -> Tensor:
        """Map (batch, in_channels, latitudes, longitudes) to (batch, out_channels, latitudes, longitudes).

        The last input channels may be given apart, in `static` (channels, latitudes, longitudes), where they
        are the same for every sample.
        """
        if self.takes_fast_pass(x.device):
            y = self.forward_padded(x, static)
            return self.grid.crop(y[..., : self.out_channels].permute(0, 3, 1, 2))
        if static is not None:
            x = torch.cat([x, static.to(x.dtype).expand(x.shape[0], -1, -1, -1)], dim=1)
        x = self.grid.pad(x)
        skips = []
        for block in self.down:
            x = self._run(block, x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self._run(self.bottom, x)
        for up, block in zip(self.up, self.merge, strict=True):
            x = self._run(block, torch.cat([skips.pop(), up(x)], dim=1))
        return self.grid.crop(pointwise(x, self.head.weight, self.head.bias))

    def forward_padded(self, x: Tensor, static: Tensor | None = None) -> Tensor:
        """Apply the network by its fast pass, see `weathermill.models.fused.run` for the result's layout."""
        device = x.device.type
        dtype = self.image_dtype or self.head.weight.dtype
        if self.image_dtype is None and device != "meta" and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        static = x.new_zeros((0, *x.shape[2:])) if static is None else static
        self.static_channels = static.shape[0]
        output = fused.run(self, x, static, dtype)
        if self.observer is not None:
            self.observer("next state and loss")
        return output

    def _run(self, block: Block, x: Tensor) -> Tensor:
        if self.checkpoint_blocks and self.training and torch.is_grad_enabled():
            return recomputed(block, block, x)
        return block(x)


@register_network("unet")
def build_unet(config: ModelConfig, **sizes: object) -> UNet:
    """Build a `UNet`; see there."""
    return UNet(config, **sizes)
