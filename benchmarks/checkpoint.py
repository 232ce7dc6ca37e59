"""What a checkpoint costs: how long training stands still, how long until it is safe on disk, and reading it back.

``python benchmarks/checkpoint.py`` uses the reference network with averaged weights.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import device_name, emit, make_forecaster, make_loss, make_window, parse_grid

from weathermill.models.registry import ModelConfig
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.state import flatten, random_state
from weathermill.training.step import StepConfig, TrainingStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    a = parser.parse_args()
    if a.small:
        a.channels, a.base, a.repeats = 16, 16, 3
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    grid = parse_grid("32x64")
    forecaster = make_forecaster(grid, a.channels, ModelConfig(base_channels=a.base))
    step = TrainingStep(
        forecaster, make_loss(grid), OptimiserConfig(), StepConfig(ema_decay=0.999), device=device
    )
    window = make_window(4, 1, a.channels, grid, device)
    for _ in range(3):
        step(window)
    if device.type == "cuda":
        torch.cuda.synchronize()
    state = {"step": step.state_dict(), "random": random_state()}
    size = sum(t.numel() * t.element_size() for t in flatten(state)[1].values())
    folder = Path(tempfile.mkdtemp(dir=a.folder))
    times: dict[str, list[float]] = {
        "snapshot": [],
        "blocking": [],
        "background, standing": [],
        "background, safe": [],
    }
    try:
        blocking, background = (CheckpointManager(folder / name, 2, background=name == "b") for name in "ab")
        for k in range(a.repeats):
            times["snapshot"].append(_timed(lambda: flatten(state)))
            times["blocking"].append(_timed(lambda k=k: blocking.save(state, epoch=k, step=k)))
            began = time.perf_counter()
            background.save(state, epoch=k, step=k, wait=False)
            times["background, standing"].append(time.perf_counter() - began)
            background.wait()
            times["background, safe"].append(time.perf_counter() - began)
        times["load and verify"] = [_timed(blocking.latest) for _ in range(3)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"checkpoint of {size / 2**20:.0f} MiB on {device_name(device)}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:>22} {1e3 * median:9.1f} ms   ({size / median / 1e9:.2f} GB/s)")
        emit(
            {
                "benchmark": "checkpoint",
                "device": device_name(device),
                "case": name,
                "mib": size / 2**20,
                "median_ms": 1e3 * median,
                "worst_ms": 1e3 * max(values),
            }
        )


def _timed(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
