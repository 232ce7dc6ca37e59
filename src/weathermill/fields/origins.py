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

from weathermill.fields.choices import SourceOptions
from weathermill.fields.coordinates import TIME, find_coordinate
from weathermill.fields.findings import Held
from weathermill.fields.opening import OpenedSources
from weathermill.fields.survey import survey
from weathermill.fields.timeaxis import selection

# The keys of `Dataset.encoding` under which traces travel: of fields to be stored, and of fields that come from a store.
_TRACE = "weathermill_trace"
_STORED = "weathermill_stored_trace"

_AS_THEY_ARE = SourceOptions()


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


def attach(fields: xr.Dataset, trace: Trace, *, stored: bool = False) -> None:
    """Have fields carry a trace to whoever stores them, or, if ``stored``, to whoever makes others of them."""
    fields.encoding[_STORED if stored else _TRACE] = (trace, _identity(fields))


def trace_of(fields: xr.Dataset, *, stored: bool = False) -> Trace | None:
    """Return the trace that fields carry; None without one, or where they are not what it was attached to any more.

    `Dataset.encoding` outlives changes of values, which a trace must not.
    """
    trace, identity = fields.encoding.get(_STORED if stored else _TRACE, (None, None))
    return trace if trace is not None and identity is not None and identity == _identity(fields) else None


def _identity(fields: xr.Dataset) -> tuple[Any, ...] | None:
    """Return what tells lazy fields from others: their graphs and times; None where values are in memory."""
    if TIME not in fields.coords:
        return None
    blocks = []
    for name, variable in fields.data_vars.items():
        if TIME in variable.dims and variable.dims != (TIME,):
            if variable.chunks is None:
                return None
            blocks.append((name, variable.data.name))
    return (tuple(fields[TIME].values.tolist()), *sorted(blocks))


def digest(value: Any) -> str:
    """Return a short SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


def step_origins(
    opened: OpenedSources, times: np.ndarray, options: SourceOptions = _AS_THEY_ARE
) -> tuple[tuple[str, ...], str]:
    """Say what each time step comes from.

    Parameters
    ----------
    opened
        The sources.
    times
        (time,) of the fields, datetime64[ns] or cftime. A time that no source has counts as made of its two
        neighbours.
    options
        Names and values to select, as the fields were made with.

    Returns
    -------
    origins
        (time,) digests: of all sources that have the time, in their order, whether or not their values count.
    timeless
        Digest of the sources without times.
    """
    # Whoever made the fields has told what there is to tell.
    surveyed = survey(opened.datasets, opened.names, Held("origins"), options)
    identities = [digest([d.size, d.modified, d.sha256]) for d in opened.descriptions]
    holders: dict[Any, list[str]] = {}
    timeless = []
    parts = zip(surveyed, opened.datasets, identities, opened.step_identities(), strict=True)
    for source, dataset, identity, of_steps in parts:
        axis = source.times.tolist()
        if not axis:
            timeless.append(identity)
        elif of_steps is not None and (
            len(of_steps) != len(axis) or _time_dims(source.raw) != _time_dims(dataset)
        ):
            # The steps of one forecast, or what is left of an axis, are not those of the store.
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


def _time_dims(dataset: xr.Dataset) -> tuple[Any, ...]:
    name = find_coordinate(dataset, TIME)
    return () if name is None else dataset.variables[name].dims


def trace_to_sources(
    fields: xr.Dataset,
    opened: OpenedSources,
    made_by: Sequence[Any],
    *,
    mean_over: tuple[Any, Any] | None = None,
    options: SourceOptions = _AS_THEY_ARE,
) -> None:
    """Trace canonical fields to their sources, and have them carry the trace.

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
    options
        Names and values to select, as the fields were made with.
    """
    times = fields[TIME].values if TIME in fields.coords else np.array([], dtype="datetime64[ns]")
    origins, timeless = step_origins(opened, times, options)
    recipe = [list(made_by), timeless, *_frame(fields)]
    if mean_over is not None:
        inside = selection(times, *mean_over)
        recipe.append([[str(times[i]), origins[i]] for i in inside])
    attach(fields, Trace(digest(recipe), origins))


def trace_to_stored(fields: xr.Dataset, source: xr.Dataset, made_by: Sequence[Any]) -> None:
    """Trace fields, each step of which was made of the same step of stored fields, to the sources of these.

    Parameters
    ----------
    fields
        As they will be stored.
    source
        As loaded from a store, unchanged; where its steps are not known nothing is traced.
    made_by
        All else that determines values, as JSON can hold it.
    """
    known = trace_of(source, stored=True)
    if known is not None and np.array_equal(fields[TIME].values, source[TIME].values):
        attach(fields, Trace(digest([known.recipe, list(made_by), *_frame(fields)]), known.origins))


def _frame(fields: xr.Dataset) -> list[Any]:
    """Return what fields are but for their steps: coordinates and variables."""
    coordinates = {
        str(name): hashlib.sha256(np.ascontiguousarray(c.values).tobytes()).hexdigest()
        for name, c in fields.coords.items()
        if TIME not in c.dims and c.dtype != object
    }
    # Flags of time alone come and go with the steps, and are made anew with every store. The order in which a store
    # lists its variables is left to chance.
    variables = sorted(
        [str(name), list(v.dims), str(v.dtype)] for name, v in fields.data_vars.items() if v.dims != (TIME,)
    )
    return [coordinates, variables]
