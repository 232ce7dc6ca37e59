"""The whole training loop: from the store on disk through the engine, with tracker, validation and checkpoints.

``python benchmarks/end_to_end.py --tiers mapped device --batches 32`` writes a store and trains on it; the first
epoch, with the capture of the graph, is reported apart.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import MATRIX_PEAK, device_name, emit, parse_grid, unet_flops
from feed import forget, make_store

from weathermill.models.registry import ModelConfig
from weathermill.tensors.store import TensorStore
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import TrainConfig, train
from weathermill.training.step import StepConfig
from weathermill.training.tracker import RecordingTracker


def run(
    store: TensorStore, folder: Path, tier: str, batch: int, base: int, epochs: int, step: StepConfig
) -> dict:
    """Train for some epochs; speeds of all but the first."""
    tracker = RecordingTracker(folder / "run")
    began = time.perf_counter()
    result = train(
        store,
        ModelConfig(base_channels=base),
        TrainConfig(epochs=epochs, batch_size=batch, feed=tier, step=step, schedule="cosine"),
        CheckpointManager(folder / "checkpoints", background=True),
        tracker,
        progress=False,
    )
    total = time.perf_counter() - began
    rows = result.history[1:] or result.history
    return {
        "tier": result.feed["tier"],
        "batch": batch,
        "epochs": epochs,
        "samples_per_second": statistics.median(row["samples_per_second"] for row in rows),
        "slowest_epoch": min(row["samples_per_second"] for row in rows),
        "waiting_share": statistics.median(row["waiting_share"] for row in rows),
        "copying_share": statistics.median(row["copying_share"] for row in rows),
        "optimising_share": statistics.median(row["optimising_share"] for row in rows),
        "first_epoch_s": result.history[0]["seconds"],
        "total_s": total,
        "samples_per_second_overall": store_windows(store, batch) * epochs / total,
        "train_loss": result.history[-1]["train_loss"],
        "advice": result.advice,
    }


def store_windows(store: TensorStore, batch: int) -> int:
    """Windows that an epoch uses."""
    return len(store.windows("train", 1)) // batch * batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="181x360")
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--batches", type=int, nargs="*", default=[32])
    parser.add_argument("--tiers", nargs="*", default=["mapped", "pinned", "device"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--cold", action="store_true", help="drop the store from the page cache first")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    a = parser.parse_args()
    if a.small:
        a.grid, a.channels, a.base, a.states, a.batches, a.epochs = "46x90", 8, 8, 120, [8], 2
    grid = parse_grid(a.grid)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(tempfile.mkdtemp(dir=a.folder))
    step = StepConfig(precision=a.precision, checkpointing=a.checkpointing)
    try:
        began = time.perf_counter()
        store = make_store(folder / "store", a.states, a.channels, grid)
        print(f"store of {store.nbytes / 2**30:.1f} GiB written in {time.perf_counter() - began:.1f} s")
        print(
            f"{'tier':>8} {'batch':>6} {'samples/s':>10} {'slowest':>8} {'waiting':>8} {'copying':>8} "
            f"{'1st epoch':>10} {'overall/s':>10}"
        )
        for tier in a.tiers:
            for batch in a.batches:
                if a.cold:
                    forget(store)
                row = run(store, folder / f"{tier}-{batch}", tier, batch, a.base, a.epochs, step)
                print(
                    f"{row['tier']:>8} {batch:6d} {row['samples_per_second']:10.0f} {row['slowest_epoch']:8.0f} "
                    f"{row['waiting_share']:8.1%} {row['copying_share']:8.1%} {row['first_epoch_s']:9.1f}s "
                    f"{row['samples_per_second_overall']:10.0f}  {row['advice']}"
                )
                record = {
                    "benchmark": "end_to_end",
                    "device": device_name(device),
                    "grid": a.grid,
                    "channels": a.channels,
                    **row,
                }
                if device.type == "cuda":
                    flops = row["samples_per_second"] * unet_flops(a.channels, grid, a.base)
                    peak = next((v for k, v in MATRIX_PEAK.items() if k in record["device"]), None)
                    record["of_matrix_peak"] = flops / peak if peak else None
                    record["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
                    torch.cuda.reset_peak_memory_stats()
                    torch.cuda.empty_cache()
                emit(record)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
