"""The published baseline, written from its description: what an ordinary training step of this network costs.

The same U-Net (base 64, three levels, two 3x3 convolutions with batch normalisation and ReLU a block,
max-pooling, transposed convolutions, a 1x1 head) with zero padding, eager, channels first, float32 with TF32
convolutions (torch's default) or without, batch 4, AdamW at 1e-4 with weight decay 1e-5, area-weighted mean
squared error of the next state. It crashes on odd sizes, so it is given the grid padded to a multiple of
eight, in float32, on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class BaselineUNet(nn.Module):
    """(batch, channels, rows, columns) to the same shape; rows and columns divide by eight."""

    def __init__(self, channels: int = 65, base: int = 64, depth: int = 3) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.encoders = nn.ModuleList(
            _block(i, o) for i, o in zip([channels, *widths], widths[:-1], strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = _block(widths[-2], widths[-1])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.decoders = nn.ModuleList(_block(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(base, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        skips = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


class BaselineStep:
    """One eager optimiser step on (input, target), each (batch, channels, rows, columns) float32."""

    def __init__(
        self, channels: int, rows: int, device: torch.device, tf32: bool = True, base: int = 64
    ) -> None:
        torch.backends.cudnn.allow_tf32 = tf32
        self.network = BaselineUNet(channels, base).to(device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4, weight_decay=1e-5)
        weights = torch.cos(torch.linspace(-torch.pi / 2, torch.pi / 2, rows, device=device))
        self.weights = (weights / weights.mean()).view(1, 1, -1, 1)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on one batch; gives the loss, 0-d, on the device."""
        self.optimiser.zero_grad()
        loss = ((self.network(x) - y) ** 2 * self.weights).mean()
        loss.backward()
        self.optimiser.step()
        return loss.detach()
