"""The calls that a script makes: load a network, forecast from one state, stream forecasts from many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weathermill.fields.opening import open_sources
from weathermill.forecasting.batches import ForecastStream, label, step_count
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
    model: Forecaster, source: Source, *, method: str = "conservative", vectors: bool = False
) -> StateReader:
    """Open a source of initial states for a network; see `StateReader`."""
    if isinstance(source, xr.Dataset):
        return StateReader([source], model, method=method, vectors=vectors)
    paths = [source] if isinstance(source, str | Path) else source
    opened = open_sources([str(path) for path in paths])
    return StateReader(opened.datasets, model, names=opened.names, method=method, vectors=vectors)


def forecast_one(model: Forecaster, initial: xr.DataArray, *, lead_time_hours: float) -> xr.Dataset:
    """Forecast from one state (channel, latitude, longitude) with the scalar coordinate ``time``."""
    steps = step_count(model, lead_time_hours)
    states = []
    with Progress("forecast", steps, "steps") as progress:
        for state in model.rollout_physical(initial.values[None], steps):
            states.append(state[0])
            progress.update()
    init_times = np.atleast_1d(initial["time"].values)
    return label(model, np.stack(states)[None], init_times).isel(init_time=0)


def forecast(
    model: Forecaster,
    source: Source,
    *,
    initial_time: Any = None,
    lead_time_hours: float = 240.0,
    method: str = "conservative",
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
        ISO 8601; the last state of the source by default.
    lead_time_hours
        How far, rounded up to a time step.
    method
        Of regridding.

    Returns
    -------
    xarray.Dataset
        Canonical variables (lead_time, [level,] latitude, longitude) in physical units; ``init_time`` is the initial
        time and ``time`` the valid time.

    Raises
    ------
    EmptySelectionError
        If the source has no state at that time.
    MissingVariableError, MissingLevelError, MissingDataError
        If the state lacks what the network needs.
    ModelError
        If the network needs forcings.
    """
    reader = make_reader(model, source, method=method)
    position = len(reader.times) - 1 if initial_time is None else reader.index(initial_time)
    return forecast_one(model.eval(), reader.read([position]).isel(time=0), lead_time_hours=lead_time_hours)


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
) -> ForecastStream:
    """Forecast from many states: iterate over the result, or write it with its ``to_zarr``.

    Parameters
    ----------
    model, source, lead_time_hours, method
        As for `forecast`.
    initial_times
        ISO 8601 times; or else
    start, stop, every_hours
        Those in [start, stop), so many hours apart; all states of the source by default.
    batch_size
        Forecasts at once.
    """
    reader = make_reader(model, source, method=method)
    positions = reader.choose(initial_times, start=start, stop=stop, every_hours=every_hours)
    return ForecastStream(
        model.eval(), reader, positions, lead_time_hours=lead_time_hours, batch_size=batch_size
    )
