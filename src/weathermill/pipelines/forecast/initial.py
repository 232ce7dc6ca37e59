"""What a network needs of its initial state."""

from __future__ import annotations

from typing import Any

import cftime
import numpy as np
import xarray as xr

from weathermill.errors import EmptySelectionError, ModelError
from weathermill.tensors.channels import ChannelTable


def wanted_variables(channels: ChannelTable) -> dict[str, Any]:
    """The arguments of ``canonicalise`` that give the channels of a network.

    Raises
    ------
    ModelError
        If the network needs forcing or static channels, which a single state does not give.
    """
    other = [c.name for c in channels if c.role != "prognostic"]
    if other:
        raise ModelError(
            f"the network needs forcing or static channels ({', '.join(other)}), which this pipeline cannot make yet"
        )
    levels = sorted({c.level for c in channels if c.level is not None})
    return {
        "variables": list(dict.fromkeys(c.variable for c in channels if c.level is not None)),
        "surface_variables": list(dict.fromkeys(c.variable for c in channels if c.level is None)),
        "levels": levels or None,
    }


def select_time(fields: xr.Dataset, initial_time: str | None) -> xr.Dataset:
    """The state at ``initial_time`` (ISO 8601), or the last one; dimension ``time`` stays, with one entry.

    Raises
    ------
    EmptySelectionError
        If there is no state at that time.
    """
    times = fields["time"].values
    if initial_time is None:
        return fields.isel(time=[-1])
    if np.issubdtype(times.dtype, np.datetime64):
        chosen = np.flatnonzero(times == np.datetime64(initial_time))
    else:
        wanted = str(np.datetime64(initial_time, "s")).replace("T", " ")
        chosen = np.flatnonzero([time.strftime("%Y-%m-%d %H:%M:%S") == wanted for time in times])
    if not chosen.size:
        first, last = (
            t if isinstance(t, cftime.datetime) else np.datetime_as_string(t, "m") for t in times[[0, -1]]
        )
        raise EmptySelectionError(
            f"there is no state at {initial_time}; the source runs from {first} to {last}",
            remedy="Choose another forecast.initial_time.",
        )
    return fields.isel(time=chosen[:1])
