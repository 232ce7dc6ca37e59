"""The calls that a script makes: load a network, forecast from one state, stream forecasts from many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weathermill.fields.opening import open_sources
from weathermill.fields.plausibility import Limits
from weathermill.forecasting.batches import ForecastStream, label, step_count
from weathermill.forecasting.instability import ATTRIBUTE, InstabilityCheck
from weathermill.forecasting.options import ReadOptions
from weathermill.forecasting.states import StateReader
from weathermill.models.forecaster import Forecaster
from weathermill.progress import Progress
from weathermill.training.engine import choose_device

Source = str | Path | Sequence[str | Path] | xr.Dataset


def load_model(folder: str | Path, device: str | None = None) -> Forecaster:
    """Load a network that the train stage saved, to the best device there is.

    Parameters
    ----------
    folder
        The folder with ``model.safetensors`` and ``model.json``, such as ``data/06_models/<case>/model``.
    device
        "cuda", "mps", "cpu"; by default CUDA, then MPS, then the CPU.

    Raises
    ------
    ModelError
        If there is none, or it is damaged.
    """
    return Forecaster.load(folder, device=device or choose_device())


def make_reader(
    model: Forecaster,
    source: Source,
    *,
    method: str = "conservative",
    vectors: bool = False,
    options: ReadOptions | None = None,
) -> StateReader:
    """Open a source of initial states for a network; see `StateReader`."""
    if isinstance(source, xr.Dataset):
        return StateReader([source], model, method=method, vectors=vectors, options=options)
    paths = [source] if isinstance(source, str | Path) else source
    opened = open_sources([str(path) for path in paths])
    return StateReader(
        opened.datasets, model, names=opened.names, method=method, vectors=vectors, options=options
    )


def read_one(reader: StateReader, model: Forecaster, time: Any, lead_time_hours: float) -> xr.Dataset:
    """Read what one forecast needs.

    Parameters
    ----------
    reader, model
        The source and the network.
    time
        The initial time; None takes the last state from which the forecast can be made.
    lead_time_hours
        How far.

    Returns
    -------
    xarray.Dataset
        ``state`` (channel, latitude, longitude) and, for a network with forcings, ``forcings`` (step, forcing, latitude,
        longitude), physical units; with the scalar coordinate ``time``, and the physical limits ``lower_limit`` and
        ``upper_limit`` (channel), infinite where there are none.
    """
    steps = step_count(model, lead_time_hours)
    position = reader.last(steps) if time is None else reader.index(time)
    needed = reader.read([position]).isel(time=0).to_dataset(name="state")
    limits = [reader.limits[str(name)] for name in needed["channel"].values]
    needed = needed.assign_coords(
        lower_limit=("channel", [limit.low for limit in limits]),
        upper_limit=("channel", [limit.high for limit in limits]),
    )
    forcings = reader.forcings([position], steps)
    if forcings is not None:
        needed["forcings"] = (("step", "forcing", "latitude", "longitude"), forcings[0])
    return needed


def forecast_one(model: Forecaster, initial: xr.Dataset, *, lead_time_hours: float) -> xr.Dataset:
    """Forecast from what `read_one` read; where the forecast is unstable, a warning and an attribute say so."""
    steps = step_count(model, lead_time_hours)
    forcings = initial["forcings"].values[None] if "forcings" in initial else None
    limits = None
    if "lower_limit" in initial.coords:
        pairs = zip(initial["lower_limit"].values, initial["upper_limit"].values, strict=True)
        limits = [Limits(float(low), float(high)) for low, high in pairs][: model.n_prognostic]
    init_times = np.atleast_1d(initial["time"].values)
    check = InstabilityCheck(model, limits)
    check.begin(initial["state"].values[None], init_times)
    states = []
    with Progress("forecast", steps, "steps") as progress:
        rollout = model.rollout_physical(initial["state"].values[None], steps, forcings)
        for step, state in enumerate(rollout, start=1):
            check.look(state, step)
            states.append(state[0])
            progress.update()
    result = label(model, np.stack(states)[None], init_times).isel(init_time=0)
    if warning := check.tell():
        result.attrs[ATTRIBUTE] = warning
    return result


def forecast(
    model: Forecaster,
    source: Source,
    *,
    initial_time: Any = None,
    lead_time_hours: float = 240.0,
    method: str = "conservative",
    options: ReadOptions | None = None,
) -> xr.Dataset:
    """Forecast from one state, in memory.

    Parameters
    ----------
    model
        From `load_model`.
    source
        Anything that can be ingested: NetCDF or GRIB files (globs), a Zarr store, a URL, a list of them, or an
        ``xarray.Dataset``; in any naming, units and grid. States on another grid are regridded.
    initial_time
        ISO 8601; the last state of the source by default (for a network with forcings, the last from which the source
        holds them).
    lead_time_hours
        How far, rounded up to a time step.
    method
        Of regridding.
    options
        What the source does not say itself: units, names, how gaps are filled.

    Returns
    -------
    xarray.Dataset
        Canonical variables (lead_time, [level,] latitude, longitude) in physical units; ``init_time`` is the initial
        time and ``time`` the valid time. Where values are not finite or far beyond physical limits, a warning is logged
        and the attribute ``forecast_warning`` says what, and from which lead time on.

    Raises
    ------
    EmptySelectionError
        If the source has no state at that time.
    MissingVariableError, MissingLevelError, MissingDataError
        If the state lacks what the network needs.
    ImplausibleValueError
        If it holds infinities, fill values or values beyond what the variable can have.
    ModelError
        If the network needs forcings, and the source does not hold them for so long.
    """
    reader = make_reader(model, source, method=method, options=options)
    needed = read_one(reader, model, initial_time, lead_time_hours)
    return forecast_one(model.eval(), needed, lead_time_hours=lead_time_hours)


def stream_forecasts(
    model: Forecaster,
    source: Source,
    *,
    initial_times: Sequence[Any] | None = None,
    start: str | None = None,
    stop: str | None = None,
    every_hours: float | None = None,
    lead_time_hours: float = 240.0,
    batch_size: int = 8,
    method: str = "conservative",
    options: ReadOptions | None = None,
) -> ForecastStream:
    """Forecast from many states: iterate over the result, or write it with its ``to_zarr``.

    Parameters
    ----------
    model, source, lead_time_hours, method, options
        As for `forecast`.
    initial_times
        ISO 8601 times; or else
    start, stop, every_hours
        Those in [start, stop), so many hours apart; all states of the source by default.
    batch_size
        Forecasts at once.
    """
    reader = make_reader(model, source, method=method, options=options)
    positions = reader.choose(initial_times, start=start, stop=stop, every_hours=every_hours)
    return ForecastStream(
        model.eval(), reader, positions, lead_time_hours=lead_time_hours, batch_size=batch_size
    )
