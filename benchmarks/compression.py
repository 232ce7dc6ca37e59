"""Sizes and speeds of lossless codecs for the store of canonical fields, on one machine in one run.

    python benchmarks/compression.py SOURCE [--variables …] [--steps 60] [--json rows.json]

SOURCE is any raw source; its first steps are brought into memory, written by the catalog's own dataset with each codec,
read back whole, and read step by step in random order. Times are the best of several, with the disk's cache warm, so
that they tell of the codecs and not of the disk; processor time hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from weathermill.datasets import ZarrFieldsDataset
from weathermill.fields.conventions import canonicalise
from weathermill.fields.opening import open_sources

CODECS = (
    "none",
    "zstd-0",
    "zstd-3",
    "blosc-lz4-5-shuffle",
    "blosc-zstd-1-shuffle",
    "blosc-zstd-1-bitshuffle",
    "blosc-zstd-3-shuffle",
    "blosc-zstd-3-bitshuffle",
    "blosc-zstd-5-shuffle",
    "blosc-zstd-5-bitshuffle",
)


def best(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least wall-clock time and the least processor time, of all threads together."""
    wall, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return min(wall), min(processor)


def read_steps(path: Path, steps: np.ndarray) -> None:
    fields = xr.open_zarr(path, chunks=None, decode_timedelta=False)
    for step in steps:
        fields.isel(time=int(step)).load()


def measure(fields: xr.Dataset, codec: str, folder: Path, repeats: int) -> dict:
    path = folder / "fields.zarr"
    dataset = ZarrFieldsDataset(filepath=str(path), save_args={"compression": codec})
    written, writing = best(lambda: dataset.save(fields), repeats)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    read, reading = best(lambda: dataset.load().compute(), repeats)
    xr.testing.assert_equal(dataset.load().compute(), fields)
    steps = np.random.default_rng(0).permutation(fields.sizes["time"])[:20]
    one = best(lambda: read_steps(path, steps), repeats)[0] / len(steps)
    shutil.rmtree(path)
    return {
        "codec": codec,
        "share": size / fields.nbytes,
        "write_mb_s": fields.nbytes / written / 1e6,
        "read_mb_s": fields.nbytes / read / 1e6,
        "write_mb_cpu_s": fields.nbytes / writing / 1e6,
        "read_mb_cpu_s": fields.nbytes / reading / 1e6,
        "step_ms": one * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument(
        "--variables", nargs="*", default=["geopotential", "temperature", "specific_humidity"]
    )
    parser.add_argument("--surface", nargs="*", default=["2m_temperature"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codecs", nargs="*", default=CODECS)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    opened = open_sources(options.source)
    fields = canonicalise(
        opened.datasets, variables=options.variables, surface_variables=options.surface
    ).isel(time=slice(0, options.steps))
    fields = fields.compute()
    print(f"{fields.nbytes / 2**20:.1f} MiB: {dict(fields.sizes)}")
    print("MB/s by the clock and (in brackets) by processor time of all threads")
    print(f"{'codec':<26}{'size':>8}{'write':>20}{'read':>20}{'one step':>12}")
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for codec in options.codecs:
            row = measure(fields, codec, Path(folder), options.repeats)
            rows.append(row)
            write = f"{row['write_mb_s']:.0f} ({row['write_mb_cpu_s']:.0f}) MB/s"
            read = f"{row['read_mb_s']:.0f} ({row['read_mb_cpu_s']:.0f}) MB/s"
            print(
                f"{codec:<26}{100 * row['share']:>6.1f} %{write:>20}{read:>20}{row['step_ms']:>9.1f} ms",
                flush=True,
            )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
