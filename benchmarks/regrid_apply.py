"""Applying regridding weights: ours beside SciPy's product and xESMF, on one machine in one run.

    python benchmarks/regrid_apply.py [--maps 100] [--source 721x1440] [--target 181x360]

Times are the best of several; SciPy gets its best layout that does not transpose the data first (one map at a
time), and the transposed view beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable

import dask.array as da
import numpy as np
import scipy.sparse
import xarray as xr

from weathermill.fields.grids import named_grid
from weathermill.fields.regridding import apply_weights, make_weights, operator_of


def best(function: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def xesmf_regridder(weights, source, target):
    import xesmf

    grids = [
        xr.Dataset(coords={"lat": g.latitude.values, "lon": g.longitude.values}) for g in (source, target)
    ]
    frame = weights.to_dataset()
    method = "bilinear" if weights.method.startswith("conservative") else weights.method
    return xesmf.Regridder(*grids, method, periodic=True, weights=frame[["row", "col", "S"]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--source", default="721x1440")
    parser.add_argument("--target", default="181x360")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    source, target = named_grid(options.source), named_grid(options.target)
    shape = (options.maps, source.sizes["latitude"], source.sizes["longitude"])
    maps = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    flat = maps.reshape(options.maps, -1)
    holed = flat.copy()
    holed[:, ::50] = np.nan
    rows = []
    for method in ("bilinear", "conservative"):
        weights = make_weights(source, target, method)
        operator = operator_of(weights)
        matrix = scipy.sparse.csr_matrix(
            (weights.s.astype(np.float32), (weights.row - 1, weights.col - 1)),
            shape=(weights.n_target, weights.n_source),
        )
        fields = xr.Dataset(
            {"f": (("time", "latitude", "longitude"), da.from_array(maps, chunks=(10, -1, -1)))},
            coords={"latitude": source.latitude, "longitude": source.longitude},
        )
        regridder = xesmf_regridder(weights, source, target)
        operator.apply(flat[:4])
        cases = {
            "ours, one thread": lambda o=operator: o.apply(flat),
            "ours, 2 % missing": lambda o=operator: o.apply(holed),
            "ours, Dask": lambda w=weights, f=fields: apply_weights(f, w, target)["f"].compute(),
            "SciPy, map by map": lambda m=matrix: [m @ x for x in flat],
            "SciPy, transposed view": lambda m=matrix: m @ flat.T,
            "xESMF, NumPy": lambda r=regridder: r(maps),
        }
        for name, function in cases.items():
            seconds = best(function)
            rows.append(
                {
                    "method": method,
                    "what": name,
                    "seconds": seconds,
                    "gigabytes_per_second": maps.nbytes / seconds / 1e9,
                }
            )
            print(
                f"{method:<13} {name:<24} {seconds:7.3f} s {maps.nbytes / seconds / 1e9:6.2f} GB/s",
                flush=True,
            )
    if options.json:
        facts = {
            "machine": platform.processor() or platform.machine(),
            "shape": list(shape),
            "target": options.target,
        }
        with open(options.json, "w", encoding="utf-8") as handle:  # noqa: PTH123
            json.dump({**facts, "rows": rows}, handle, indent=1)


if __name__ == "__main__":
    main()
