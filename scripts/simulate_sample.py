"""Simulate the embedded sample: an ERA5-like series from a small general circulation model.

Runs `jcm` (a JAX general circulation model: SPEEDY physics on the Dinosaur spectral core, Apache-2.0) at T21 with 8 levels,
brings its states to pressure levels and a regular 5.625-degree grid, and writes them in the layout of the Climate Data Store.
The result is a simulation and says so in its attributes: it is no reanalysis, no forecast and no observation.

    pip install -e '.[simulate]'
    python scripts/simulate_sample.py --output data/01_raw/speedy_t21_sample.nc

Takes about three minutes on two cores, a good half of it for compiling the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cds_netcdf
import numpy as np
import pressure_levels
import xarray as xr

SPECTRAL_TRUNCATION = 21
ROWS = 32
SURFACE_PRESSURE = 98_500.0
"""Global mean surface pressure of the Earth, Pa (dry air and water; Trenberth and Smith 2005)."""
REFERENCE_PRESSURE = 100_000.0
"""By which jcm normalises surface pressure, Pa."""
VIRTUAL = 0.608
STATES_A_DAY = 4

COMMENTS = {
    "z": "hydrostatic with virtual temperature; below ground extrapolated as ECMWF does (Trenberth et al. 1993, NCAR/TN-396+STR)",
    "t": "linear in ln p; below ground extrapolated with the standard lapse rate as ECMWF does (Trenberth et al. 1993)",
    "u": "linear in ln p; below the lowest model level the value of that level",
    "v": "linear in ln p; below the lowest model level the value of that level",
    "q": "linear in ln p; below the lowest model level the value of that level",
    "t2m": "SPEEDY's near-surface air temperature, which its bulk fluxes use",
    "u10": "SPEEDY's near-surface wind: 0.95 times the wind of the lowest model level (sigma 0.95)",
    "v10": "SPEEDY's near-surface wind: 0.95 times the wind of the lowest model level (sigma 0.95)",
    "msl": "barometric reduction of the model's surface pressure (Trenberth et al. 1993)",
}


class Setup(NamedTuple):
    """A built model with what the rest needs of it."""

    model: Any
    forcing: Any
    surface_geopotential: np.ndarray
    configuration: dict


def build(time_step: int) -> Setup:
    """Build the model at T21 with the boundary data that the package ships, and its dynamical core's own orography."""
    import jcm
    from dinosaur.primitive_equations import truncated_modal_orography
    from jcm import configurations

    boundary = Path(jcm.__file__).parent / "data" / "bc" / "t63"
    overrides = {"grid.spectral_truncation": SPECTRAL_TRUNCATION, "run.time_step": time_step}
    files = {"terrain.file": str(boundary / "terrain.nc"), "forcing.file": str(boundary / "forcing.nc")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment = configurations.load("speedy-t31", **overrides, **files)
    model = experiment.model
    grid = model.coords.horizontal
    # The dynamics sees the orography without its two highest wavenumbers (jcm's dycore): pressure must be reduced from there.
    orography = grid.to_nodal(
        truncated_modal_orography(model.terrain.orog, model.coords, wavenumbers_to_clip=2)
    )
    configuration = {
        "preset": "speedy-t31",
        **overrides,
        "terrain.file": "jcm/data/bc/t63/terrain.nc",
        "forcing.file": "jcm/data/bc/t63/forcing.nc",
    }
    surface_geopotential = np.asarray(orography, dtype=np.float64).T * pressure_levels.GRAVITY
    return Setup(model, experiment.forcing, surface_geopotential, configuration)


def spin_up(setup: Setup, days: float) -> None:
    """Run from rest, with the Earth's mean surface pressure in place of the model's 1000 hPa over a flat planet."""
    import jax.numpy as jnp

    model = setup.model
    grid = model.coords.horizontal
    state, _ = model.bootstrap_state()
    normalised = np.asarray(
        model.dycore.to_physics_state(state).normalized_surface_pressure, dtype=np.float64
    )
    sine = np.asarray(grid.nodal_mesh[1])
    weights = np.sqrt(1.0 - sine**2)
    mean = float((normalised * weights).sum() / weights.sum()) * REFERENCE_PRESSURE
    ratio = SURFACE_PRESSURE / mean
    shift = np.log(ratio) * grid.to_modal(jnp.ones(grid.nodal_shape))
    state = dataclasses.replace(state, log_surface_pressure=state.log_surface_pressure + shift)
    model.run(initial_state=state, forcing=setup.forcing, total_time=float(days), save_interval=float(days))


def states(setup: Setup, steps: int, block: int = 40) -> Iterator[xr.Dataset]:
    """Yield the model's states every six hours in blocks of ten days, continuing from where the model stands."""
    interval = 1.0 / STATES_A_DAY
    done = 0
    while done < steps:
        # Always whole blocks: another length would be compiled anew.
        run = setup.model.resume(forcing=setup.forcing, total_time=block * interval, save_interval=interval)
        yield run.to_xarray().isel(time=slice(0, steps - done))
        done = min(done + block, steps)


def to_reanalysis(
    block: xr.Dataset, surface_geopotential: np.ndarray, levels: Sequence[float], latitude: np.ndarray
) -> dict[str, np.ndarray]:
    """Bring a block of model states to pressure levels and regular latitudes.

    Parameters
    ----------
    block : Dataset
        jcm's output: (time, level, lon, lat) with levels counted upwards from the surface.
    surface_geopotential : ndarray (lat, lon)
        Of the dynamical core, m2 s-2.
    levels : sequence of float
        Pressure levels, hPa.
    latitude : ndarray
        Rows wanted, degrees, descending.

    Returns
    -------
    dict of short name to float32 ndarray, (time, level, latitude, longitude) or (time, latitude, longitude)
    """

    def surface(name: str) -> np.ndarray:
        return block[name].transpose("time", "lat", "lon").values.astype(np.float64)

    def column_field(name: str) -> np.ndarray:
        return block[name].transpose("level", "time", "lat", "lon").values[::-1].astype(np.float64)

    pressure = surface("normalized_surface_pressure") * REFERENCE_PRESSURE
    sigma = block["hybrid_b_full"].values[::-1]
    if np.any(block["hybrid_a_full"].values != 0):
        raise ValueError("the model runs on hybrid levels: this script reads sigma levels")
    temperature, humidity = column_field("temperature"), column_field("specific_humidity")
    dry = pressure_levels.Column(
        sigma[:, None, None, None] * pressure, pressure, np.broadcast_to(surface_geopotential, pressure.shape), temperature,
        column_field("geopotential"),
    )  # fmt: skip
    moist = dry._replace(temperature=temperature * (1.0 + VIRTUAL * humidity))
    weights = pressure_levels.meridian_weights(block["lat"].values, latitude)
    wind = {"u": column_field("u_wind"), "v": column_field("v_wind")}

    def stack(on_level, *, vector: bool = False) -> np.ndarray:
        return np.stack(
            [pressure_levels.to_latitudes(on_level(100.0 * p), weights, vector=vector) for p in levels],
            axis=1,
        )

    result = {
        "z": stack(lambda p: pressure_levels.interpolate_geopotential(moist, p)),
        "t": stack(lambda p: pressure_levels.interpolate_temperature(dry, p)),
        "u": stack(lambda p: pressure_levels.interpolate(wind["u"], dry, p), vector=True),
        "v": stack(lambda p: pressure_levels.interpolate(wind["v"], dry, p), vector=True),
        # The cubic in latitude may undershoot beside very dry air.
        "q": np.maximum(stack(lambda p: pressure_levels.interpolate(humidity, dry, p)), 0.0),
        "t2m": pressure_levels.to_latitudes(surface("surface_flux.t0"), weights),
        "u10": pressure_levels.to_latitudes(surface("surface_flux.u0"), weights, vector=True),
        "v10": pressure_levels.to_latitudes(surface("surface_flux.v0"), weights, vector=True),
        "msl": pressure_levels.to_latitudes(pressure_levels.sea_level_pressure(moist), weights),
    }
    return {name: values.astype(np.float32) for name, values in result.items()}


def global_attributes(setup: Setup, arguments: argparse.Namespace) -> dict[str, str]:
    """Say what the file is: a simulation, by what, how, under which licence."""
    versions = {name: importlib.metadata.version(name) for name in ("jcm", "dinosaur", "jax")}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "Conventions": "CF-1.7",
        "title": "Weathermill sample: SIMULATED six-hourly atmosphere at T21 (SPEEDY), not a reanalysis",
        "institution": "Weathermill project",
        "source": f"SIMULATION with jcm {versions['jcm']} (SPEEDY physics on the Dinosaur core {versions['dinosaur']}, "
        f"JAX {versions['jax']}), T{SPECTRAL_TRUNCATION}L8. Not observed, not a reanalysis, not a forecast.",
        "comment": "Dates are the model's calendar under a repeating annual cycle of sea surface temperature, sea ice and land "
        "surface: the weather of a date here is not the weather of that date. SPEEDY takes daily mean insolation, so there is "
        "no diurnal cycle. Model levels were interpolated to pressure and Gaussian latitudes to regular ones by "
        "scripts/simulate_sample.py. The layout and the GRIB_* attributes imitate files of the Climate Data Store; no GRIB "
        f"file was involved. Packed with steps of about {arguments.packing:g} of a channel's six-hour tendency standard deviation.",
        "model_configuration": json.dumps({**setup.configuration, "spin_up_days": arguments.spin_up_days,
                                           "start": "2000-01-01", "mean_surface_pressure_Pa": SURFACE_PRESSURE}),
        "references": "https://github.com/climate-analytics-lab/jax-gcm",
        "license": "Apache-2.0, as this repository; made with jcm and the boundary data that it ships, both under Apache-2.0",
        "history": f"{now} scripts/simulate_sample.py --steps {arguments.steps} --spin-up-days {arguments.spin_up_days} "
        f"--time-step {arguments.time_step} --packing {arguments.packing:g}",
    }  # fmt: skip


def compress(data: bytes) -> bytes:
    """Deflate by libdeflate's slowest level: 4 % smaller than zlib's best, and inflated by any zlib."""
    import deflate

    return bytes(deflate.zlib_compress(data, 12))


def report(path: Path, fields: dict[str, np.ndarray], levels: Sequence[float]) -> None:
    """Read the file back and print, channel by channel, what it holds and what packing cost."""
    with xr.open_dataset(path) as stored:
        latitude = stored["latitude"].values
        weights = cds_netcdf.area_weights(latitude)[:, None]
        print(
            f"{'channel':8s} {'minimum':>11s} {'mean':>11s} {'maximum':>11s} {'tendency':>10s} {'error/tendency':>14s}"
        )
        for name, values in fields.items():
            slices = [(name, values, stored[name].values)]
            if values.ndim == 4:
                slices = [
                    (f"{name}{p:g}", values[:, k], stored[name].values[:, k]) for k, p in enumerate(levels)
                ]
            for label, exact, packed in slices:
                tendency = cds_netcdf.tendency_std(exact, latitude)
                error = float(np.sqrt(((packed.astype(np.float64) - exact) ** 2 * weights).mean()))
                mean = float((packed.astype(np.float64) * weights).mean())
                print(
                    f"{label:8s} {packed.min():11.5g} {mean:11.5g} {packed.max():11.5g} {tendency:10.3g} {error / tendency:14.4f}"
                )
    print(f"{path}: {path.stat().st_size:,} bytes")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("data/01_raw/speedy_t21_sample.nc"))
    parser.add_argument(
        "--steps", type=int, default=312, help="six-hourly states to keep (default: %(default)s)"
    )
    parser.add_argument(
        "--spin-up-days", type=int, default=320, help="from rest on 2000-01-01 (default: %(default)s)"
    )
    parser.add_argument(
        "--time-step", type=int, default=30, help="of the model, minutes (default: %(default)s)"
    )
    parser.add_argument(
        "--levels", type=float, nargs="+", default=[850.0, 500.0, 250.0], help="hPa (default: %(default)s)"
    )
    parser.add_argument(
        "--packing",
        type=float,
        default=0.3,
        help="step by tendency standard deviation (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=int, default=8_000_000, help="bytes the file may have (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    levels = sorted(arguments.levels, reverse=True)
    spacing = 180.0 / ROWS
    latitude = 90.0 - spacing * (np.arange(ROWS) + 0.5)

    started = time.monotonic()
    setup = build(arguments.time_step)
    spin_up(setup, arguments.spin_up_days)
    print(f"spun up for {arguments.spin_up_days} days in {time.monotonic() - started:.0f} s", flush=True)
    blocks, times = [], []
    for block in states(setup, arguments.steps):
        blocks.append(to_reanalysis(block, setup.surface_geopotential, levels, latitude))
        times.append(block["time"].values.astype("datetime64[s]").astype(np.int64))
        longitude = block["lon"].values
        print(f"to {block['time'].values[-1]} after {time.monotonic() - started:.0f} s", flush=True)
    fields = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    if not all(np.isfinite(values).all() for values in fields.values()):
        print("the simulation became unstable (NaN): take a shorter --time-step", file=sys.stderr)
        return 1
    cds_netcdf.write_cds(
        arguments.output, fields, times=np.concatenate(times), levels=levels, latitude=latitude, longitude=longitude,
        fraction=arguments.packing, attributes=global_attributes(setup, arguments), comments=COMMENTS, compress=compress,
    )  # fmt: skip
    report(arguments.output, fields, levels)
    print(f"took {time.monotonic() - started:.0f} s")
    if arguments.output.stat().st_size > arguments.limit:
        print(f"larger than {arguments.limit:,} bytes: raise --packing or lower --steps", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
