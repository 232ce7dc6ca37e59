"""Make a SYNTHETIC Zarr store in the layout of WeatherBench 2 and ARCO-ERA5, at any grid and size.

For trying ``kedro run --env=era5_1deg`` and ``--env=era5_0p25deg`` without a download, and for tests. The fields are random
(`synthetic_weather`), with the names, units, ranges and chunks of the real stores; nothing can be learnt from them about the
atmosphere. Memory holds one step, whatever the number of steps.

    python scripts/make_era5_like_store.py data/01_raw/era5_0p25deg.zarr --grid 721x1440 --steps 8
    python scripts/make_era5_like_store.py low.zarr --grid 32x64 --layout lowres --steps 60
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dask.array
import numpy as np
import synthetic_weather as weather
import xarray as xr
from tqdm import tqdm

LAYOUTS = {
    "highres": ("latitude", "longitude"),
    "lowres": ("longitude", "latitude"),
}
"""Order of the horizontal dimensions; WeatherBench 2's low-resolution stores also have ascending latitude."""


def template(
    maker: weather.SyntheticWeather, times: np.ndarray, levels: Sequence[int], layout: str, attributes: dict
) -> xr.Dataset:
    """An empty dataset of the store's shape and chunks, lazy, with coordinates and static fields."""
    horizontal = LAYOUTS[layout]
    sizes = {
        "time": len(times),
        "level": len(levels),
        "latitude": len(maker.latitude),
        "longitude": len(maker.longitude),
    }

    def empty(dimensions: tuple[str, ...], name: str, units: str) -> xr.Variable:
        shape = tuple(sizes[d] for d in dimensions)
        chunks = tuple(1 if d == "time" else sizes[d] for d in dimensions)
        values = dask.array.full(shape, np.nan, dtype=np.float32, chunks=chunks)
        return xr.Variable(dimensions, values, {"units": units, "long_name": name.replace("_", " ")})

    variables = {
        name: empty(("time", "level", *horizontal), name, units)
        for name, units in weather.LEVEL_VARIABLES.items()
    }
    variables |= {
        name: empty(("time", *horizontal), name, units) for name, units in weather.SURFACE_VARIABLES.items()
    }
    for name, values in maker.static().items():
        field = xr.Variable(("latitude", "longitude"), values, {"units": weather.STATIC_VARIABLES[name]})
        variables[name] = field.transpose(*horizontal)
    dataset = xr.Dataset(
        variables,
        coords={
            "time": ("time", times),
            "level": ("level", np.asarray(levels, dtype=np.int64), {"units": "hPa"}),
            "latitude": ("latitude", maker.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", maker.longitude, {"units": "degrees_east"}),
        },
        attrs=attributes,
    )
    return dataset.isel(latitude=slice(None, None, -1)) if layout == "lowres" else dataset


def make_store(
    path: Path,
    *,
    rows: int,
    columns: int,
    steps: int,
    start: str = "2020-01-01",
    hours: int = 6,
    levels: Sequence[int] = weather.LEVELS,
    layout: str = "highres",
    zarr_format: int = 2,
    unwritten: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Write the store: whole under its final name, or not at all.

    Parameters
    ----------
    path : Path
        A local folder, made here; an existing one is refused.
    rows, columns : int
        Grid; an odd number of rows includes both poles.
    steps, start, hours
        Time axis. The synthetic weather moves six hours a step whatever ``hours`` says.
    levels : sequence of int
        hPa, ascending.
    layout : {"highres", "lowres"}
        (time, level, latitude, longitude) with descending latitude, or (time, level, longitude, latitude) with ascending.
    zarr_format : {2, 3}
        Both consolidated.
    unwritten : int
        Steps by which the time axis reaches beyond the data on both sides, all NaN, as ARCO-ERA5's does; the span of the
        data is then in the attributes ``valid_time_start`` and ``valid_time_stop``.
    seed : int

    Raises
    ------
    FileExistsError
        When something is at `path`.
    ValueError
        For a grid that is none, or where unwritten steps are wanted and the data does not fill whole days.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists: remove it first, or choose another name")
    # The attributes name days: a day that is only partly written could not be told from a whole one.
    if unwritten and (steps * hours % 24 or np.datetime64(start, "s") != np.datetime64(start, "D")):
        raise ValueError("with unwritten steps around, the data must fill whole days, from midnight on")
    latitude, longitude = weather.grid(rows, columns)
    maker = weather.SyntheticWeather(latitude, longitude, sorted(levels), seed=seed)
    first = np.datetime64(start, "ns")
    times = first + np.arange(-unwritten, steps + unwritten) * np.timedelta64(hours, "h")
    attributes = {
        "title": "SYNTHETIC fields in the layout of WeatherBench 2 / ARCO-ERA5: not a reanalysis, not a simulation",
        "source": f"scripts/make_era5_like_store.py, seed {seed}",
        "history": f"made {datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    if unwritten:
        attributes |= {
            "valid_time_start": str(times[unwritten].astype("datetime64[D]")),
            "valid_time_stop": str(times[unwritten + steps - 1].astype("datetime64[D]")),
        }
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    empty = template(maker, times, sorted(levels), layout, attributes)
    # Unwritten chunks are not made: a pre-allocated axis costs nothing.
    empty.to_zarr(partial, mode="w", compute=False, consolidated=True, zarr_format=zarr_format)
    chosen = itertools.islice(maker.states(), steps)
    for index, state in enumerate(tqdm(chosen, total=steps, disable=not progress, unit="step")):
        dataset = xr.Dataset({
            name: (("time", "level", "latitude", "longitude") if values.ndim == 3 else ("time", "latitude", "longitude"),
                   values[None])
            for name, values in state.items()
        }).transpose("time", "level", *LAYOUTS[layout])  # fmt: skip
        if layout == "lowres":
            dataset = dataset.isel(latitude=slice(None, None, -1))
        at = unwritten + index
        dataset.to_zarr(partial, region={"time": slice(at, at + 1)}, zarr_format=zarr_format)
    partial.rename(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument(
        "--grid", default="181x360", help="rows x columns, such as 721x1440 (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--start", default="2020-01-01", help="first time, ISO 8601 (default: %(default)s)")
    parser.add_argument("--hours", type=int, default=6, help="between steps (default: %(default)s)")
    parser.add_argument(
        "--levels", type=int, nargs="+", default=list(weather.LEVELS), help="hPa (default: %(default)s)"
    )
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="highres", help="default: %(default)s")
    parser.add_argument("--zarr-format", type=int, choices=(2, 3), default=2, help="default: %(default)s")
    parser.add_argument(
        "--unwritten", type=int, default=0, help="empty steps before and after (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        rows, columns = (int(part) for part in arguments.grid.lower().split("x"))
    except ValueError:
        parser.error(f"--grid {arguments.grid}: give rows x columns, such as 181x360")
    started = time.monotonic()
    try:
        make_store(
            arguments.path, rows=rows, columns=columns, steps=arguments.steps, start=arguments.start, hours=arguments.hours,
            levels=arguments.levels, layout=arguments.layout, zarr_format=arguments.zarr_format,
            unwritten=arguments.unwritten, seed=arguments.seed, progress=sys.stderr.isatty(),
        )  # fmt: skip
    except (FileExistsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{arguments.path}: SYNTHETIC, {arguments.steps} steps on {rows}x{columns} in {time.monotonic() - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
