"""CUDA forms of a loss's measure of the error and of its slope, in Triton, and where its area weights lie."""

from __future__ import annotations

import triton
import triton.language as tl

from weathermill.training.losses import AreaWeightedLoss


@triton.jit
def measure_of(error, delta, MEASURE: tl.constexpr):
    """`AreaWeightedLoss.measure`; MEASURE counts the kinds of losses."""
    if MEASURE == 0:
        value = error * error
    elif MEASURE == 1:
        value = tl.abs(error)
    else:
        size = tl.abs(error)
        value = tl.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
    return value


@triton.jit
def slope_of(error, delta, MEASURE: tl.constexpr):
    """`AreaWeightedLoss.slope`."""
    if MEASURE == 0:
        slope = 2.0 * error
    elif MEASURE == 1:
        slope = tl.where(error > 0.0, 1.0, tl.where(error < 0.0, -1.0, 0.0))
    else:
        slope = tl.minimum(tl.maximum(error, -delta), delta)
    return slope


@triton.jit
def areas_of(area_ptr, p, a_i, a_j, within, W: tl.constexpr):
    """Area weights of flat cells p."""
    return tl.load(area_ptr + (p // W) * a_i + (p % W) * a_j, mask=within, other=0.0)


def area_strides(loss: AreaWeightedLoss) -> tuple[int, int]:
    """Strides along latitude and longitude of area weights, which may hold for whole circles."""
    areas = loss.area_weights
    return tuple(0 if size == 1 else stride for size, stride in zip(areas.shape, areas.stride(), strict=True))
