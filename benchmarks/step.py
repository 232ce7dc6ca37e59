"""Time one training step: ours in its variants, and the baseline's.

``python benchmarks/step.py ours:16 baseline:4 ours:4:2`` runs cases (name, batch, rollout) one after the
other in one process, so that a new machine compiles each kernel once; `run.py` runs the table.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

import torch
from baseline import BaselineStep
from common import (
    BEYOND,
    MATRIX_PEAK,
    device_name,
    emit,
    make_forecaster,
    make_loss,
    make_window,
    parse_grid,
    time_calls,
    unet_flops,
)
from torch.profiler import ProfilerActivity, profile

from weathermill.models.registry import ModelConfig
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig, TrainingStep

CASES = {
    "baseline": {},
    "baseline-fp32": {},
    "ours": {},
    "ours-eager": {"cuda_graph": False},
    "ours-zeros": {"model": {"boundary": "zeros"}},
    "ours-recomputed": {"checkpointing": True},
    "ours-tf32": {"precision": "tf32"},
    "ours-fp16": {"precision": "fp16"},
    "ours-clip-ema": {"clip_norm": 1.0, "ema_decay": 0.999},
    **{f"ours-{kind}": options for kind, options in BEYOND.items()},
    "layers": {"fused": False},
    "layers-compiled": {"fused": False, "compile": True},
}


def run(
    case: str,
    grid: tuple[int, int],
    batch: int,
    channels: int,
    base: int,
    rollout: int,
    seconds: float,
    trace: int = 0,
) -> dict:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if case.startswith("baseline"):
        rows, columns = (-(-n // 8) * 8 for n in grid)
        step = BaselineStep(channels, rows, device, tf32=case == "baseline", base=base)
        pairs = [torch.randn(2, batch, channels, rows, columns, device=device) for _ in range(2)]

        def call(i: int) -> object:
            return step(*pairs[i % 2])
    else:
        options = dict(CASES[case])
        config = ModelConfig(base_channels=base, **options.pop("model", {}))
        fused, missing = options.pop("fused", None), options.pop("missing", 0)
        loss = make_loss(grid, **options.pop("loss", {}))
        forecaster = make_forecaster(grid, channels, config, missing)
        forecaster.network.fused = fused
        step = TrainingStep(
            forecaster,
            loss,
            OptimiserConfig(),
            StepConfig(**options),
            RolloutConfig(checkpoint_steps=False),
            device,
        )
        windows = [make_window(batch, rollout, channels, grid, device, seed) for seed in range(2)]
        for window in windows:
            # A third of the globe, as of the sea-surface temperature.
            window[:, :, :missing, : grid[0] // 3] = float("nan")

        def call(i: int) -> object:
            return step(windows[i % 2])

    timing = time_calls(call, device, seconds)
    if trace and device.type == "cuda":
        print_kernels(call, trace)
    speed = batch / timing["median_s"]
    flops = unet_flops(channels, grid, base) * rollout
    record = {
        "benchmark": "step",
        "case": case,
        "grid": f"{grid[0]}x{grid[1]}",
        "batch": batch,
        "rollout": rollout,
        "device": device_name(device),
        "step_ms": 1e3 * timing["median_s"],
        "samples_per_second": speed,
        "spread": timing["spread"],
        "tflops": speed * flops / 1e12,
    }
    if device.type == "cuda":
        record["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        record["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
        peak = next((v for k, v in MATRIX_PEAK.items() if k in record["device"]), None)
        record["of_matrix_peak"] = speed * flops / peak if peak else None
    return record


def print_kernels(call: Callable[[int], object], most: int, steps: int = 5) -> None:
    """Print which kernels a step spends its time in."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for i in range(steps):
            call(i)
        torch.cuda.synchronize()
    kernels = sorted(profiler.key_averages(), key=lambda k: -k.device_time_total)
    total = sum(k.device_time_total for k in kernels)
    print(f"{total / steps / 1e3:.2f} ms in kernels a step")
    for kernel in kernels[:most]:
        time_us, count = kernel.device_time_total / steps, kernel.count / steps
        print(
            f"{time_us / 1e3:8.3f} ms {100 * kernel.device_time_total / total:5.1f} % {count:6.1f} x {kernel.key[:110]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "cases", nargs="+", metavar="CASE:BATCH[:ROLLOUT]", help=f"CASE is one of {', '.join(CASES)}"
    )
    parser.add_argument("--grid", default="181x360")
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument(
        "--trace", type=int, default=0, metavar="N", help="print the N kernels that take longest"
    )
    a = parser.parse_args()
    for text in a.cases:
        case, batch, *rest = text.split(":")
        began = time.perf_counter()
        try:
            record = run(
                case,
                parse_grid(a.grid),
                int(batch),
                a.channels,
                a.base,
                int(rest[0]) if rest else 1,
                a.seconds,
                a.trace,
            )
        except (RuntimeError, KeyError) as error:
            record = {"benchmark": "step", "case": text, "grid": a.grid, "failed": str(error).splitlines()[0]}
        emit(record | {"whole_s": time.perf_counter() - began})
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
