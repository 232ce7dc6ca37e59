"""What is wrong with a data set, found from its coordinates and a small sample of its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import ImplausibleValueError, MissingDataError
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.findings import Finding
from weathermill.fields.grids import describe_grid, grid_of
from weathermill.fields.plausibility import REMEDY, find_implausible, limits_of
from weathermill.fields.running_sums import running_sums_fault
from weathermill.fields.timeaxis import calendar_of, first_text, gaps, step_seconds, usual_step
from weathermill.fields.value_counts import count_values, judge_values
from weathermill.fields.vocabulary import CONVENTIONS, split_flat_name

#: Time steps that are read: evenly spaced, the first and the last among them.
SAMPLE_STEPS = 6

#: Fewer steps are read where all variables of one step are large, though never fewer than two.
SAMPLE_BYTES = 2**30

#: Variables that have no value over land, or over sea, by their nature.
MASKED = ("sea_surface_temperature", "sea_ice_cover")

#: What findings on variables without data begin with.
NO_VALUE = "no value in the sample"

#: What findings on values beyond their limits say.
BEYOND_LIMITS = "beyond the physical limits"


@dataclass(frozen=True)
class VariableSummary:
    """What the sample says of one variable on one level (hPa), or without a level."""

    variable: str
    level: float | None
    units: str
    minimum: float | None
    mean: float | None
    maximum: float | None
    missing_share: float
    outside_share: float


@dataclass
class InspectionReport:
    """Findings about a data set, and the facts behind them.

    Attributes
    ----------
    findings
        In order of severity.
    facts
        Time axis, grid, levels and sources.
    variables
        One summary a variable and level.
    """

    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    variables: list[VariableSummary] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """Findings that stop a run."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that do not."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def raise_for_errors(self) -> None:
        """Raise one error that holds all findings of severity ``error``.

        Raises
        ------
        MissingDataError
            Where there are any, and all of them are variables without data.
        ImplausibleValueError
            Where there are others: values that are infinite, stand for missing ones, or lie beyond the limits.
        """
        errors = self.errors
        if not errors:
            return
        text = "; ".join(f"{finding.subject}: {finding.message}" for finding in errors)
        remedies = list(dict.fromkeys(finding.remedy for finding in errors if finding.remedy))
        missing = all(finding.message.startswith(NO_VALUE) for finding in errors)
        kind = MissingDataError if missing else ImplausibleValueError
        raise kind(
            f"the inspection found {len(errors)} error{'s' if len(errors) > 1 else ''}: {text}",
            where=", ".join(self.facts.get("sources", [])[:3]) or None,
            remedy=" ".join(remedies) or "Look into the inspection report.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [finding.to_dict() for finding in self.findings],
            "facts": self.facts,
            "variables": [asdict(summary) for summary in self.variables],
        }

    def to_html(self) -> str:
        """Return a page that stands alone; everything from the data is escaped."""
        from weathermill.fields.inspection_page import render

        return render(self)


def inspect(
    fields: xr.Dataset,
    *,
    source_names: Sequence[str] = (),
    findings: Iterable[Finding] = (),
    sample_steps: int = SAMPLE_STEPS,
) -> InspectionReport:
    """Inspect canonical fields, reading a few time steps only.

    Parameters
    ----------
    fields
        From :func:`weathermill.fields.conventions.canonicalise`.
    source_names
        For the report.
    findings
        What was noticed on the way here, to be reported too.
    sample_steps
        How many time steps to read, as long as they are no more than ``SAMPLE_BYTES``.

    Returns
    -------
    InspectionReport
        Errors are values that cannot be what they are said to be, and variables without data; gaps, missing
        values and oddities are warnings.
    """
    report = InspectionReport(findings=list(dict.fromkeys(findings)))
    report.facts["sources"] = list(source_names)
    report.facts["global_attributes"] = {str(k): str(v) for k, v in fields.attrs.items() if k != "sources"}
    _inspect_time(fields, report)
    _inspect_grid(fields, report)
    per_step = sum(v.nbytes / v.sizes[TIME] for v in fields.data_vars.values() if TIME in v.dims)
    if per_step:
        sample_steps = max(2, min(sample_steps, int(SAMPLE_BYTES // per_step)))
    horizontal = {LATITUDE, LONGITUDE} if LATITUDE in fields.dims else {"y", "x"}
    for name, variable in fields.data_vars.items():
        if horizontal <= set(variable.dims):
            _inspect_variable(fields[name], report, sample_steps)
            if fault := running_sums_fault(fields[name], SAMPLE_BYTES):
                _note(report, "warning", str(name), *fault)
    report.findings.sort(key=lambda finding: ("error", "warning", "info").index(finding.severity))
    return report


def _note(report: InspectionReport, severity: Any, subject: str, message: str, remedy: str = "") -> None:
    report.findings.append(Finding(severity, subject, message, remedy))


def _duration(seconds: float) -> str:
    hours = seconds / 3600.0
    return f"{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"{hours:g} h"


def _inspect_time(fields: xr.Dataset, report: InspectionReport) -> None:
    if TIME not in fields.dims:
        return
    times = fields[TIME].values
    step = usual_step(times)
    calendar = calendar_of(times)
    facts: dict[str, Any] = {
        "steps": int(times.size),
        "first": first_text(times[0]),
        "last": first_text(times[-1]),
        "step_seconds": step,
        "calendar": calendar,
    }
    report.facts["time"] = facts
    if step is None:
        _note(report, "warning", TIME, "there is one time step alone, from which no tendency can be learnt")
        return
    holes = gaps(times, step)
    facts["gaps"] = [
        {"after": first_text(times[i]), "seconds": seconds, "missing_steps": round(seconds / step) - 1}
        for i, seconds in holes[:100]
    ]
    if holes:
        missing = sum(round(seconds / step) - 1 for _, seconds in holes)
        examples = ", ".join(f"after {first_text(times[i])} ({_duration(s)})" for i, s in holes[:3])
        more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
        _note(
            report,
            "warning",
            TIME,
            f"{len(holes)} gaps, {missing} steps of {_duration(step)} missing: {examples}{more}",
            "No training sample crosses a gap; add the missing files to use those times.",
        )
    shorter = int((step_seconds(times) < step * 0.999).sum())
    if shorter:
        _note(
            report,
            "warning",
            TIME,
            f"{shorter} steps are shorter than the usual {_duration(step)}",
            "Select times of one step, or thin the sources.",
        )
    if calendar not in ("proleptic_gregorian", "gregorian", "standard"):
        _note(report, "info", TIME, f"the calendar is {calendar}; it is kept as such")


def _inspect_grid(fields: xr.Dataset, report: InspectionReport) -> None:
    if LATITUDE in fields.coords and fields[LATITUDE].ndim == 2:
        report.facts["grid"] = describe_grid(grid_of(fields))
        _note(
            report,
            "warning",
            "grid",
            "the grid is curvilinear; networks need latitude-longitude grids",
            "Give the regrid stage a target grid.",
        )
    if LATITUDE not in fields.dims or LONGITUDE not in fields.dims:
        return
    description = describe_grid(grid_of(fields))
    report.facts["grid"] = description
    if not description.get("global_longitude", True):
        west, east = description["longitude_range"]
        _note(report, "info", "grid", f"the grid is a region, from {west:g} to {east:g} degrees east")
    elif not description.get("global", True):
        first, last = description["latitude_range"]
        _note(
            report,
            "info",
            "grid",
            f"the grid goes round the globe from latitude {first:g} to {last:g}, short of a pole",
        )
    if LEVEL in fields.coords:
        report.facts["levels"] = [float(level) for level in fields[LEVEL].values]


def _sample_positions(n: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))


def _inspect_variable(variable: xr.DataArray, report: InspectionReport, sample_steps: int) -> None:
    name = str(variable.name)
    levels = list(variable[LEVEL].values) if LEVEL in variable.dims else [None]
    limits = limits_of(name, variable.attrs)
    if name not in CONVENTIONS and split_flat_name(name) is None:
        _note(
            report,
            "info",
            name,
            "not in the vocabulary: it is taken as the file has it"
            + ("" if limits.known else ", and has no limits to check against"),
        )
    totals, counts = np.zeros((len(levels), 3)), None
    infinite = still = empty_steps = 0
    implausible: dict[str, int] = {}
    previous: np.ndarray | None = None
    positions = _sample_positions(variable.sizes[TIME], sample_steps) if TIME in variable.dims else [None]
    for position in positions:
        sample = variable if position is None else variable.isel({TIME: int(position)})
        values = np.asarray(sample.values, dtype=np.float64).reshape(len(levels), -1)
        infinite += int(np.isinf(values).sum())
        missing = np.isnan(values)
        empty_steps += int(missing.all())
        if previous is not None and not missing.all() and np.array_equal(values, previous, equal_nan=True):
            still += 1
        previous = values
        clean = np.where(np.isfinite(values), values, np.nan)
        totals += np.stack([np.isfinite(values).sum(1), np.nansum(clean, 1), missing.sum(1)], axis=1)
        here = count_values(clean, limits.low, limits.high, None, 0).moved(int(position or 0))
        counts = here if counts is None else counts.add(here)
        if (found := find_implausible(clean.astype(np.float32), limits)) is not None:
            implausible[found.what] = implausible.get(found.what, 0) + int(found.where.sum())
    assert counts is not None
    for i, level in enumerate(levels):
        valid = totals[i, 0]
        report.variables.append(
            VariableSummary(
                variable=name,
                level=None if level is None else float(level),
                units=str(variable.attrs.get("units", "")),
                minimum=float(counts.minimum[i]) if valid else None,
                mean=float(totals[i, 1] / valid) if valid else None,
                maximum=float(counts.maximum[i]) if valid else None,
                missing_share=float(totals[i, 2] / counts.seen),
                outside_share=float(counts.outside[i] / counts.seen),
            )
        )
    _judge_variable(report, variable, levels, totals, counts)
    sampled = f"of {len(positions)} sampled steps"
    if infinite:
        _note(report, "error", name, f"{infinite} values {sampled} are infinite", "Correct the source.")
    for what, count in implausible.items():
        _note(report, "error", name, f"{count} values {sampled} are {what}", REMEDY % name)
    if empty_steps and totals[:, 0].any():
        _note(
            report,
            "warning",
            name,
            f"{empty_steps} {sampled} hold no value at all",
            "Narrow the time selection, or add what is missing.",
        )
    if still:
        _note(report, "warning", name, f"{still} {sampled} equal the one before in every value")


def _judge_variable(report, variable, levels, totals, counts) -> None:
    name, seen = str(variable.name), counts.seen

    def at(indices: Sequence[int]) -> str:
        if levels[0] is None:
            return ""
        return " at " + ", ".join(f"{levels[i]:g}" for i in indices) + " hPa"

    empty = [i for i in range(len(levels)) if totals[i, 0] == 0]
    if empty:
        _note(
            report,
            "error",
            name,
            f"{NO_VALUE}{at(empty)}",
            f"Leave {name} out, or add the file that has its data.",
        )
    holed = [i for i in range(len(levels)) if totals[i, 2] > 0 and i not in empty]
    if holed:
        share = totals[holed, 2].sum() / (seen * len(holed))
        _note(
            report,
            "info" if name in MASKED else "warning",
            name,
            f"{100 * share:.3g} % of the sampled values are missing{at(holed)}",
            "" if name in MASKED else "Training needs complete fields: fill the gaps, or leave it out.",
        )
    report.findings.extend(judge_values(variable, counts, of="sampled values"))
    flat = [
        i
        for i in range(len(levels))
        if totals[i, 0] > 1 and counts.minimum[i] == counts.maximum[i] and i not in empty
    ]
    if flat:
        _note(report, "warning", name, f"one and the same value everywhere in the sample{at(flat)}")
