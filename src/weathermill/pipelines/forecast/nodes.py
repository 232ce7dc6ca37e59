"""Nodes of the forecast pipelines."""

from __future__ import annotations

import xarray as xr

from weathermill.errors import ParameterError
from weathermill.fields.grids import named_grid
from weathermill.fields.opening import OpenedSources
from weathermill.fields.reduced import settle_reduced_grids
from weathermill.forecasting.batches import ForecastStream
from weathermill.forecasting.calls import forecast_one, read_one
from weathermill.forecasting.options import ReadOptions
from weathermill.forecasting.states import StateReader
from weathermill.models.forecaster import Forecaster
from weathermill.parameters import (
    ForecastParameters,
    IngestParameters,
    PeriodParameters,
    RegridParameters,
    SplitParameters,
)
from weathermill.training.engine import choose_device


def _reader(
    raw: OpenedSources,
    model: Forecaster,
    regrid: RegridParameters,
    ingest: IngestParameters,
    splits: SplitParameters,
) -> StateReader:
    raw = settle_reduced_grids(raw, ingest.reduced_grids)
    train = splits.train
    # The network knows better than the parameters by what it was trained with, and fractions say no dates at all.
    training = model.trained_with.get("training_period")
    if training is None and isinstance(train, PeriodParameters):
        training = (train.start, train.stop)
    options = ReadOptions(
        units=ingest.units,
        names=ingest.names,
        select=ingest.select,
        winds=ingest.winds,
        fill=ingest.fill,
        limits=ingest.limits,
        training=None if training is None else tuple(training),
    )
    return StateReader(
        raw.datasets,
        model,
        names=raw.names,
        method=regrid.method,
        vectors=regrid.vectors,
        options=options,
        target=named_grid(regrid.target)
        if isinstance(regrid.target, dict) and "file" in regrid.target
        else None,
    )


def read_initial_state(
    raw: OpenedSources,
    model: Forecaster,
    regrid: RegridParameters,
    parameters: ForecastParameters,
    ingest: IngestParameters,
    splits: SplitParameters,
) -> xr.Dataset:
    """Take one state from any source that can be ingested, on the grid and in the channels of the network.

    What ``ingest`` says of the sources of training (units, names, select, fill, limits, reduced grids) holds for it too.

    Returns
    -------
    xarray.Dataset
        ``state`` and, where the network has them, ``forcings``; see ``weathermill.forecasting.calls.read_one``.

    Raises
    ------
    MissingDataError
        If there are missing values where the network was not trained with them.
    ImplausibleValueError
        If there are infinities, fill values or values beyond what the variable can have.
    ModelError
        If the network needs forcings, and the source does not hold them for so long.
    """
    reader = _reader(raw, model, regrid, ingest, splits)
    return read_one(reader, model, parameters.initial_time, parameters.lead_time_hours)


def make_forecast(initial: xr.Dataset, model: Forecaster, parameters: ForecastParameters) -> xr.Dataset:
    """Forecast from one state.

    Returns
    -------
    xarray.Dataset
        Canonical variables in physical units with dimension ``lead_time`` (hours); ``init_time`` is the initial
        time and ``time`` the valid time, as the CF conventions have them.
    """
    model = model.to(choose_device()).eval()
    return forecast_one(model, initial, lead_time_hours=parameters.lead_time_hours)


def make_forecasts(
    raw: OpenedSources,
    model: Forecaster,
    regrid: RegridParameters,
    parameters: ForecastParameters,
    ingest: IngestParameters,
    splits: SplitParameters,
) -> ForecastStream:
    """Forecast from many states; they are made while they are saved.

    Raises
    ------
    ParameterError
        If ``forecast.initial_times`` says nothing.
    """
    times = parameters.initial_times
    if times is None:
        raise ParameterError(
            "forecast.initial_times is null, so there is nothing to forecast from",
            remedy="Set it to a list of times, or to a range {start, stop, every_hours}.",
        )
    reader = _reader(raw, model, regrid, ingest, splits)
    if isinstance(times, list):
        positions = reader.choose(times)
    else:
        positions = reader.choose(start=times.start, stop=times.stop, every_hours=times.every_hours)
    return ForecastStream(
        model.to(choose_device()).eval(),
        reader,
        positions,
        lead_time_hours=parameters.lead_time_hours,
        batch_size=parameters.batch_size,
    )
