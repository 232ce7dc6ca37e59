"""Nodes of the forecast pipeline."""

from __future__ import annotations

import logging
import math

import numpy as np
import xarray as xr

from weathermill.errors import MissingDataError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.flatten import from_channels, to_channels
from weathermill.fields.grids import build_grid, grid_hash, grid_of
from weathermill.fields.opening import OpenedSources
from weathermill.fields.regridding import apply_weights, make_weights
from weathermill.models.forecaster import Forecaster
from weathermill.parameters import ForecastParameters, RegridParameters
from weathermill.pipelines.forecast.initial import select_time, wanted_variables
from weathermill.progress import Progress
from weathermill.training.engine import choose_device
from weathermill.verification.times import add_hours

logger = logging.getLogger(__name__)


def read_initial_state(
    raw: OpenedSources, model: Forecaster, regrid: RegridParameters, parameters: ForecastParameters
) -> xr.DataArray:
    """Take one state from any source that can be ingested, on the grid and in the channels of the network.

    Returns
    -------
    xarray.DataArray
        (channel, latitude, longitude), physical units, with the scalar coordinate ``time``.

    Raises
    ------
    MissingDataError
        If the state has missing values.
    """
    wanted = wanted_variables(model.channels)
    fields = canonicalise(raw.datasets, **wanted, source_names=raw.names)
    state = select_time(fields, parameters.initial_time)
    target = build_grid(model.latitude, model.longitude)
    if grid_hash(grid_of(state)) != grid_hash(target):
        logger.info("The initial state is regridded to the grid of the network (%s)", regrid.method)
        state = apply_weights(state, make_weights(grid_of(state), target, regrid.method), target)
    names = [*wanted["variables"], *wanted["surface_variables"]]
    channels, _ = to_channels(state, prognostic=names)
    values = (
        channels.isel(time=0).sel(channel=[c.name for c in model.channels if c.role != "static"]).compute()
    )
    missing = [
        str(name) for name in values["channel"].values if bool(values.sel(channel=name).isnull().any())
    ]
    if missing:
        raise MissingDataError(
            f"the initial state has missing values in {', '.join(missing)}",
            where=", ".join(raw.names),
            remedy="Choose another forecast.initial_time, or fill the gaps in the source.",
        )
    return values


def make_forecast(initial: xr.DataArray, model: Forecaster, parameters: ForecastParameters) -> xr.Dataset:
    """Forecast from one state.

    Returns
    -------
    xarray.Dataset
        Canonical variables in physical units with dimension ``lead_time`` (hours); ``init_time`` is the initial
        time and ``time`` the valid time, as the CF conventions have them.
    """
    hours = model.time_step / 3600
    steps = max(1, math.ceil(parameters.lead_time_hours / hours - 1e-9))
    model = model.to(choose_device()).eval()
    states = []
    with Progress("forecast", steps, "steps") as progress:
        for state in model.rollout_physical(initial.values[None], steps):
            states.append(state[0])
            progress.update()
    leads = hours * np.arange(1, steps + 1)
    init_time = initial["time"].values[()]
    channels = [c for c in model.channels.to_dicts() if c["role"] == "prognostic"]
    array = xr.DataArray(
        np.stack(states),
        dims=("lead_time", "channel", "latitude", "longitude"),
        coords={
            "lead_time": ("lead_time", leads, {"standard_name": "forecast_period", "units": "hours"}),
            "channel": [c["name"] for c in channels],
            "latitude": model.latitude,
            "longitude": model.longitude,
        },
    )
    forecast = from_channels(array, channels)
    valid = [add_hours(np.array([init_time]), float(lead))[0] for lead in leads]
    forecast = forecast.assign_coords(
        init_time=((), init_time, {"standard_name": "forecast_reference_time", "long_name": "initial time"}),
        time=("lead_time", valid, {"standard_name": "time", "long_name": "valid time"}),
    )
    forecast.attrs |= {
        "Conventions": "CF-1.11",
        "title": "Weathermill forecast",
        "source": f"{model.config.name} trained by weathermill",
    }
    return forecast
