"""Nodes of the normalise pipeline."""

from __future__ import annotations

import xarray as xr

from weathermill.fields import statistics as field_statistics
from weathermill.fields.flatten import static_channels, to_channels
from weathermill.fields.grids import area_weights
from weathermill.parameters import IngestParameters, SplitParameters
from weathermill.pipelines.splitting import period_runs, time_seconds, time_step_seconds


def channels_of(regridded: xr.Dataset, ingest: IngestParameters) -> tuple[xr.DataArray, list[dict]]:
    """Flatten fields to channels in the order of the parameters; the table tells which of them may be missing."""
    channels, table = to_channels(
        regridded,
        prognostic=[*ingest.variables, *ingest.surface_variables],
        forcing=ingest.forcing_variables,
        static=ingest.static_variables,
    )
    for entry in table:
        if entry["variable"] in ingest.allow_missing:
            entry["may_be_missing"] = True
    return channels, table


def compute_statistics(
    regridded: xr.Dataset, ingest: IngestParameters, splits: SplitParameters
) -> xr.Dataset:
    """Compute mean, standard deviation and that of the tendency over the training period.

    Missing values of channels that may have them count nowhere.
    """
    channels, table = channels_of(regridded, ingest)
    times, calendar = time_seconds(regridded)
    step = time_step_seconds(times)
    static = static_channels(regridded, static=ingest.static_variables) if ingest.static_variables else None
    return field_statistics.compute_statistics(
        channels,
        area_weights(regridded["latitude"].values),
        period_runs(times, calendar, step, splits)["train"],
        step,
        static=static,
        allow_missing=[entry["name"] for entry in table if entry.get("may_be_missing")],
    )


def normalise_fields(regridded: xr.Dataset, statistics: xr.Dataset, ingest: IngestParameters) -> xr.DataArray:
    """Normalise all channels, lazily."""
    channels, _ = channels_of(regridded, ingest)
    return field_statistics.normalise(channels, statistics)
