"""The plain kernels against autograd; the Triton ones against the plain ones, on CUDA or in Triton's interpreter."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from weathermill.models import kernels
from weathermill.models.boundary import PADDINGS, SPHERE, Edges
from weathermill.models.sphere import SphereGrid

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton_only = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="needs CUDA, or TRITON_INTERPRET=1 and Triton"
)
GRIDS = [((8, 8), 3, True), ((13, 16), 2, True), ((16, 24), 2, False), ((9, 12), 1, True), ((5, 6), 1, False)]


EDGES = {
    "sphere": SPHERE,
    **{padding: Edges.uniform(padding) for padding in PADDINGS},
    "northern hemisphere": Edges("pole", "replicate", "periodic"),
    "southern hemisphere": Edges("zeros", "pole", "periodic"),
    "band": Edges("reflect", "reflect", "periodic"),
    "mixed": Edges("zeros", "reflect", "replicate"),
    "between walls": Edges("replicate", "reflect", "zeros"),
}


def sphere(shape, depth, poles, edges=SPHERE) -> SphereGrid:
    return SphereGrid(shape, depth, (poles, poles), edges)


def of_kinds(*names):
    return pytest.mark.parametrize(
        "edges", [EDGES[name] for name in names or EDGES], ids=names or list(EDGES)
    )


def divides(grid: SphereGrid) -> bool:
    """Whether the fast pass takes the grid."""
    return grid.edges.longitude != "periodic" or grid.margins[2] == 0


def normal(*shape, seed=0, dtype=torch.float32, device=DEVICE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def close(a, b, dtype=torch.float32):
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    torch.testing.assert_close(a.float(), b.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("shape", "depth", "poles"), GRIDS)
@of_kinds()
def test_folding_a_halo_is_the_transpose_of_filling_it(shape, depth, poles, edges):
    grid = sphere(shape, depth, poles, edges)
    for level in range(depth + 1):
        halo = grid.halo(level)
        x = normal(2, *halo.shape, 3, device="cpu").double().requires_grad_()
        haloed = halo.pad(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        buffer = torch.full(haloed.shape, torch.nan, dtype=torch.float64)
        kernels.interior(buffer).copy_(x.detach())
        kernels.fill_halo(buffer, halo)
        assert torch.equal(buffer, haloed)
        weights = normal(*haloed.shape, seed=1, device="cpu").double()
        (haloed * weights).sum().backward()
        kernels.fold_halo(weights, halo)
        torch.testing.assert_close(kernels.interior(weights), x.grad)


@pytest.mark.parametrize(("shape", "depth", "poles"), [*GRIDS, ((9, 13), 2, False)])
@of_kinds()
def test_unpacking_a_gradient_is_the_transpose_of_packing(shape, depth, poles, edges):
    grid = sphere(shape, depth, poles, edges)
    if not divides(grid):
        pytest.skip("the fast pass leaves such a grid to autograd")
    x = normal(2, 3, *shape, device="cpu").double().requires_grad_()
    haloed = grid.halo(0).pad(grid.pad(x))
    buffer = kernels.pack(x.detach(), normal(1, *shape, device="cpu"), grid, 8, torch.float64)
    assert torch.equal(buffer[..., :3].permute(0, 3, 1, 2), haloed)
    weights = normal(*buffer.shape, seed=1, device="cpu").double()
    (haloed * weights[..., :3].permute(0, 3, 1, 2)).sum().backward()
    torch.testing.assert_close(kernels.unpack_gradient(weights, grid, 3), x.grad)


@triton_only
@pytest.mark.parametrize(("shape", "depth", "poles"), GRIDS)
@of_kinds()
@pytest.mark.parametrize("channels", [8, 24])
def test_triton_fills_and_folds_halos(shape, depth, poles, edges, channels):
    triton_kernels = kernels.triton_kernels()
    grid = sphere(shape, depth, poles, edges)
    for level in range(depth + 1):
        halo = grid.halo(level)
        buffer = normal(2, halo.shape[0] + 2, halo.shape[1] + 2, channels)
        expected = buffer.cpu()
        kernels.fill_halo(expected, halo)
        got = buffer.clone()
        triton_kernels.fill_halo(got, halo)
        assert torch.equal(got.cpu(), expected)
        if not halo.zeros:
            expected, got = buffer.cpu(), buffer.clone()
            kernels.fold_halo(expected, halo)
            triton_kernels.fold_halo(got, halo)
            close(kernels.interior(got).cpu(), kernels.interior(expected))


@triton_only
@pytest.mark.parametrize(("shape", "depth", "poles"), GRIDS)
@of_kinds()
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_triton_packs_fields(shape, depth, poles, edges, dtype):
    grid = sphere(shape, depth, poles, edges)
    window = normal(2, 3, 7, *shape, dtype=dtype)
    static = normal(2, *shape, seed=1)
    expected = kernels.pack(window[:, 1, :5].cpu(), static.cpu(), grid, 40, torch.float32)
    got = torch.full_like(expected, torch.nan, device=DEVICE)
    kernels.triton_kernels().pack(window[:, 1, :5], static, grid, got)
    assert torch.equal(kernels.interior(got).cpu(), kernels.interior(expected))


def moments_of(y, device, seed=5):
    channels = y.shape[-1]
    gamma, beta, bias = (normal(channels, seed=seed + i, device=device) for i in range(3))
    running = [torch.zeros(channels, device=device), torch.ones(channels, device=device)]
    return gamma, beta, bias, running


@triton_only
@pytest.mark.parametrize("channels", [8, 24, 160])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_normalises_forward_and_backward(channels, dtype):
    triton_kernels = kernels.triton_kernels()
    grid = sphere((13, 16), 2, True)
    halo, below = grid.halo(0), grid.halo(1)
    y = (normal(2, *halo.shape, channels) * 3 + 100 * normal(channels, seed=9)).to(dtype)
    weights, expected_weights = moments_of(y, DEVICE), moments_of(y, "cpu")
    m = kernels.Moments(*torch.full((4, channels), torch.nan, device=DEVICE).unbind())
    triton_kernels.moments(y, *weights, 0.1, 1e-5, m)
    reference = kernels.moments(y.cpu(), *expected_weights, 0.1, 1e-5)
    for name in ("mean", "rstd", "scale", "shift"):
        torch.testing.assert_close(getattr(m, name).cpu(), getattr(reference, name), rtol=1e-4, atol=1e-4)
    for a, b in zip(weights[3], expected_weights[3], strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
    gamma = weights[0]
    m = kernels.Moments(*(getattr(reference, k).to(DEVICE) for k in ("mean", "rstd", "scale", "shift")))

    expected = kernels.rectify(y.cpu(), reference)
    target = torch.full(
        (2, halo.shape[0] + 2, halo.shape[1] + 2, channels), torch.nan, dtype=dtype, device=DEVICE
    )
    triton_kernels.rectify(y, m, kernels.interior(target))
    close(kernels.interior(target).cpu(), expected, dtype)

    skip = torch.full(
        (2, halo.shape[0] + 2, halo.shape[1] + 2, 2 * channels), torch.nan, dtype=dtype, device=DEVICE
    )
    pooled = torch.full(
        (2, below.shape[0] + 2, below.shape[1] + 2, channels), torch.nan, dtype=dtype, device=DEVICE
    )
    triton_kernels.rectify_pool(y, m, kernels.interior(skip)[..., :channels], kernels.interior(pooled))
    expected_skip = torch.zeros(skip.shape, dtype=dtype)
    expected_pooled = kernels.rectify_pool(y.cpu(), reference, expected_skip, below)
    close(
        kernels.interior(skip)[..., :channels].cpu(), kernels.interior(expected_skip)[..., :channels], dtype
    )
    close(kernels.interior(pooled).cpu(), kernels.interior(expected_pooled), dtype)
    assert skip.isnan().sum() == skip.numel() - y.numel()

    for dpooled in (None, normal(*pooled.shape, seed=7).to(dtype)):
        dz = kernels.interior(normal(*skip.shape, seed=8).to(dtype))[..., :channels]
        inside = None if dpooled is None else kernels.interior(dpooled)
        outs = [torch.full_like(y, torch.nan), *torch.full((2, channels), torch.nan, device=DEVICE).unbind()]
        triton_kernels.rectify_backward(y, m, gamma, dz, inside, *outs)
        again = [torch.full_like(y, torch.nan), *torch.full((2, channels), torch.nan, device=DEVICE).unbind()]
        triton_kernels.rectify_backward(y, m, gamma, dz, inside, *again)
        expected = kernels.rectify_backward(
            y.cpu(), reference, gamma.cpu(), dz.cpu(), None if inside is None else inside.cpu()
        )
        for a, b, c in zip(outs, expected, again, strict=True):
            assert torch.equal(a, c)
            scale = b.float().abs().max()
            close(a.cpu() / scale, b / scale, dtype)


@triton_only
@pytest.mark.parametrize("channels", [8, 160])
def test_triton_moves_products_up_and_down(channels):
    triton_kernels = kernels.triton_kernels()
    products, bias = normal(2, 3, 4, 2, 2, channels), normal(channels, seed=1)
    target = torch.full((2, 8, 10, 2 * channels), torch.nan, device=DEVICE)
    triton_kernels.scatter_up(products, bias, kernels.interior(target)[..., channels:])
    expected = torch.full((2, 8, 10, 2 * channels), torch.nan)
    kernels.scatter_up(products.cpu(), bias.cpu(), kernels.interior(expected)[..., channels:])
    torch.testing.assert_close(target.cpu(), expected, equal_nan=True)
    gradient = kernels.interior(normal(2, 8, 10, 2 * channels, seed=2))[..., channels:]
    got, dbias = torch.full_like(products, torch.nan), torch.full_like(bias, torch.nan)
    triton_kernels.gather_up(gradient, got, dbias)
    expected, expected_bias = kernels.gather_up(gradient.cpu())
    close(got.cpu(), expected)
    close(dbias.cpu(), expected_bias)


def test_scattering_up_is_a_transposed_convolution():
    up = torch.nn.ConvTranspose2d(6, 4, 2, 2).double()
    z = normal(2, 3, 5, 6, device="cpu").double()
    products = (z @ up.weight.permute(0, 2, 3, 1).reshape(6, -1)).view(2, 3, 5, 2, 2, 4)
    target = torch.empty(2, 6, 10, 4, dtype=torch.float64)
    kernels.scatter_up(products, up.bias, target)
    torch.testing.assert_close(target, up(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def test_statistics_with_a_large_mean_keep_their_variance():
    y = (normal(4, 9, 10, 8, device="cpu") * 0.5 + 1000.0).float()
    exact = y.double().var(dim=(0, 1, 2), correction=0)
    one = torch.ones(8)
    m = kernels.moments(y, one, 0 * one, 0 * one, (0 * one, one.clone()), 0.0, 0.0)
    np.testing.assert_allclose(m.rstd**-2, exact, rtol=1e-4)
