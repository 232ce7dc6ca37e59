"""Nodes of the normalise pipeline."""

from __future__ import annotations

import xarray as xr

from weathermill.fields import statistics as field_statistics
from weathermill.fields.findings import tell
from weathermill.fields.flatten import static_channels, to_channels
from weathermill.fields.own_cells import area_weights_of
from weathermill.fields.plausibility import limits_of
from weathermill.fields.value_counts import counts_of
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
    statistics = field_statistics.compute_statistics(
        channels,
        area_weights_of(regridded),
        period_runs(times, calendar, step, splits)["train"],
        step,
        static=static,
        allow_missing=[entry["name"] for entry in table if entry.get("may_be_missing")],
    )
    if not counts_of(regridded):
        # Fields that were stored have been counted, and warned of, already.
        tell_extremes(regridded, table, statistics)
    return statistics


def tell_extremes(regridded: xr.Dataset, table: list[dict], statistics: xr.Dataset) -> None:
    """Warn of channels whose extremes over the training period, from statistics, lie beyond their physical limits."""
    for entry in table:
        fields = [regridded[n] for n in (entry["variable"], entry["name"]) if n in regridded.data_vars]
        limits = limits_of(entry["name"], fields[0].attrs if fields else None)
        found = statistics.sel(channel=entry["name"])
        low, high = float(found["minimum"]), float(found["maximum"])
        if low < limits.low or high > limits.high:
            tell(
                None,
                "warning",
                entry["name"],
                f"values of the training period run from {low:.5g} to {high:.5g}, beyond the physical limits"
                f" {limits.low:g} to {limits.high:g}",
                "Check the units of the source, and whether its bytes are whole.",
            )


def normalise_fields(regridded: xr.Dataset, statistics: xr.Dataset, ingest: IngestParameters) -> xr.DataArray:
    """Normalise all channels, lazily."""
    channels, _ = channels_of(regridded, ingest)
    return field_statistics.normalise(channels, statistics)
