"""Throughput and peak memory of the ingest stage by the number of time steps, each in a process of its own.

    python benchmarks/ingest.py SOURCE [--steps 50 500] [--variables …] [--surface …] [--folder …]

The peak is that of the whole process, imports included (their share is printed first). The last line appends: the store
is made of all but a tenth of the steps, then of all, and only the second ingest is timed.
"""

from __future__ import annotations

import argparse
import logging
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from weathermill.datasets import ZarrFieldsDataset
from weathermill.fields.opening import open_sources
from weathermill.parameters import IngestParameters, SplitParameters
from weathermill.pipelines.ingest.nodes import ingest_fields, inspect_sources


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ingest(options: argparse.Namespace, steps: int, target: Path) -> tuple[float, int]:
    """Ingest the first steps; return the seconds that it took and the bytes of the fields in memory."""
    start = time.perf_counter()
    raw = open_sources(options.source)
    times = np.sort(np.atleast_1d(raw.datasets[0]["time"].values))
    stop = None if steps >= times.size else str(times[steps])[:19]
    asked = IngestParameters(variables=options.variables, surface_variables=options.surface, stop=stop)
    splits = SplitParameters()
    fields = ingest_fields(raw, inspect_sources(raw, asked, splits), asked, splits)
    ZarrFieldsDataset(filepath=str(target), save_args={"label": "ingest"}).save(fields)
    return time.perf_counter() - start, fields.nbytes


def one(options: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    before = peak_mib()
    target = Path(options.folder) / "fields.zarr"
    steps = options.steps[0]
    if options.append:
        ingest(options, steps - steps // 10, target)
    seconds, size = ingest(options, steps, target)
    print(
        f"{steps:>6}{' appended' if options.append else '         '}{size / 2**20:>9.0f} MiB{seconds:>9.1f} s"
        f"{size / seconds / 1e6:>9.0f} MB/s{peak_mib():>9.0f} MiB peak ({before:.0f} MiB after imports)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("--steps", nargs="+", type=int, default=[50, 500])
    parser.add_argument(
        "--variables",
        nargs="*",
        default=[
            "geopotential",
            "temperature",
            "u_component_of_wind",
            "v_component_of_wind",
            "specific_humidity",
        ],
    )
    parser.add_argument("--surface", nargs="*", default=["2m_temperature", "mean_sea_level_pressure"])
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    parser.add_argument("--append", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        one(options)
        return
    shared = ["--variables", *options.variables, "--surface", *options.surface]
    for steps, append in [*((n, False) for n in options.steps), (max(options.steps), True)]:
        folder = tempfile.mkdtemp(dir=options.folder)
        words = [sys.executable, __file__, options.source, *shared, "--steps", str(steps), "--folder", folder]
        subprocess.run([*words, "--inside", *(["--append"] if append else [])], check=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
