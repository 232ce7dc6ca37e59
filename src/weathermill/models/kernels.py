"""Memory-bound pieces of the fast U-Net, in three forms: shapes alone (meta), plain torch, and Triton on CUDA.

Everything here is channel-innermost: images are (batch, rows, columns, channels), contiguous. A *haloed*
buffer is (batch, rows + 2, columns + 2, channels) with one cell around the interior; a *half* of one is a
slice of its channels. Sums over images are in float32 (float64 for float64 images), in a fixed order, so that
results repeat to the bit.

The plain forms define what the Triton kernels compute, and are what the tests compare them with.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from weathermill.models.sphere import Halo, SphereGrid


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed, as it is with CUDA builds of torch."""
    return importlib.util.find_spec("triton") is not None


def triton_kernels() -> ModuleType:
    """Return the CUDA kernels; imported late, as Triton comes with CUDA builds of torch only."""
    return importlib.import_module("weathermill.models.kernels_triton")


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Type of sums over images of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass
class Moments:
    """Batch statistics of one normalisation and the affine map that they make with its weights; all (channels,).

    Parameters
    ----------
    mean, rstd
        Mean and reciprocal standard deviation (with epsilon) over the batch.
    scale, shift
        The normalised and rescaled image is ``scale * y + shift``.
    """

    mean: Tensor
    rstd: Tensor
    scale: Tensor
    shift: Tensor


def interior(buffer: Tensor) -> Tensor:
    """View of a haloed buffer without its halo."""
    return buffer[:, 1:-1, 1:-1]


def empty_haloed(y: Tensor, halo: Halo, channels: int) -> Tensor:
    """Allocate a haloed buffer for images on `halo`'s grid, of the type and batch of `y`."""
    return y.new_empty((y.shape[0], halo.shape[0] + 2, halo.shape[1] + 2, channels))


def fill_halo(buffer: Tensor, halo: Halo) -> None:
    """Fill the halo of a buffer from its interior, in place."""
    if buffer.is_meta:
        return
    if buffer.is_cuda:
        triton_kernels().fill_halo(buffer, halo)
        return
    inside = interior(buffer)
    buffer[:, 0, 1:-1] = 0 if halo.zero_north else inside[:, halo.north].roll(-halo.north_shift, 1)
    buffer[:, -1, 1:-1] = 0 if halo.zero_south else inside[:, halo.south].roll(-halo.south_shift, 1)
    buffer[:, :, 0] = 0 if halo.zero_columns else buffer[:, :, 1 + halo.west]
    buffer[:, :, -1] = 0 if halo.zero_columns else buffer[:, :, 1 + halo.east]


def fold_halo(buffer: Tensor, halo: Halo) -> None:
    """Add the gradient in the halo of a buffer to the cells that the halo was filled from, in place."""
    if buffer.is_meta or halo.zeros:
        return
    if buffer.is_cuda:
        triton_kernels().fold_halo(buffer, halo)
        return
    inside = interior(buffer)
    if not halo.zero_columns:
        buffer[:, :, 1 + halo.west] += buffer[:, :, 0]
        buffer[:, :, 1 + halo.east] += buffer[:, :, -1]
    if not halo.zero_north:
        inside[:, halo.north] += buffer[:, 0, 1:-1].roll(halo.north_shift, 1)
    if not halo.zero_south:
        inside[:, halo.south] += buffer[:, -1, 1:-1].roll(halo.south_shift, 1)


def pack(state: Tensor, static: Tensor, grid: SphereGrid, channels: int, dtype: torch.dtype) -> Tensor:
    """Bring fields into the network's layout.

    Parameters
    ----------
    state
        (batch, n, latitudes, longitudes), of any type and strides.
    static
        (m, latitudes, longitudes): the same for every sample.
    grid
        Its margins and first halo are filled.
    channels
        Of the result, at least n + m; those beyond are zero.
    dtype
        Of the result.

    Returns
    -------
    torch.Tensor
        Haloed, (batch, rows + 2, columns + 2, channels).
    """
    halo = grid.halo(0)
    shape = (state.shape[0], halo.shape[0] + 2, halo.shape[1] + 2, channels)
    buffer = torch.empty(shape, dtype=dtype, device=state.device)
    if buffer.is_meta:
        return buffer
    if buffer.is_cuda:
        triton_kernels().pack(state, static, grid, buffer)
    else:
        n = state.shape[1]
        interior(buffer)[..., :n] = grid.pad(state.to(dtype)).permute(0, 2, 3, 1)
        interior(buffer)[..., n : n + static.shape[0]] = grid.pad(static[None].to(dtype)).permute(0, 2, 3, 1)
        interior(buffer)[..., n + static.shape[0] :] = 0
    fill_halo(buffer, halo)
    return buffer


def unpack_gradient(buffer: Tensor, grid: SphereGrid, channels: int) -> Tensor:
    """Gradient of the first `channels` fields that `pack` packed, from that of its result, which is overwritten.

    Returns
    -------
    torch.Tensor
        (batch, channels, latitudes, longitudes), in the type of sums.
    """
    fold_halo(buffer, grid.halo(0))
    inside = interior(buffer)[..., :channels].permute(0, 3, 1, 2)
    gradient = grid.crop(inside).to(
        accumulator(buffer.dtype), memory_format=torch.contiguous_format, copy=True
    )
    if not buffer.is_meta:
        grid.fold(gradient, inside)
    return gradient


def moments(
    y: Tensor,
    gamma: Tensor,
    beta: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor],
    momentum: float,
    eps: float,
) -> Moments:
    """Batch statistics of y; the running ones, of y + bias, are updated in place unless momentum is zero.

    Parameters
    ----------
    y
        (batch, rows, columns, channels).
    gamma, beta
        Weight and bias of the normalisation.
    bias
        Of the convolution before it, which y lacks.
    running
        Running mean and variance.
    momentum, eps
        Of the normalisation.
    """
    channels = y.shape[-1]
    mean, rstd, scale, shift = torch.empty(
        (4, channels), dtype=accumulator(y.dtype), device=y.device
    ).unbind()
    result = Moments(mean, rstd, scale, shift)
    if y.is_meta:
        return result
    if y.is_cuda:
        triton_kernels().moments(y, gamma, beta, bias, running, momentum, eps, result)
        return result
    count = y.numel() // channels
    values = y.reshape(-1, channels).to(mean.dtype)
    variance, average = torch.var_mean(values, dim=0, correction=0)
    mean.copy_(average)
    rstd.copy_((variance + eps).rsqrt())
    scale.copy_(gamma * rstd)
    shift.copy_(beta - mean * scale)
    if momentum:
        running[0].lerp_((average + bias).to(running[0].dtype), momentum)
        running[1].lerp_((variance * (count / max(count - 1, 1))).to(running[1].dtype), momentum)
    return result


def frozen_moments(
    gamma: Tensor, beta: Tensor, bias: Tensor, running: tuple[Tensor, Tensor], eps: float, dtype: torch.dtype
) -> Moments:
    """Statistics of evaluation mode, for images that lack the convolution's bias; see `moments`."""
    kind = accumulator(dtype)
    mean = (running[0] - bias).to(kind)
    rstd = (running[1].to(kind) + eps).rsqrt()
    scale = gamma * rstd
    return Moments(mean, rstd, scale, beta - mean * scale)


def rectify(y: Tensor, m: Moments) -> Tensor:
    """Normalise and rectify: ``relu(scale * y + shift)``, of the shape of y."""
    z = torch.empty_like(y)
    _rectify_into(y, m, z)
    return z


def rectify_haloed(y: Tensor, m: Moments, halo: Halo) -> Tensor:
    """Normalise and rectify into a new haloed buffer."""
    z = empty_haloed(y, halo, y.shape[-1])
    _rectify_into(y, m, interior(z))
    fill_halo(z, halo)
    return z


def _rectify_into(y: Tensor, m: Moments, target: Tensor) -> None:
    if y.is_meta:
        return
    if y.is_cuda:
        triton_kernels().rectify(y, m, target)
        return
    target.copy_((y * m.scale + m.shift).clamp_min(0))


def rectify_pool(y: Tensor, m: Moments, skip: Tensor, below: Halo) -> Tensor:
    """Normalise and rectify into the first half of a haloed buffer, and pool by two into a new one.

    Parameters
    ----------
    y
        (batch, rows, columns, channels).
    m
        Its statistics.
    skip
        Haloed, with twice the channels; the interior of its first half is written.
    below
        Halo of the pooled grid.

    Returns
    -------
    torch.Tensor
        Haloed: the maximum over two by two cells.
    """
    pooled = empty_haloed(y, below, y.shape[-1])
    if not y.is_meta:
        half = interior(skip)[..., : y.shape[-1]]
        if y.is_cuda:
            triton_kernels().rectify_pool(y, m, half, interior(pooled))
        else:
            half.copy_((y * m.scale + m.shift).clamp_min(0))
            interior(pooled).copy_(_windows(half).amax(dim=3))
    fill_halo(pooled, below)
    return pooled


def rectify_backward(
    y: Tensor, m: Moments, gamma: Tensor, dz: Tensor, dpooled: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the batch-normalised, rectified (and pooled) image.

    Parameters
    ----------
    y
        (batch, rows, columns, channels): the input of the normalisation.
    m
        Its statistics.
    gamma
        Weight of the normalisation.
    dz
        Gradient of the rectified image, of the shape of y, with any strides that keep channels innermost.
    dpooled
        Gradient of its pooled image, likewise; None where it was not pooled.

    Returns
    -------
    tuple
        Gradients of y, gamma and beta.
    """
    channels = y.shape[-1]
    dy = torch.empty_like(y)
    dgamma, dbeta = torch.empty((2, channels), dtype=accumulator(y.dtype), device=y.device).unbind()
    if y.is_meta:
        return dy, dgamma, dbeta
    if y.is_cuda:
        triton_kernels().rectify_backward(y, m, gamma, dz, dpooled, dy, dgamma, dbeta)
        return dy, dgamma, dbeta
    count = y.numel() // channels
    z = (y * m.scale + m.shift).clamp_min(0).to(y.dtype)
    kind = dgamma.dtype
    g = dz.to(kind)
    if dpooled is not None:
        windows = _windows(z)
        first = torch.nn.functional.one_hot(windows.argmax(dim=3), 4).permute(0, 1, 2, 4, 3)
        spread = (first * dpooled.to(kind)[:, :, :, None]).unflatten(3, (2, 2)).permute(0, 1, 3, 2, 4, 5)
        g = g + spread.reshape(y.shape)
    g = g * (z > 0)
    xhat = (y.to(kind) - m.mean) * m.rstd
    dbeta.copy_(g.sum(dim=(0, 1, 2)))
    dgamma.copy_((g * xhat).sum(dim=(0, 1, 2)))
    dy.copy_(m.scale * (g - dbeta / count - xhat * (dgamma / count)))
    return dy, dgamma, dbeta


def scatter_up(products: Tensor, bias: Tensor, target: Tensor) -> None:
    """Lay out the products of a transposed convolution, kernel and stride two, on the finer grid.

    Parameters
    ----------
    products
        (batch, rows, columns, 2, 2, channels).
    bias
        (channels,), added.
    target
        (batch, 2 rows, 2 columns, channels), written; a view of a haloed buffer.
    """
    if products.is_meta:
        return
    if products.is_cuda:
        triton_kernels().scatter_up(products, bias, target)
        return
    n, rows, columns, _, _, channels = products.shape
    target.copy_((products + bias).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * rows, 2 * columns, channels))


def gather_up(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Undo `scatter_up` for gradients.

    Parameters
    ----------
    gradient
        (batch, 2 rows, 2 columns, channels), a view of a haloed buffer.

    Returns
    -------
    tuple
        Gradients of the products (batch, rows, columns, 2, 2, channels) and of the bias (channels,).
    """
    n, rows, columns, channels = gradient.shape
    products = gradient.new_empty((n, rows // 2, columns // 2, 2, 2, channels))
    dbias = torch.empty((channels,), dtype=accumulator(gradient.dtype), device=gradient.device)
    if gradient.is_meta:
        return products, dbias
    if gradient.is_cuda:
        triton_kernels().gather_up(gradient, products, dbias)
    else:
        products.copy_(gradient.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 3, 2, 4, 5))
        dbias.copy_(gradient.to(dbias.dtype).sum(dim=(0, 1, 2)))
    return products, dbias


def column_sums(x: Tensor) -> Tensor:
    """Sum of (batch, rows, columns, channels) over all cells: (channels,)."""
    total = torch.empty((x.shape[-1],), dtype=accumulator(x.dtype), device=x.device)
    if x.is_cuda:
        triton_kernels().column_sums(x, total)
    elif not x.is_meta:
        total.copy_(x.to(total.dtype).sum(dim=(0, 1, 2)))
    return total


def _windows(z: Tensor) -> Tensor:
    """(batch, rows, columns, channels) to (batch, rows / 2, columns / 2, 4, channels)."""
    return z.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 3, 2, 4, 5).flatten(3, 4)
