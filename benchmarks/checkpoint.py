"""Time saving and reading a checkpoint of the reference network: what the loop waits for, and the whole write."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import device_name, emit, make_forecaster, make_loss, make_window, parse_grid

from weathermill.models.registry import ModelConfig
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.step import StepConfig, TrainingStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="33x64")
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    grid = parse_grid(a.grid)
    forecaster = make_forecaster(grid, a.channels, ModelConfig(base_channels=a.base))
    step = TrainingStep(forecaster, make_loss(grid), config=StepConfig(ema_decay=0.999), device=device)
    window = make_window(2, 1, a.channels, grid, device)
    step(window)
    held, whole, read = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        manager = CheckpointManager(Path(folder), keep=2)
        for i in range(a.repeats):
            step(window)
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            manager.save({"step": step.state_dict()}, epoch=i, step=i, wait=False)
            held.append(time.perf_counter() - began)
            manager.wait()
            whole.append(time.perf_counter() - began)
            began = time.perf_counter()
            manager.latest()
            read.append(time.perf_counter() - began)
        size = sum(f.stat().st_size for f in manager.all()[-1].path.iterdir())
    emit(
        {
            "benchmark": "checkpoint",
            "device": device_name(device),
            "mib": size / 2**20,
            "loop_waits_ms": 1e3 * statistics.median(held),
            "on_disk_after_ms": 1e3 * statistics.median(whole),
            "verify_and_read_ms": 1e3 * statistics.median(read),
        }
    )


if __name__ == "__main__":
    main()
