"""Run the benchmarks and print their tables; ``python benchmarks/run.py`` needs torch, NumPy and safetensors alone.

Every benchmark runs in processes of its own, with a time limit, so that none disturbs another or stops the
rest. ``--device cpu-size`` runs the same cases on small grids, for machines without a GPU. Results are
written as JSON too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SMALL, LARGE = "181x360", "721x1440"
# Names of `common.BEYOND`, which this process, outside the package's path, does not import.
BEYOND = ("damped", "filtered", "conserving", "spectral", "state-unit", "missing")
# What the pipeline's own parameters add to the published network.
PIPELINE = '{"residual": "damped_persistence", "zonal_filter": 8}'


def cases(size: str) -> dict[str, list[list[str]]]:
    """Return arguments of each benchmark's processes."""
    if size == "cpu-size":
        tiny = ["--channels", "9", "--base", "8"]
        return {
            "step": [
                [
                    "baseline:4",
                    "ours:4",
                    "ours-zeros:4",
                    "ours-recomputed:4",
                    "ours-filtered:4",
                    "ours-spectral:4",
                    "--grid",
                    "33x64",
                    "--seconds",
                    "1",
                    *tiny,
                ]
            ],
            "end_to_end": [
                [
                    "--grid",
                    "33x64",
                    "--times",
                    "65",
                    "--epochs",
                    "3",
                    "--batch",
                    "4",
                    "--plain-seconds",
                    "2",
                    *tiny,
                ]
            ],
            "feed": [["--small"]],
            "ledger": [["--channels", "65"]],
            "checkpoint": [["--repeats", "2"]],
            "resume": [["--small"], ["--small", "--general"]],
        }
    small = ["baseline:4", "ours:4", "ours:16", "ours:32", "ours:64", "ours-zeros:16", "ours-recomputed:16"]
    small += ["baseline:16", "baseline-fp32:4", "ours-clip-ema:16", "ours-tf32:16", "ours:4:4"]
    beyond = [f"ours-{kind}:16" for kind in BEYOND]
    return {
        "step": [
            [*small, "--seconds", "2"],
            ["baseline:4", "ours:16", *beyond, "--seconds", "2"],
            ["baseline:2", "ours:2", "ours:4", "ours:1", "--grid", LARGE, "--seconds", "2"],
        ],
        "end_to_end": [
            ["--grid", SMALL, "--batch", "16", "--times", "1025"],
            [
                "--grid",
                SMALL,
                "--batch",
                "16",
                "--times",
                "1025",
                "--plain-seconds",
                "0",
                "--model",
                PIPELINE,
            ],
            ["--grid", LARGE, "--batch", "2", "--times", "65", "--plain-seconds", "0"],
        ],
        "feed": [[]],
        "ledger": [["--grid", SMALL], ["--grid", LARGE]],
        "checkpoint": [[]],
        "resume": [[], ["--general"]],
    }


COLUMNS = {
    "step": ("case", "grid", "batch", "rollout", "step_ms", "samples_per_second", "speedup", "tflops", "peak_gib", "whole_s"),
    "end_to_end": (
        "case", "model", "grid", "batch", "samples_per_second", "waiting_share", "starting_share", "copying_share",
        "first_epoch_s", "store_gib",
    ),
    "ledger": (
        "kind", "grid", "batch", "rollout", "recompute", "precision", "predicted_mib", "measured_mib", "error", "fragmentation_mib",
        "context_mib", "largest_batch",
    ),
    "checkpoint": ("mib", "loop_waits_ms", "on_disk_after_ms", "verify_and_read_ms"),
    "feed": (
        "case", "tier", "reader", "threads", "consecutive", "batch", "step_samples_per_second", "samples_per_second",
        "gbytes_per_second", "waiting_share", "copying_share", "loading_s", "different",
    ),
    "resume": ("case", "kills", "during_save", "steps", "tensors", "tensors_different", "metrics_different"),
}  # fmt: skip


def run_one(name: str, arguments: list[str], timeout: float) -> list[dict[str, Any]]:
    """Run one process; a failure is a record too."""
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)])}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        output, problem = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        problem = [f"stopped after {timeout:.0f} s"]
    lines = [json.loads(line[7:]) for line in output.splitlines() if line.startswith("RESULT ")]
    if problem:
        lines.append({"benchmark": name, "case": " ".join(arguments), "failed": problem[0]})
    return lines


def add_speedups(records: list[dict[str, Any]]) -> None:
    """Compare each step with the baseline's on the same grid, at the batch that was published: the smallest run."""
    base = {}
    for record in records:
        if record["benchmark"] == "step" and record.get("case") == "baseline" and "failed" not in record:
            base.setdefault(record["grid"], record["samples_per_second"])
    for record in records:
        if record["benchmark"] == "step" and record.get("grid") in base and record.get("rollout") == 1:
            record["speedup"] = record["samples_per_second"] / base[record["grid"]]


def _all_columns(records: list[dict[str, Any]]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for record in records for key in record)
    return tuple(key for key in keys if key not in ("benchmark", "device", "failed"))


def table(records: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Lay records out as text."""
    columns = tuple(c for c in columns if any(c in r for r in records))
    if any("failed" in r for r in records):
        columns += ("failed",)

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return "" if value is None else str(value)

    rows = [columns, *([text(record.get(column)) for column in columns] for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu-size"), help="the GPU if there is one")
    parser.add_argument("--only", help="comma-separated: step, end_to_end, ledger, checkpoint, feed, resume")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one case")
    parser.add_argument(
        "--output", type=Path, help="JSON file; benchmarks/results/<time>.json when not given"
    )
    a = parser.parse_args()
    size = a.device
    if size is None:
        import torch

        size = "cuda" if torch.cuda.is_available() else "cpu-size"
    chosen = cases(size)
    if a.only:
        chosen = {name: chosen[name] for name in a.only.split(",")}
    output = a.output or HERE / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for name, arguments in chosen.items():
        for i, case in enumerate(arguments):
            print(f"{name} {i + 1}/{len(arguments)}: {' '.join(case)}", file=sys.stderr, flush=True)
            records += run_one(name, case, a.timeout)
            add_speedups(records)
            # After every case, so that a run that is cut off keeps what it has.
            output.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        mine = [r for r in records if r["benchmark"] == name]
        devices = {r["device"] for r in mine if "device" in r}
        print(f"\n{name} on {', '.join(sorted(devices)) or 'no device'}")
        print(table(mine, COLUMNS.get(name) or _all_columns(mine)) + "\n", flush=True)
    print(f"Results: {output}")


if __name__ == "__main__":
    main()
