"""The U-Net's forward and backward pass by hand: channel-innermost, halos in place, nothing copied twice.

Autograd over single layers reads and writes each image many times: to pad it, to normalise it, to rectify it,
to concatenate it. Here every convolution reads a haloed buffer that the normalisation before it wrote, skip
connections are written into the buffer that the decoder reads, and the backward pass folds halos in place.
What is kept for the backward pass is, for each convolution, its haloed input and its output; with blocks
recomputed, each block's input.

Only for batch normalisation without dropout, on grids that do not go round the circle or whose longitudes divide by
the stride.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from weathermill.models import kernels
from weathermill.models.boundary import PERIODIC
from weathermill.models.kernels import Moments
from weathermill.models.layers import padded_channels

if TYPE_CHECKING:
    from weathermill.models.layers import ConvNormReLU
    from weathermill.models.unet import Block, UNet


# cuDNN falls back to slow kernels where half-precision input channels are no multiple of 32.
INPUT_CHANNEL_MULTIPLE = 32


def supports(network: UNet) -> bool:
    """Whether the fast pass computes what the network's layers would."""
    ring = network.grid.edges.longitude != PERIODIC or network.grid.margins[2] == 0
    batch_norms = all(
        isinstance(c.norm, nn.BatchNorm2d) for b in network.blocks() for c in (b.first, b.second)
    )
    return ring and batch_norms and not network.config.dropout and network.config.base_channels % 8 == 0


def run(network: UNet, state: Tensor, static: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply the network.

    Parameters
    ----------
    network
        In training or evaluation mode; in evaluation mode no gradient is kept.
    state, static
        (batch, n, latitudes, longitudes) and (m, latitudes, longitudes); n + m are the network's input
        channels.
    dtype
        Of images and of the products' factors.

    Returns
    -------
    torch.Tensor
        (batch, rows, columns, channels): on the padded grid, channels innermost and padded to a multiple of
        eight.
    """
    if network.training:
        return _Pass.apply(network, dtype, state, static, *network.parameters())
    with torch.no_grad():
        return _Tape(network, dtype, keep=False).forward(state, static)


class _Pass(torch.autograd.Function):
    """Joins the hand-written passes to autograd."""

    @staticmethod
    def forward(
        ctx: Any, network: UNet, dtype: torch.dtype, state: Tensor, static: Tensor, *parameters: Tensor
    ):
        with _no_autocast(state):
            tape = _Tape(network, dtype, keep=any(ctx.needs_input_grad) and not network.checkpoint_whole)
            output = tape.forward(state, static)
        ctx.tape, ctx.order = tape, parameters
        ctx.again = (state, static) if network.checkpoint_whole else None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        tape = ctx.tape
        ctx.tape = None
        with _no_autocast(gradient):
            if ctx.again is not None:
                tape = _Tape(tape.network, tape.dtype, keep=True, update=False)
                tape.forward(*ctx.again)
            dstate = tape.backward(gradient, ctx.needs_input_grad[2])
        return None, None, dstate, None, *(tape.gradients.pop(id(p)) for p in ctx.order)


class _BlockTape:
    """What one block keeps: its input, and unless it recomputes, its images."""

    def __init__(self, block: Block, x: Tensor) -> None:
        self.block, self.x = block, x
        self.first_moments: Moments | None = None
        self.second_moments: Moments | None = None
        self.first: Tensor | None = None
        self.between: Tensor | None = None
        self.second: Tensor | None = None


class _Tape:
    """One forward pass and what its backward pass needs."""

    def __init__(self, network: UNet, dtype: torch.dtype, keep: bool, update: bool = True) -> None:
        self.network, self.dtype, self.keep, self.update = network, dtype, keep, update
        self.recompute = network.checkpoint_blocks
        self.gradients: dict[int, Tensor] = {}
        self.lowered_gradients: list[tuple[Tensor, Tensor]] = []
        self.blocks: list[_BlockTape] = []
        self.coarse: list[Tensor] = []
        self.weights: dict[int, Tensor] = {}

    def forward(self, state: Tensor, static: Tensor) -> Tensor:
        network, grid = self.network, self.network.grid
        self._at("weights")
        self._lower_weights()
        self._at("input")
        x = kernels.pack(state, static, grid, self.input_channels, self.dtype)
        skips = []
        for level, block in enumerate(network.down):
            self._at(f"down.{level}")
            tape = self._block(block, x)
            skip = kernels.empty_haloed(tape.second, grid.halo(level), 2 * tape.second.shape[-1])
            x = kernels.rectify_pool(tape.second, tape.second_moments, skip, grid.halo(level + 1))
            skips.append(skip)
            self._keep(tape)
        self._at("bottom")
        tape = self._block(network.bottom, x)
        z = kernels.rectify(tape.second, tape.second_moments)
        self._keep(tape)
        for level, (up, block) in enumerate(zip(network.up, network.merge, strict=True)):
            self._at(f"merge.{level}")
            x = skips.pop()
            self._up(up, z, x, grid.halo(len(skips)))
            if self.keep:
                self.coarse.append(z)
            tape = self._block(block, x)
            z = kernels.rectify(tape.second, tape.second_moments)
            self._keep(tape)
        if self.keep:
            self.coarse.append(z)
        self._at("head")
        bias = _padded(network.head.bias, padded_channels(network.out_channels)).to(self.dtype)
        return torch.nn.functional.linear(z, self._head_weight(), bias)

    def backward(self, gradient: Tensor, state_needs_gradient: bool) -> Tensor | None:
        network, grid = self.network, self.network.grid
        self._at("backward")
        gradient = gradient.contiguous()
        z = self.coarse.pop()
        self._set(network.head.weight, _inner(gradient, z)[: network.out_channels, :, None, None])
        self._set(network.head.bias, kernels.column_sums(gradient)[: network.out_channels])
        dz = gradient @ self._head_weight()
        del z, gradient
        skip_gradients = []
        for up in reversed(network.up):
            dcat = self._block_backward(dz, None)
            half = dcat.shape[-1] // 2
            kernels.fold_halo(dcat, grid.halo(len(skip_gradients)))
            skip_gradients.append(dcat)
            dz = self._up_backward(up, kernels.interior(dcat)[..., half:])
        dx = self._block_backward(dz, None)
        del dz, dcat
        for level in range(len(network.down) - 1, -1, -1):
            kernels.fold_halo(dx, grid.halo(level + 1))
            dcat = skip_gradients.pop()
            dskip = kernels.interior(dcat)[..., : dcat.shape[-1] // 2]
            needs_input = level > 0 or state_needs_gradient
            dx = self._block_backward(dskip, kernels.interior(dx), needs_input)
            del dcat, dskip
        self._at("gradients")
        self._raise_gradients()
        self._at("backward")
        if not state_needs_gradient:
            return None
        channels = network.in_channels - self.static_channels
        return kernels.unpack_gradient(dx, grid, channels)

    def _at(self, part: str) -> None:
        """Tell whoever counts memory which part the next images belong to."""
        if self.network.observer is not None:
            self.network.observer(part)

    @property
    def input_channels(self) -> int:
        """Channels of the packed input."""
        multiple = INPUT_CHANNEL_MULTIPLE if self.dtype in (torch.bfloat16, torch.float16) else 8
        return -(-self.network.in_channels // multiple) * multiple

    @property
    def static_channels(self) -> int:
        return self.network.static_channels

    def _block(self, block: Block, x: Tensor) -> _BlockTape:
        """Convolve, normalise, rectify and convolve again; the second normalisation is applied by the caller."""
        tape = _BlockTape(block, x)
        tape.first = self._convolve(block.first, x)
        tape.first_moments = self._moments(block.first, tape.first)
        tape.between = kernels.rectify_haloed(tape.first, tape.first_moments, block.first.halo)
        if not self.keep:
            tape.first = None
        tape.second = self._convolve(block.second, tape.between)
        tape.second_moments = self._moments(block.second, tape.second)
        return tape

    def _keep(self, tape: _BlockTape) -> None:
        if not self.keep or self.recompute:
            tape.first = tape.between = tape.second = None
        if self.keep:
            self.blocks.append(tape)

    def _block_backward(self, dz: Tensor, dpooled: Tensor | None, needs_input: bool = True) -> Tensor | None:
        """Gradient of a block's haloed input, its halo not folded yet, from that of its rectified output."""
        tape = self.blocks.pop()
        block = tape.block
        if tape.first is None:
            tape.first = self._convolve(block.first, tape.x)
            tape.between = kernels.rectify_haloed(tape.first, tape.first_moments, block.first.halo)
            tape.second = self._convolve(block.second, tape.between)
        dy = self._norm_backward(block.second, tape.second, tape.second_moments, dz, dpooled)
        tape.second = None
        del dz, dpooled
        dbetween = self._convolve_backward(block.second, tape.between, dy)
        tape.between = None
        del dy
        kernels.fold_halo(dbetween, block.first.halo)
        dy = self._norm_backward(
            block.first, tape.first, tape.first_moments, kernels.interior(dbetween), None
        )
        tape.first = None
        del dbetween
        return self._convolve_backward(block.first, tape.x, dy, needs_input)

    def _moments(self, layer: ConvNormReLU, y: Tensor) -> Moments:
        norm = layer.norm
        running = norm.running_mean, norm.running_var
        if not norm.training:
            return kernels.frozen_moments(
                norm.weight, norm.bias, layer.conv.bias, running, norm.eps, self.dtype
            )
        momentum = norm.momentum if self.update else 0.0
        with torch.no_grad():
            return kernels.moments(y, norm.weight, norm.bias, layer.conv.bias, running, momentum, norm.eps)

    def _norm_backward(
        self, layer: ConvNormReLU, y: Tensor, m: Moments, dz: Tensor, dpooled: Tensor | None
    ) -> Tensor:
        dy, dgamma, dbeta = kernels.rectify_backward(y, m, layer.norm.weight, dz, dpooled)
        self._set(layer.norm.weight, dgamma)
        self._set(layer.norm.bias, dbeta)
        self._set(layer.conv.bias, torch.zeros_like(dbeta))
        return dy

    def _convolve(self, layer: ConvNormReLU, x: Tensor) -> Tensor:
        y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), self._weight(layer))
        return y.permute(0, 2, 3, 1).contiguous()

    def _convolve_backward(
        self, layer: ConvNormReLU, x: Tensor, dy: Tensor, needs_input: bool = True
    ) -> Tensor | None:
        weight = self._weight(layer)
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            dy.permute(0, 3, 1, 2),
            x.permute(0, 3, 1, 2),
            weight,
            None,
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            [needs_input, True, False],
        )
        self._set(layer.conv.weight, dweight[:, : layer.conv.in_channels])
        return dx.permute(0, 2, 3, 1).contiguous() if needs_input else None

    def _up(self, up: nn.ConvTranspose2d, z: Tensor, target: Tensor, halo: Any) -> None:
        channels = up.out_channels
        products = z @ self._up_weight(up)
        products = products.view(*z.shape[:3], 2, 2, channels)
        kernels.scatter_up(products, up.bias, kernels.interior(target)[..., channels:])
        kernels.fill_halo(target, halo)

    def _up_backward(self, up: nn.ConvTranspose2d, gradient: Tensor) -> Tensor:
        products, dbias = kernels.gather_up(gradient)
        products = products.flatten(3)
        z = self.coarse.pop()
        dweight = _inner(z, products).view(up.in_channels, 2, 2, up.out_channels)
        self._set(up.weight, dweight.permute(0, 3, 1, 2))
        self._set(up.bias, dbias)
        return products @ self._up_weight(up).T

    def _weight(self, layer: ConvNormReLU) -> Tensor:
        return self.weights[id(layer.conv.weight)]

    def _up_weight(self, up: nn.ConvTranspose2d) -> Tensor:
        """(in_channels, 4 out_channels), ordered as `kernels.scatter_up` wants."""
        return self.weights[id(up.weight)].permute(0, 2, 3, 1).reshape(up.in_channels, -1)

    def _head_weight(self) -> Tensor:
        return self.weights[id(self.network.head.weight)].flatten(1)

    @torch.no_grad()
    def _lower_weights(self) -> None:
        """Copy all weights to the images' type, channels innermost, padded with zeros where images are; count the batch.

        Many weights at once, as each launch costs more than its copy.
        """
        network = self.network
        first, head = network.down[0].first.conv.weight, network.head.weight
        high, low = [], []
        for weight in network.parameters():
            if weight.ndim != 4:
                continue
            inputs = self.input_channels if weight is first else weight.shape[1]
            outputs = padded_channels(weight.shape[0]) if weight is head else weight.shape[0]
            lowered = torch.empty(
                (outputs, inputs, *weight.shape[2:]),
                dtype=self.dtype,
                device=weight.device,
                memory_format=torch.channels_last,
            )
            self.weights[id(weight)] = lowered
            if lowered.shape != weight.shape:
                lowered.zero_()
                lowered[: weight.shape[0], : weight.shape[1]] = weight
            else:
                high.append(weight)
                low.append(lowered)
        torch._foreach_copy_(low, high)
        if network.training and self.update:
            torch._foreach_add_(
                [c.norm.num_batches_tracked for b in network.blocks() for c in (b.first, b.second)], 1
            )

    def _set(self, parameter: Tensor, gradient: Tensor) -> None:
        """Keep a gradient; `_raise_gradients` brings it into the parameter's type and layout."""
        if parameter.ndim == 4:
            self.lowered_gradients.append((parameter, gradient))
        else:
            self.gradients[id(parameter)] = gradient.to(parameter.dtype)

    def _raise_gradients(self) -> None:
        """Bring gradients of weights into the parameters' type and layout, so that autograd need not copy them."""
        high, low = [], []
        for parameter, gradient in self.lowered_gradients:
            raised = torch.empty_like(parameter)
            self.gradients[id(parameter)] = raised
            if gradient.stride() == raised.stride():
                high.append(raised)
                low.append(gradient)
            else:
                raised.copy_(gradient)
        self.lowered_gradients.clear()
        if high:
            torch._foreach_copy_(high, low)


def _no_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Sum over all cells of the outer products of channels: (channels of a, channels of b)."""
    return a.flatten(0, 2).T @ b.flatten(0, 2)


def _padded(x: Tensor, rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros((rows - x.shape[0], *x.shape[1:]))]) if rows > x.shape[0] else x
