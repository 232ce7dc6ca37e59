"""What each time step of canonical fields comes from, so that a store can tell which of its steps still hold.

A step holds as long as the files that have its time are the same, in the same order, and everything else that
determines values is too: parameters, code, grid, levels. Then it need not be read again when sources are added behind
it, or when the writing of a store was interrupted.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weathermill.fields.coordinates import TIME
from weathermill.fields.findings import Held
from weathermill.fields.opening import OpenedSources
from weathermill.fields.survey import survey
from weathermill.fields.timeaxis import selection

#: The key of `Dataset.encoding` under which a trace travels to whoever stores the fields.
TRACE = "weathermill_trace"


@dataclass(frozen=True)
class Trace:
    """Where fields come from.

    Attributes
    ----------
    recipe
        Digest of all that determines values beside the sources of single steps.
    origins
        (time,) digests of the sources of each step. Two steps of one time, recipe and origin hold the same values.
    """

    recipe: str
    origins: tuple[str, ...]


def digest(value: Any) -> str:
    """Return a short SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


def step_origins(opened: OpenedSources, times: np.ndarray) -> tuple[tuple[str, ...], str]:
    """Say what each time step comes from.

    Parameters
    ----------
    opened
        The sources.
    times
        (time,) of the fields, datetime64[ns] or cftime. A time that no source has counts as made of its two
        neighbours.

    Returns
    -------
    origins
        (time,) digests: of all sources that have the time, in their order, whether or not their values count.
    timeless
        Digest of the sources without times.
    """
    # Whoever made the fields has told what there is to tell.
    surveyed = survey(opened.datasets, opened.names, Held("origins"))
    identities = [digest([d.size, d.modified, d.sha256]) for d in opened.descriptions]
    holders: dict[Any, list[str]] = {}
    timeless = []
    for source, identity, of_steps in zip(surveyed, identities, opened.step_identities(), strict=True):
        axis = source.times.tolist()
        if not axis:
            timeless.append(identity)
        elif of_steps is not None and len(of_steps) != len(axis):
            of_steps = None
        for i, when in enumerate(axis):
            holders.setdefault(when, []).append(identity if of_steps is None else of_steps[i])
    known = sorted(holders)
    origins, seen = [], {}
    for when in np.asarray(times).tolist():
        held = holders.get(when)
        if held is None:
            at = bisect.bisect(known, when)
            held = ["between"]
            for neighbour in known[max(0, at - 1) : at + 1]:
                held += [str(neighbour), *holders[neighbour]]
        key = tuple(held)
        if key not in seen:
            seen[key] = digest(held)
        origins.append(seen[key])
    return tuple(origins), digest(timeless)


def trace(
    fields: xr.Dataset,
    opened: OpenedSources,
    made_by: Sequence[Any],
    *,
    mean_over: tuple[Any, Any] | None = None,
) -> Trace:
    """Trace canonical fields to their sources.

    Parameters
    ----------
    fields
        As they will be stored; nothing is read but coordinates.
    opened
        The sources.
    made_by
        All else that determines values, as JSON can hold it: parameters and the digest of the code.
    mean_over
        [start, stop), a period whose mean enters every step; None where there is none.
    """
    times = fields[TIME].values if TIME in fields.coords else np.array([], dtype="datetime64[ns]")
    origins, timeless = step_origins(opened, times)
    coordinates = {
        str(name): hashlib.sha256(np.ascontiguousarray(c.values).tobytes()).hexdigest()
        for name, c in fields.coords.items()
        if TIME not in c.dims and c.dtype != object
    }
    # Flags of time alone come and go with the steps, and are made anew with every store.
    variables = [
        [str(name), list(v.dims), str(v.dtype)] for name, v in fields.data_vars.items() if v.dims != (TIME,)
    ]
    recipe = [list(made_by), timeless, coordinates, variables]
    if mean_over is not None:
        inside = selection(times, *mean_over)
        recipe.append([[str(times[i]), origins[i]] for i in inside])
    return Trace(digest(recipe), origins)
