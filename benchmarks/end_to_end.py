"""Train from a store on disk: samples a second of the whole loop, for each tier of the feed, beside a plain loop."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from baseline import BaselineStep
from common import device_name, emit, parse_grid
from feed import make_store

from weathermill.models.registry import ModelConfig
from weathermill.tensors.store import TensorStore
from weathermill.training.config import TrainConfig
from weathermill.training.engine import train
from weathermill.training.step import StepConfig
from weathermill.training.tracker import NullTracker


def plain_loop(store: TensorStore, seconds: float, base: int, device: torch.device) -> dict:
    """Read a pair of states for each sample, in the main thread, in float32; look at the loss after every step."""
    rows, columns = (-(-n // 8) * 8 for n in store.grid_shape)
    step = BaselineStep(len(store.channels), rows, device, base=base)
    rng = np.random.default_rng(0)
    batch, samples = 4, 0
    pad = ((0, 0), (0, 0), (0, rows - store.grid_shape[0]), (0, columns - store.grid_shape[1]))
    start = None
    for i in range(10**6):
        if i == 5:
            start = time.perf_counter()
        times = rng.integers(0, len(store) - 1, batch)
        x, y = (np.pad(np.stack([store.read(t + k) for t in times]).astype(np.float32), pad) for k in (0, 1))
        float(step(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)))
        if start is not None:
            samples += batch
            if time.perf_counter() - start > seconds:
                break
    return {
        "case": "plain loop",
        "batch": batch,
        "samples_per_second": samples / (time.perf_counter() - start),
    }


def our_loop(
    store: TensorStore, tier: str, batch: int, epochs: int, model: ModelConfig, device: torch.device
) -> dict:
    config = TrainConfig(epochs=epochs, batch_size=batch, feed=tier, step=StepConfig())
    result = train(store, model, config, None, NullTracker(), device=device, progress=False)
    # The first epoch compiles kernels and captures the graph.
    later = result.history[1:]
    record = {
        "case": f"ours, {tier}",
        "batch": batch,
        "samples_per_second": statistics.median(row["samples_per_second"] for row in later),
        "first_epoch_s": result.history[0]["seconds"],
    }
    record |= {key: value for key, value in later[-1].items() if key.endswith("_share")}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="181x360")
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--times", type=int, default=513)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tiers", default="device,pinned,mapped")
    parser.add_argument(
        "--model",
        type=json.loads,
        default={},
        help='as in {"zonal_filter": 8}; the published network when left out',
    )
    parser.add_argument("--plain-seconds", type=float, default=5.0)
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = ModelConfig(base_channels=a.base, **a.model)
    with tempfile.TemporaryDirectory() as folder:
        grid = parse_grid(a.grid)
        began = time.perf_counter()
        store = make_store(Path(folder) / "store", a.times, a.channels, grid)
        common = {
            "benchmark": "end_to_end",
            "grid": a.grid,
            "device": device_name(device),
            "model": " ".join(f"{name}={value}" for name, value in a.model.items()) or "published",
            "store_gib": store.nbytes / 2**30,
            "write_s": time.perf_counter() - began,
        }
        for tier in a.tiers.split(","):
            emit(common | our_loop(store, tier, a.batch, a.epochs, model, device))
        if a.plain_seconds:
            emit(common | plain_loop(store, a.plain_seconds, a.base, device))


if __name__ == "__main__":
    main()
