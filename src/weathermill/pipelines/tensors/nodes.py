"""Nodes of the tensors pipeline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from weathermill.datasets import TensorContent
from weathermill.fields import statistics as field_statistics
from weathermill.fields.flatten import static_channels
from weathermill.fields.grids import area_weights
from weathermill.fields.own_cells import area_weights_of
from weathermill.parameters import IngestParameters, SplitParameters, TensorsParameters
from weathermill.pipelines.normalise.nodes import channels_of
from weathermill.pipelines.splitting import period_runs, time_seconds, time_step_seconds
from weathermill.tensors.channels import ChannelTable


def is_simulated(attributes: Mapping[str, Any]) -> bool | None:
    """Whether a source says of itself that a model simulated it; None where it does not say."""
    text = " ".join(str(attributes.get(name, "")) for name in ("title", "source", "comment", "history"))
    return True if "simulat" in text.lower() else None


def lay_out_tensors(
    normalised: xr.DataArray,
    regridded: xr.Dataset,
    statistics: xr.Dataset,
    ingest: IngestParameters,
    splits: SplitParameters,
    parameters: TensorsParameters,
) -> TensorContent:
    """Say what the store holds; its contents are streamed when it is saved."""
    _, channels = channels_of(regridded, ingest)
    times, calendar = time_seconds(normalised)
    step = time_step_seconds(times)
    runs = period_runs(times, calendar, step, splits)
    provenance = {
        "sources": json.loads(regridded.attrs.get("sources", "[]")),
        "simulated": is_simulated(regridded.attrs),
        "title": regridded.attrs.get("title", ""),
        "source": regridded.attrs.get("source", ""),
        "regridding": regridded.attrs.get("regridding", ""),
    }
    numbers = {name: statistics[name].values for name in ("mean", "std", "tendency_std")}
    static = None
    if ingest.static_variables:
        maps = static_channels(regridded, static=ingest.static_variables)
        static = field_statistics.normalise(maps, statistics).values.astype(np.float32)
    digest = hashlib.sha256()
    for part in (channels, provenance, runs, parameters.model_dump(), times.tolist()):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    constants = () if static is None else (static,)
    for coordinate in (normalised["latitude"], normalised["longitude"], *numbers.values(), *constants):
        digest.update(np.ascontiguousarray(coordinate, dtype=np.float64).tobytes())
    weights = area_weights_of(regridded)
    if not np.array_equal(weights, area_weights(normalised["latitude"].values)):
        digest.update(weights.tobytes())
    return TensorContent(
        normalised=normalised,
        channels=ChannelTable.from_dicts(channels),
        times=times,
        calendar=calendar,
        time_step=step,
        area_weights=weights,
        splits=runs,
        static=static,
        dtype=parameters.dtype,
        steps_per_shard=parameters.steps_per_shard,
        provenance=provenance,
        fingerprint=digest.hexdigest(),
        **numbers,
    )
