"""What the benchmarks share: problems of a given size, timing, results as JSON lines.

They run on a bare machine with torch, NumPy and safetensors alone: ``python benchmarks/run.py``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.spectral import SpectralTerm

# What trainings ask for beyond the published step: of the model, the loss, and channels with missing values.
BEYOND = {
    "damped": {"model": {"residual": "damped_persistence"}},
    "filtered": {"model": {"zonal_filter": 8}},
    "conserving": {"model": {"conserve_mean": ("field_0",), "non_negative": ("field_1",)}},
    "spectral": {"loss": {"spectral": 0.5}},
    "state-unit": {"loss": {"unit": "state"}},
    "missing": {"missing": 1},
}

MATRIX_PEAK = {"H100": 800e12, "H200": 800e12}


def device_name(device: torch.device) -> str:
    """Return the card's name, or that of a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def parse_grid(text: str) -> tuple[int, int]:
    rows, columns = (int(n) for n in text.split("x"))
    return rows, columns


def latitudes(rows: int) -> np.ndarray:
    """Equally spaced, poles included where their number is odd."""
    last = 90.0 if rows % 2 else 90.0 - 90.0 / rows
    return np.linspace(last, -last, rows)


def make_channels(n: int, missing: int = 0) -> ChannelTable:
    """Fields on levels, the first `missing` of which may have missing values."""
    return ChannelTable(
        [Channel(f"field_{i}", "field", float(i), may_be_missing=i < missing) for i in range(n)]
    )


def make_forecaster(
    grid: tuple[int, int], channels: int, config: ModelConfig, missing: int = 0
) -> Forecaster:
    return Forecaster(
        config,
        make_channels(channels, missing),
        latitudes(grid[0]),
        np.arange(grid[1]) * (360.0 / grid[1]),
        mean=np.zeros(channels),
        std=np.ones(channels),
        tendency_std=np.full(channels, 0.5),
    )


def make_loss(grid: tuple[int, int], unit: str | None = None, spectral: float = 0.0) -> AreaWeightedLoss:
    areas = np.cos(np.deg2rad(latitudes(grid[0]))) + 1e-3
    longitude = np.arange(grid[1]) * (360.0 / grid[1])
    term = SpectralTerm(spectral, areas, longitude) if spectral else None
    return AreaWeightedLoss("mse", areas, unit=unit, spectral=term)


def make_window(
    batch: int, steps: int, channels: int, grid: tuple[int, int], device: torch.device, seed: int = 0
):
    """Random fields, never zeros: products of zeros run faster than those of data."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (batch, steps + 1, channels, *grid)
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).half()


def time_calls(
    call: Callable[[int], object], device: torch.device, seconds: float = 3.0, least: int = 5
) -> dict:
    """Time ``call(i)`` after a warm-up.

    Returns
    -------
    dict
        ``median_s`` and ``spread`` (of the middle half, relative) of blocks of calls, and ``calls``.
    """

    def block(n: int) -> float:
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for i in range(n):
                call(i)
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3 / n
        start = time.perf_counter()
        for i in range(n):
            call(i)
        return (time.perf_counter() - start) / n

    for i in range(3):
        call(i)
    once = block(2)
    per_block = max(1, int(seconds / 10 / once))
    blocks = max(least, min(10, int(seconds / (once * per_block))))
    times = sorted(block(per_block) for _ in range(blocks))
    median = statistics.median(times)
    quarter = len(times) // 4
    return {
        "median_s": median,
        "spread": (times[-1 - quarter] - times[quarter]) / median,
        "calls": per_block * blocks,
    }


def unet_flops(channels: int, grid: tuple[int, int], base: int = 64, depth: int = 3) -> float:
    """Floating-point operations of one training sample: three times those of the forward products."""
    stride = 2**depth
    cells = [
        (-(-grid[0] // stride) * stride // 2**k) * (-(-grid[1] // stride) * stride // 2**k)
        for k in range(depth + 1)
    ]
    widths = [base * 2**k for k in range(depth + 1)]
    total = 2.0 * cells[0] * channels * widths[0]
    for level in range(depth + 1):
        inputs = channels if level == 0 else widths[level - 1]
        total += 18.0 * cells[level] * (inputs * widths[level] + widths[level] ** 2)
    for level in range(depth):
        total += 8.0 * cells[level + 1] * widths[level + 1] * widths[level]
        total += 18.0 * cells[level] * (2 * widths[level] ** 2 + widths[level] ** 2)
    return 3.0 * total


def emit(record: dict) -> None:
    """Print one result as a JSON line, for `run.py` to gather."""
    print("RESULT " + json.dumps(record), flush=True)
