"""A spherical Fourier neural operator (Bonev et al., 2023, arXiv:2306.03838), after its linear form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from weathermill.models.harmonics import HarmonicTransform
from weathermill.models.layers import recomputed
from weathermill.models.registry import ModelConfig, register_network
from weathermill.models.suitability import require_sphere


class SpectralConvolution(nn.Module):
    """A convolution with zonal kernels: a real weight for each total wavenumber and pair of channels.

    It commutes with all rotations of the sphere (Driscoll and Healy, 1994, doi:10.1006/aama.1994.1008). Complex weights
    would commute with those about the axis alone.

    Parameters
    ----------
    channels
        In and out.
    transform
        To coefficients and back.
    """

    def __init__(self, channels: int, transform: HarmonicTransform) -> None:
        super().__init__()
        self.transform = transform
        self.weight = nn.Parameter(torch.randn(channels, channels, transform.degrees) / np.sqrt(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, latitude, longitude) to the same shape; in float32 at least."""
        kind = torch.promote_types(x.dtype, torch.float32)
        coefficients = self.transform(x.to(kind))
        weight = self.weight.to(kind)
        real, imaginary = (
            torch.einsum("bilm,iol->bolm", part, weight) for part in (coefficients.real, coefficients.imag)
        )
        return self.transform.inverse(torch.complex(real, imaginary)).to(x.dtype)


class SpectralBlock(nn.Module):
    """A spectral convolution and a pointwise network, each added to its input."""

    def __init__(self, channels: int, transform: HarmonicTransform, dropout: float) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(1, channels)
        self.spectral = SpectralConvolution(channels, transform)
        self.local = nn.Conv2d(channels, channels, 1)
        self.second_norm = nn.GroupNorm(1, channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, latitude, longitude) to the same shape."""
        y = self.first_norm(x)
        # The transforms are in float32: under autocast, sums over a thousand longitudes would lose too much.
        spectral = y if y.is_meta else y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
        x = x + F.gelu(self._without_autocast(spectral).to(y.dtype) + self.local(y))
        y = self.narrow(F.gelu(self.widen(self.second_norm(x))))
        return x + (F.dropout2d(y, self.dropout, self.training) if self.dropout else y)

    def _without_autocast(self, y: Tensor) -> Tensor:
        if y.is_meta:
            return self.spectral(y)
        with torch.autocast(y.device.type, enabled=False):
            return self.spectral(y)


class SFNO(nn.Module):
    """Spectral blocks on the sphere between pointwise layers; commutes with rolling in longitude by any number of cells.

    Parameters
    ----------
    config
        ``base_channels`` wide, ``depth`` blocks, ``modes`` total wavenumbers.
    in_channels, out_channels
        Channels of input and output.
    grid_shape
        (latitudes, longitudes), global.
    latitude
        Degrees; equally spaced without pole points when None.
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
        require_sphere(config.with_edges(latitude, None).edges)
        rows, columns = grid_shape
        latitude = 90.0 - (np.arange(rows) + 0.5) * 180.0 / rows if latitude is None else latitude
        # Set by the training step: recompute each block's activations in the backward pass.
        self.checkpoint_blocks = False
        channels = config.base_channels
        transform = HarmonicTransform(latitude, columns, config.modes)
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1), nn.GELU(), nn.Conv2d(channels, channels, 1)
        )
        self.blocks = nn.ModuleList(
            SpectralBlock(channels, transform, config.dropout) for _ in range(config.depth)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels + in_channels, channels, 1), nn.GELU(), nn.Conv2d(channels, out_channels, 1)
        )
        if config.zero_head:
            nn.init.zeros_(self.decoder[-1].weight)
            nn.init.zeros_(self.decoder[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, latitude, longitude) to (batch, out_channels, latitude, longitude)."""
        y = self.encoder(x)
        for block in self.blocks:
            if self.checkpoint_blocks and self.training and torch.is_grad_enabled():
                y = recomputed(block, block, y)
            else:
                y = block(y)
        return self.decoder(torch.cat([y, x.to(y.dtype)], dim=1))


@register_network("sfno")
def build_sfno(config: ModelConfig, **sizes: object) -> SFNO:
    """Build an `SFNO`; see there."""
    return SFNO(config, **sizes)
