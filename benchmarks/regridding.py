"""Making regridding weights, and applying them: time and memory, side by side with what there is beside it.

    python benchmarks/regridding.py [--source 721x1440] [--target 181x360] [--json benchmarks/results/regridding.json]

Each row runs in a process of its own, whose peak memory is that of the row. `cold` is the first call of the
process (its kernels come compiled from the cache), `warm` the best of three calls after it; `cpu` is the processor
time of the best one, which a busy machine does not change. Where a real ESMPy is installed it is what runs, and
the table says so; the figures recorded for it elsewhere are printed below. Shapely (planar overlaps in longitude
and latitude) and SciPy's k-d tree are what pip gives for the same jobs. Applying weights is `regrid_apply.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
METHODS = ("bilinear", "conservative", "conservative_normed", "nearest_s2d", "nearest_d2s", "patch")
# Real ESMF 8.9.0 through xESMF 0.9.2, 721x1440 to 181x360, another machine with two cores: not measured here.
RECORDED = {"bilinear": "18 s, 0.98 GB", "conservative": "40-51 s, 1.86 GB"}


def grid(text):
    """A global grid with points on the poles where its number of rows is odd, as xESMF wants it."""
    import xarray as xr

    rows, columns = (int(n) for n in text.split("x"))
    half = 90.0 / (rows - 1 if rows % 2 else rows)
    last = 90.0 if rows % 2 else 90.0 - half
    lat, lon = np.linspace(last, -last, rows), np.arange(columns) * (360.0 / columns)
    lat_b = np.clip(np.append(lat + half, lat[-1] - half), -90.0, 90.0)
    lon_b = np.append(lon, 360.0) - 180.0 / columns
    return xr.Dataset(
        {"lat": ("lat", lat), "lon": ("lon", lon), "lat_b": ("lat_b", lat_b), "lon_b": ("lon_b", lon_b)}
    )


def by_xesmf(method, source, target):
    """From two datasets to a regridder: what a user waits for."""
    import xesmf

    return xesmf.Regridder(source, target, method, periodic=True).weights.data.nnz


def by_esmpy(method, source, target):
    """The weights alone, as ESMPy gives them."""
    from xesmf.backend import esmf_regrid_build
    from xesmf.frontend import ds_to_ESMFgrid

    bounds = method.startswith("conservative")
    grids = [
        ds_to_ESMFgrid(source, need_bounds=bounds, periodic=not bounds)[0],
        ds_to_ESMFgrid(target, need_bounds=bounds)[0],
    ]
    return len(esmf_regrid_build(*grids, method).get_weights_dict()["weights"])


def by_shapely(_, source, target):
    """Planar overlaps of boxes in longitude and latitude."""
    import shapely

    boxes = []
    for data in (source, target):
        west, south = np.meshgrid(data.lon_b[:-1], data.lat_b[:-1])
        east, north = np.meshgrid(data.lon_b[1:], data.lat_b[1:])
        boxes.append(shapely.box(west.ravel(), south.ravel(), east.ravel(), north.ravel()))
    pairs = shapely.STRtree(boxes[0]).query(boxes[1], predicate="intersects")
    area = shapely.area(shapely.intersection(boxes[1][pairs[0]], boxes[0][pairs[1]]))
    return int((area > 0).sum())


def by_scipy(_, source, target):
    """Nearest points by SciPy's k-d tree."""
    from scipy.spatial import cKDTree

    points = []
    for data in (source, target):
        lon, lat = np.deg2rad(np.meshgrid(data.lon, data.lat))
        points.append(
            np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1).reshape(-1, 3)
        )
    return len(cKDTree(points[0]).query(points[1])[1])


MAKERS = {"xESMF": by_xesmf, "ESMPy": by_esmpy, "Shapely": by_shapely, "SciPy": by_scipy}


def measure(maker, method, source, target, repeats):
    """Run one row in this process, and print it as JSON."""
    import warnings

    from weathermill import esmf

    warnings.simplefilter("ignore")
    grids = grid(source), grid(target)
    provider = esmf.provider_name() if maker in ("xESMF", "ESMPy") else maker
    if maker in ("xESMF", "ESMPy"):
        import xesmf  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(1 + repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        count = MAKERS[maker](method, *grids)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    warm = min(times[1:] or times)
    record = {
        "maker": maker,
        "method": method,
        "weights": count,
        "cold_s": times[0][0],
        "warm_s": warm[0],
        "cpu_s": warm[1],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "before_gb": before * 1024 / 1e9,
        "provider": provider,
    }
    print(json.dumps(record))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="721x1440")
    parser.add_argument("--target", default="181x360")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-apply", action="store_true", help="make weights only")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "regridding.json")
    parser.add_argument("--one", nargs=2, metavar=("MAKER", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(*options.one, options.source, options.target, options.repeats)
        return
    rows = [("ESMPy", method) for method in options.methods]
    rows += [("xESMF", method) for method in options.methods if method in ("bilinear", "conservative")]
    rows += [("Shapely", "conservative")] * ("conservative" in options.methods)
    rows += [("SciPy", "nearest_s2d")] * ("nearest_s2d" in options.methods)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), *sys.path])}
    print(f"{options.source} to {options.target} on {os.cpu_count()} cores")
    print(f"{'made by':<9}{'method':<21}{'weights':>9}{'cold s':>8}{'warm s':>8}{'cpu s':>8}{'peak GB':>9}")
    records = []
    for maker, method in rows:
        # The others are slow: once is enough to place them.
        repeats = options.repeats if maker in ("ESMPy", "xESMF") and method != "patch" else 1
        command = [sys.executable, __file__, "--one", maker, method, "--source", options.source]
        command += ["--target", options.target, "--repeats", str(repeats)]
        said = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        if said.returncode:
            print(f"{maker:<9}{method:<21} failed: {said.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        record = json.loads(said.stdout.splitlines()[-1])
        records.append(record)
        print(
            f"{maker:<9}{method:<21}{record['weights']:>9}{record['cold_s']:>8.2f}{record['warm_s']:>8.2f}"
            f"{record['cpu_s']:>8.2f}{record['peak_gb']:>9.2f}",
            flush=True,
        )
    print(f"ESMPy here is {next((r['provider'] for r in records if r['maker'] == 'ESMPy'), 'missing')}")
    print(f"recorded elsewhere for ESMF 8.9.0, 721x1440 to 181x360: {RECORDED}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    applying = None
    if not options.no_apply:
        part = options.json.with_name(options.json.stem + "_apply.json")
        command = [sys.executable, str(HERE / "regrid_apply.py"), "--source", options.source]
        command += ["--target", options.target, "--json", str(part)]
        subprocess.run(command, env=environment, check=True)
        applying = json.loads(part.read_text(encoding="utf-8"))
    result = {
        "source": options.source,
        "target": options.target,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "rows": records,
        "applying": applying,
        "recorded_elsewhere": RECORDED,
    }
    partial = options.json.with_name(options.json.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(options.json)


if __name__ == "__main__":
    main()
