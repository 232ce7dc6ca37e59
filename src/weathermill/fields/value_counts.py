"""How many values of a variable are missing or beyond its limits: counted as blocks pass, added up, and judged.

A stage that writes fields counts each block while it stores it, so that every value is looked at and none is read twice.
The counts of a block are kept with the block: what was written before an interruption, or is taken over from an older
store, is counted with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import ImplausibleValueError
from weathermill.fields.coordinates import LEVEL, TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.plausibility import axes_of, extremes, limits_of, place_text

#: A share of values beyond the physical limits that no weather explains: units are wrong, or bytes.
WRONG_SHARE = 0.01

# The key of `Dataset.encoding` under which the counts of a store travel with the fields that are loaded from it.
_KEY = "weathermill_values"


@dataclass
class ValueCounts:
    """What was counted of one variable; every array has one entry a level, or one in all.

    Attributes
    ----------
    seen
        Values of each level.
    missing, infinite, outside
        How many are NaN, infinite, and finite but beyond the limits; int64.
    minimum, maximum
        Of the finite values, float64; infinite where there are none.
    first
        Position in time, level and cell (row-major) of the first value that is infinite or beyond the limits; None.
    """

    seen: int
    missing: np.ndarray
    infinite: np.ndarray
    outside: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    first: tuple[int, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold, short where nothing is wrong."""
        levels = range(self.missing.size)
        found: dict[str, Any] = {"seen": self.seen, "range": []}
        for level in levels:
            bounds = (float(self.minimum[level]), float(self.maximum[level]))
            found["range"].append(None if bounds[0] > bounds[1] else bounds)
        for name in ("missing", "infinite", "outside"):
            if (counts := getattr(self, name)).any():
                found[name] = counts.tolist()
        if self.first is not None:
            found["first"] = self.first
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ValueCounts:
        """Return what `to_json` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            For anything else.
        """
        bounds = [(np.inf, -np.inf) if pair is None else pair for pair in found["range"]]
        none = [0] * len(bounds)
        counts = (np.asarray(found.get(n, none), dtype=np.int64) for n in ("missing", "infinite", "outside"))
        low, high = np.asarray(bounds, dtype=np.float64).reshape(-1, 2).T
        first = found.get("first")
        place = None if first is None else (int(first[0]), int(first[1]), int(first[2]))
        return cls(int(found["seen"]), *counts, low, high, place)

    def moved(self, start: int) -> ValueCounts:
        """Return the same counts of a block whose first time step is ``start``."""
        if self.first is None or not start:
            return self
        return replace(self, first=(self.first[0] + start, *self.first[1:]))

    def add(self, other: ValueCounts) -> ValueCounts:
        """Return the counts of both."""
        places = [place for place in (self.first, other.first) if place is not None]
        return ValueCounts(
            self.seen + other.seen,
            self.missing + other.missing,
            self.infinite + other.infinite,
            self.outside + other.outside,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            min(places) if places else None,
        )


def count_values(
    block: np.ndarray, low: np.ndarray | float, high: np.ndarray | float, time: int | None, level: int | None
) -> ValueCounts:
    """Count the values of a block.

    Parameters
    ----------
    block
        Floating-point values of any shape.
    low, high
        Limits: one number, or (level,).
    time, level
        Which dimensions are time and level; None without.
    """
    axes = [axis for axis in (time, level) if axis is not None]
    values = np.moveaxis(block, axes, range(len(axes)))
    values = values.reshape(
        block.shape[time] if time is not None else 1, block.shape[level] if level is not None else 1, -1
    )
    levels = values.shape[1]
    lows, highs = (np.broadcast_to(np.asarray(v, dtype=np.float64), levels) for v in (low, high))
    missing, infinite, outside = (np.zeros(levels, dtype=np.int64) for _ in range(3))
    minimum, maximum = np.full(levels, np.inf), np.full(levels, -np.inf)
    first: tuple[int, int, int] | None = None
    if values.size == 0:
        return ValueCounts(0, missing, infinite, outside, minimum, maximum)
    # Extremes of whole maps tell whether there is anything to count in them.
    with np.errstate(invalid="ignore"):
        least, most = values.min(axis=-1).astype(np.float64), values.max(axis=-1).astype(np.float64)
    usual = np.isfinite(least) & np.isfinite(most) & (least >= lows) & (most <= highs)
    for step, i in np.argwhere(~usual):
        here = values[step, i]
        missing[i] += int(np.isnan(here).sum())
        least[step, i], most[step, i] = extremes(here)
        bounds = least[step, i], most[step, i]
        if np.isfinite(bounds).all() and bounds[0] >= lows[i] and bounds[1] <= highs[i]:
            continue
        endless = np.isinf(here)
        infinite[i] += int(endless.sum())
        finite = np.where(endless, np.nan, here) if endless.any() else here
        least[step, i], most[step, i] = extremes(finite)
        beyond = (finite < lows[i]) | (finite > highs[i])
        outside[i] += int(beyond.sum())
        odd = endless | beyond
        if first is None and odd.any():
            first = int(step), int(i), int(np.argmax(odd))
    minimum = np.fmin(minimum, np.fmin.reduce(least, axis=0))
    maximum = np.fmax(maximum, np.fmax.reduce(most, axis=0))
    seen = values.shape[0] * values.shape[2]
    return ValueCounts(seen, missing, infinite, outside, minimum, maximum, first)


def count_field(block: np.ndarray, field: xr.DataArray) -> ValueCounts:
    """Count a block of a field, by the limits of its variable."""
    limits, dims = limits_of(str(field.name), field.attrs), list(field.dims)
    time, level = (dims.index(dim) if dim in dims else None for dim in (TIME, LEVEL))
    return count_values(block, limits.low, limits.high, time, level)


def judge_values(
    field: xr.DataArray, counts: ValueCounts, *, of: str = "values", expected: int | None = None
) -> list[Finding]:
    """Say what is wrong with the values of a field.

    Parameters
    ----------
    field
        For its name, attributes and coordinates; its data is not read.
    counts
        Of its values.
    of
        What was counted: ``values``, ``sampled values``.
    expected
        How many values each level has in all, where not all of them were counted yet; then only what is certain to be
        an error is told.
    """
    name, findings = str(field.name), []
    levels = field[LEVEL].values if LEVEL in field.coords and LEVEL in field.dims else None
    place = _first_place(field, counts)
    if counts.infinite.any():
        number = int(counts.infinite.sum())
        text = f"{number} {of} are infinite{_at(levels, counts.infinite > 0)}, the first {place}"
        findings.append(Finding("error", name, text, "Correct the source."))
    beyond = counts.outside > 0
    if not beyond.any():
        return findings
    number, limits = int(counts.outside.sum()), limits_of(name, field.attrs)
    among = beyond.size if expected is not None else int(beyond.sum())
    share = number / ((expected if expected is not None else counts.seen) * among)
    if expected is not None and share <= WRONG_SHARE:
        return findings
    span = f"{counts.minimum[beyond].min():.4g} to {counts.maximum[beyond].max():.4g}"
    where = f", the first {place}" if place else ""
    least = "at least " if expected is not None else ""
    text = (
        f"{least}{100 * share:.3g} % of the {of} lie beyond the physical limits {limits.low:g} to {limits.high:g}"
        f"{_at(levels, beyond)}: they run from {span} ({number} of them{where})"
    )
    remedy = "Check the units of the source, and whether its bytes are whole."
    if share > WRONG_SHARE:
        remedy += f" If they are right, give the limits: ingest.limits: {{{name}: [low, high]}}."
    findings.append(Finding("error" if share > WRONG_SHARE else "warning", name, text, remedy))
    return findings


def _first_place(field: xr.DataArray, counts: ValueCounts) -> str:
    if counts.first is None:
        return ""
    step, level, cell = counts.first
    horizontal = [dim for dim in field.dims if dim not in (TIME, LEVEL)]
    cells = np.unravel_index(cell, [field.sizes[dim] for dim in horizontal]) if horizontal else ()
    dims = [*(dim for dim in (TIME, LEVEL) if dim in field.dims), *horizontal]
    index = [*(i for dim, i in ((TIME, step), (LEVEL, level)) if dim in field.dims), *cells]
    return place_text(list(map(str, dims)), axes_of(field), index)


def _at(levels: np.ndarray | None, chosen: np.ndarray) -> str:
    if levels is None:
        return ""
    return " at " + ", ".join(f"{level:g}" for level in levels[chosen]) + " hPa"


def tell_values(
    fields: xr.Dataset,
    counts: Mapping[str, ValueCounts],
    *,
    known: Sequence[str] = (),
    findings: MutableSequence[Finding] | None = None,
    where: str | None = None,
) -> None:
    """Tell what is wrong with the values of fields, each variable once.

    Parameters
    ----------
    fields, counts
        The fields and, by name, what was counted of them.
    known
        Variables that were warned of before, when their source was stored.
    findings
        See `weathermill.fields.findings.tell`.
    where
        For the error.

    Raises
    ------
    ImplausibleValueError
        Where values are infinite, or more than `WRONG_SHARE` of them are beyond the limits.
    """
    found = [f for name, entry in counts.items() for f in judge_values(fields[name], entry)]
    raise_for_values(found, where)
    for finding in found:
        if finding.subject not in known:
            tell(findings, finding.severity, finding.subject, finding.message, finding.remedy)


def raise_for_values(findings: Sequence[Finding], where: str | None = None) -> None:
    """Raise one error of all findings that are errors, if there are any."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ImplausibleValueError(
            "; ".join(f"{finding.subject}: {finding.message}" for finding in errors),
            where=where,
            remedy=" ".join(dict.fromkeys(finding.remedy for finding in errors)),
        )


def attach_counts(fields: xr.Dataset, counts: Mapping[str, ValueCounts]) -> None:
    """Have fields that are loaded from a store carry what was counted of them when it was written."""
    fields.encoding[_KEY] = dict(counts)


def counts_of(fields: xr.Dataset) -> dict[str, ValueCounts]:
    """Return what fields carry of `attach_counts`; empty for those that come from no store."""
    return dict(fields.encoding.get(_KEY, {}))
