"""Fields that are means or other statistics over an interval of time: told, with the place of their times in it."""

from __future__ import annotations

import re
from collections.abc import MutableSequence

import numpy as np
import xarray as xr

from weathermill.fields.coordinates import TIME, find_coordinate, is_time_like
from weathermill.fields.findings import Finding, tell
from weathermill.fields.timeaxis import step_seconds

# CF's cell methods over time, but for `point`; sums are told by the vocabulary's accumulated variables.
_OVER_TIME = re.compile(
    r"\btime: (mean|maximum|minimum|median|mid_range|variance|standard_deviation|range)\b"
)

# Of long axes so many intervals are looked at.
_SAMPLE = 100


def tell_means(dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None = None) -> None:
    """Tell which fields are statistics over intervals, by their ``cell_methods`` (CF 7.3), and where in these their times lie.

    Parameters
    ----------
    dataset
        With decoded times, bounds included.
    source
        Its name for messages.
    findings
        Where to record it.
    """
    methods: dict[str, list[str]] = {}
    for name, variable in dataset.data_vars.items():
        if match := _OVER_TIME.search(str(variable.attrs.get("cell_methods", ""))):
            methods.setdefault(match[1].replace("_", " "), []).append(str(name))
    if not methods:
        return
    where = _place(dataset)
    for method, names in methods.items():
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        tell(
            findings,
            "info",
            TIME,
            f"{source}: {listed} hold the {method} over an interval of time, no states at a time{where}",
        )


def _place(dataset: xr.Dataset) -> str:
    """Say how long intervals are and where times lie in them, where the file has bounds."""
    name = find_coordinate(dataset, TIME)
    if name is None or dataset.variables[name].ndim != 1:
        return ""
    variable = dataset.variables[name]
    bounds = variable.attrs.get("bounds", variable.encoding.get("bounds"))
    if bounds not in dataset.variables:
        return ""
    edges = dataset.variables[bounds]
    if edges.ndim != 2 or edges.dims[0] != variable.dims[0] or edges.shape[1] != 2 or not is_time_like(edges):
        return ""
    sample = np.unique(np.linspace(0, variable.size - 1, min(variable.size, _SAMPLE)).astype(int))
    lengths, shares = [], []
    for time, (start, stop) in zip(variable.values[sample], edges.values[sample], strict=True):
        length, passed = (step_seconds(np.array([start, end]))[0] for end in (stop, time))
        if not length > 0:
            return ""
        lengths.append(length)
        shares.append(passed / length)
    place = next(
        (
            word
            for share, word in ((0.0, "beginning"), (0.5, "middle"), (1.0, "end"))
            if np.allclose(shares, share, atol=0.02)
        ),
        None,
    )
    hours = np.median(lengths) / 3600.0
    about = "" if np.ptp(lengths) < 1.0 else "about "
    return f"; it is {about}{hours:g} h long" + (f", and times are at its {place}" if place else "")
