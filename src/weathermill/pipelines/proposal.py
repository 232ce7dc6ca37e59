"""Trying proposed parameters on sources as `kedro run` would, short of the work: `weathermill inspect`'s verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import (
    ConstantChannelError,
    MissingDataError,
    SplitError,
    TimeAxisError,
    WeathermillError,
)
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.findings import Finding, Held
from weathermill.fields.flatten import channel_table
from weathermill.fields.grids import named_grid
from weathermill.fields.inspection import MASKED, InspectionReport, inspect
from weathermill.fields.opening import OpenedSources
from weathermill.parameters import Parameters, validate_parameters
from weathermill.pipelines.feasibility import require_network, require_rectangular, require_splits
from weathermill.pipelines.ingest.nodes import canonical_fields


def check_proposal(
    opened: OpenedSources,
    proposed: dict[str, Any],
    sample_steps: int,
    findings: list[Finding],
    *,
    base: Mapping[str, Any] | None = None,
) -> InspectionReport | None:
    """Try parameters on sources; see `weathermill.fields.looking.Check`.

    Parameters
    ----------
    opened
        The sources.
    proposed
        ``ingest`` parameters; ``allow_missing`` is added for variables that have no value over land, or over sea, by
        their nature, where the sample shows that they have none.
    sample_steps
        Time steps to read; 0 reads coordinates only.
    findings
        Where to note what was noticed.
    base
        The parameters that the proposed ones are put over, by stage; the defaults without.

    Returns
    -------
    InspectionReport or None
        None where nothing is read.

    Raises
    ------
    WeathermillError
        What `kedro run` would be refused with.
    """
    given = dict(base or {})
    given["ingest"] = {**given.get("ingest", {}), **proposed}
    parameters = validate_parameters(given)
    noticed, report = Held(""), None
    try:
        fields = canonical_fields(opened, parameters.ingest, parameters.splits, noticed)
        refused = _refused_by_axes(fields, parameters)
        short = bool(refused) and all(isinstance(error, SplitError | TimeAxisError) for error in refused)
        if short:
            text = "for training alone: `kedro run --pipelines=ingest` takes it, and a forecast may start from it"
            findings.append(Finding("info", TIME, f"the times are too few or uneven {text}"))
        if sample_steps and (short or not refused):
            report = inspect(fields, source_names=opened.names, sample_steps=sample_steps)
    finally:
        findings.extend(noticed)
    if report is not None:
        if masked := _masked(report, parameters):
            proposed["allow_missing"] = given["ingest"]["allow_missing"] = masked
            parameters = validate_parameters(given)
        refused += _trials((_require_whole, report, parameters))
        if sample_steps >= fields.sizes[TIME] and not short:
            refused += _trials((_require_change, fields, report, parameters))
    for error in refused:
        findings.append(Finding("error", error.where or "sources", error.what, error.remedy or ""))
    return report


def _trials(*checks: tuple[Any, ...]) -> list[WeathermillError]:
    """Call checks, each given with its arguments, and return what they refused."""
    refused = []
    for check, *arguments in checks:
        try:
            check(*arguments)
        except WeathermillError as error:
            refused.append(error)
    return refused


def _refused_by_axes(fields: xr.Dataset, parameters: Parameters) -> list[WeathermillError]:
    """Return what later stages would refuse of times and grid, as `weathermill.incremental.needs` does before a run."""
    curvilinear = not {LATITUDE, LONGITUDE} <= set(fields.dims)
    refused = _trials(
        (require_rectangular, curvilinear, parameters),
        (require_splits, fields[TIME].values, parameters),
    )
    if curvilinear:
        return refused
    ingest = parameters.ingest
    table = channel_table(
        fields,
        prognostic=[*ingest.variables, *ingest.surface_variables],
        forcing=ingest.forcing_variables,
        static=ingest.static_variables,
    )
    roles = [entry["role"] for entry in table]
    counts = tuple(roles.count(role) for role in ("prognostic", "forcing", "static"))
    grid = fields if parameters.regrid.target is None else named_grid(parameters.regrid.target)
    axes = (grid[LATITUDE].values, grid[LONGITUDE].values)
    shape = (axes[0].size, axes[1].size)
    return refused + _trials((require_network, counts, shape, parameters, axes))


def _masked(report: InspectionReport, parameters: Parameters) -> list[str]:
    allowed = parameters.ingest.allow_missing
    gaps = {summary.variable for summary in report.variables if summary.missing_share > 0}
    found = sorted(gaps & set(MASKED) - set(allowed))
    return [*allowed, *found] if found else []


def _require_whole(report: InspectionReport, parameters: Parameters) -> None:
    """Refuse the missing values that the sample shows, as the ingest stage does when it reads them."""
    gaps = {
        summary.variable: summary.missing_share
        for summary in report.variables
        if 0 < summary.missing_share < 1 and summary.variable not in parameters.ingest.allow_missing
    }
    if gaps:
        listed = ", ".join(f"{name} ({100 * share:.3g} %)" for name, share in gaps.items())
        raise MissingDataError(
            f"values are missing: {listed} of those sampled",
            where=", ".join(gaps),
            remedy="Fill the gaps (ingest.fill), name the variables in ingest.allow_missing, or leave them out.",
        )


def _require_change(fields: xr.Dataset, report: InspectionReport, parameters: Parameters) -> None:
    """Refuse channels that the statistics would find constant, where every step was read."""
    flat = [
        f"{s.variable}{'' if s.level is None else f' at {s.level:g} hPa'} (always {s.minimum:g})"
        for s in report.variables
        if s.minimum is not None and s.minimum == s.maximum
    ]
    if flat:
        raise ConstantChannelError(f"channels do not vary in the training period: {', '.join(flat)}")
    still = []
    for name in (*parameters.ingest.variables, *parameters.ingest.surface_variables):
        field = fields[name].transpose(TIME, ...)
        values = field.values
        within = tuple(i for i, dim in enumerate(field.dims) if dim != LEVEL)
        same = ((values == values[:1]) | np.isnan(values)).all(axis=within)
        if np.any(same & ~np.isnan(values).all(axis=within)):
            still.append(name)
    if still:
        raise ConstantChannelError(
            f"prognostic channels do not change in time: {', '.join(still)}",
            remedy="Give them the role static or forcing.",
        )
