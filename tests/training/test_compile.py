"""Every Triton kernel compiles for Hopper cards, without one: Triton brings the assembler along."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch

from weathermill.models.forecaster import Forecaster
from weathermill.models.kernels import Moments, has_triton, interior
from weathermill.models.registry import ModelConfig
from weathermill.models.sphere import SphereGrid
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.losses import KINDS, AreaWeightedLoss

pytestmark = pytest.mark.skipif(
    not has_triton() or torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs Triton, and neither CUDA, where kernels are run, nor the interpreter",
)
MODULES = (
    "models.triton_advance",
    "models.triton_halo",
    "models.triton_norm",
    "models.triton_sums",
    "models.triton_up",
    "training.advance_triton",
    "training.pointwise_triton",
    "training.spectral_triton",
)
TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
}
SHAPE, PADDED, CHANNELS = (13, 16), (16, 16), 8


def compile_for_hopper(kernel: Any, arguments: tuple[Any, ...], warps: int) -> int:
    """Bytes of machine code of what a launch with these arguments would compile."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants = {}, {}
    for parameter, value in zip(kernel.params, arguments, strict=True):
        if parameter.is_constexpr:
            constants[(parameter.num,)] = value
            signature[parameter.name] = "constexpr"
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    return len(compiled.asm["cubin"])


@pytest.fixture
def compiled(monkeypatch) -> dict[str, int]:
    """Compile what is launched, by the kernel's name, instead of launching it."""
    sizes: dict[str, int] = {}

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        sizes[kernel.__name__] = compile_for_hopper(kernel, arguments, options.get("num_warps", 4))

    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f"weathermill.{name}"), "launch", launch)
    return sizes


def image(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


def test_kernels_of_the_network(compiled):
    triton = importlib.import_module("weathermill.models.kernels_triton")
    grid = SphereGrid(SHAPE, 2, (True, True))
    halo = grid.halo(0)
    haloed = image(2, halo.shape[0] + 2, halo.shape[1] + 2, CHANNELS)
    pooled = image(2, halo.shape[0] // 2 + 2, halo.shape[1] // 2 + 2, CHANNELS)
    y, vector = image(2, *halo.shape, CHANNELS), torch.zeros(CHANNELS)
    moments = Moments(vector, vector, vector, vector)
    triton.fill_halo(haloed, halo)
    triton.fold_halo(haloed, halo)
    triton.pack(torch.zeros(2, 5, *SHAPE, dtype=torch.float16), torch.zeros(1, *SHAPE), grid, haloed)
    triton.moments(y, vector, vector, vector, (vector, vector), 0.1, 1e-5, moments)
    triton.rectify(y, moments, interior(haloed))
    triton.rectify_pool(y, moments, interior(haloed), interior(pooled))
    triton.rectify_backward(y, moments, vector, y, interior(pooled), y, vector, vector)
    triton.column_sums(y, vector)
    triton.scatter_up(image(2, 8, 8, 2, 2, CHANNELS), image(CHANNELS), interior(haloed))
    triton.gather_up(interior(haloed), image(2, 8, 8, 2, 2, CHANNELS), vector)
    assert len(compiled) >= 10 and min(compiled.values()) > 0


@pytest.mark.parametrize("residual", ["persistence", "damped_persistence"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_of_the_next_state_and_the_loss(compiled, residual, kind):
    advance, measure, pointwise = (
        importlib.import_module(f"weathermill.{name}")
        for name in ("models.triton_advance", "training.advance_triton", "training.pointwise_triton")
    )
    table = ChannelTable([Channel(f"c{i}", "c") for i in range(3)] + [Channel("sun", "sun", role="forcing")])
    one = torch.ones(4).numpy()
    latitude, longitude = (
        torch.linspace(a, b, n).double().numpy() for a, b, n in ((90, -90, 13), (0, 337.5, 16))
    )
    config = ModelConfig(base_channels=8, depth=2, residual=residual)
    model = Forecaster(config, table, latitude, longitude, 0 * one, one, one)
    loss = AreaWeightedLoss(kind, torch.ones(SHAPE[0]).numpy())
    window = torch.zeros(2, 2, 4, *SHAPE, dtype=torch.float16)
    state, target = window[:, 0], window[:, 1, :3]
    output, vector, factor = image(2, *PADDED, CHANNELS), torch.ones(3), torch.ones(3, 1, 1)
    after, gradient = torch.zeros(2, 3, *SHAPE), torch.zeros(2, 4, *SHAPE)
    advance.advance(output, state, model, after)
    advance.advance_backward(after, model, output, gradient)
    measure.measure(output, state, target, model, loss, factor, vector, after)
    measure.measure_backward(output, state, target, model, loss, factor, vector, after, output, gradient)
    pointwise.pointwise(after, target, after > 0, factor, loss, vector, vector)
    pointwise.pointwise_backward(after, target, after > 0, factor, loss, vector, after)
    assert len(compiled) == 7 and min(compiled.values()) > 0


def test_kernels_of_the_spectral_term(compiled):
    triton = importlib.import_module("weathermill.training.spectral_triton")
    waves, rows, weights = torch.zeros(2, 3, 13, 9, 2), torch.ones(13, 1), torch.zeros(2, 3, 9)
    triton.power_sums(waves, waves, rows, torch.zeros(4, 2, 3, 9, 2))
    triton.combine(waves, waves, rows, weights, weights, waves)
    assert len(compiled) == 2 and min(compiled.values()) > 0
