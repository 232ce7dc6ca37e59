"""Nodes of the ingest pipeline."""

from __future__ import annotations

import json

import xarray as xr

from weathermill.fields.choices import SourceOptions
from weathermill.fields.conventions import canonicalise
from weathermill.fields.filling import fill_missing
from weathermill.fields.findings import Finding, Held
from weathermill.fields.inspection import InspectionReport, inspect
from weathermill.fields.inspection_counts import with_all_values
from weathermill.fields.missing import refuse_infinite, refuse_missing
from weathermill.fields.opening import OpenedSources
from weathermill.fields.origins import trace_to_sources
from weathermill.fields.plausibility import with_limits
from weathermill.fields.reduced import settle_reduced_grids
from weathermill.fields.steps import handle_missing_steps
from weathermill.incremental.code import code_digest
from weathermill.parameters import IngestParameters, SplitParameters
from weathermill.pipelines.splitting import training_bounds


def canonical_fields(
    raw: OpenedSources,
    parameters: IngestParameters,
    splits: SplitParameters,
    findings: list[Finding] | None = None,
) -> xr.Dataset:
    """Bring the sources into canonical form, with gaps filled, lazily and unchecked."""
    raw = settle_reduced_grids(raw, parameters.reduced_grids, findings)
    fields = canonicalise(
        raw.datasets,
        variables=parameters.variables,
        surface_variables=[*parameters.surface_variables, *parameters.forcing_variables],
        static_variables=parameters.static_variables,
        levels=parameters.levels,
        start=parameters.start,
        stop=parameters.stop,
        units=parameters.units,
        names=parameters.names,
        select=parameters.select,
        winds=parameters.winds,
        source_names=raw.names,
        findings=findings,
    )
    # What gaps are filled with must not be an infinity or a fill value itself.
    fields = refuse_infinite(with_limits(fields, parameters.limits), list(parameters.fill))
    fields = handle_missing_steps(
        fields, parameters.missing_steps, longest=parameters.longest_interpolated, findings=findings
    )
    # A climatology that fills gaps must know the training period alone, or the test period leaks into it.
    start, stop = training_bounds(fields, splits) if _averages(parameters) else (None, None)
    return fill_missing(fields, parameters.fill, start=start, stop=stop, findings=findings)


def _averages(parameters: IngestParameters) -> bool:
    return "climatology" in parameters.fill.values()


def inspect_sources(
    raw: OpenedSources, parameters: IngestParameters, splits: SplitParameters
) -> InspectionReport:
    """Look for what is wrong with what would be ingested."""
    findings: list[Finding] = []
    fields = canonical_fields(raw, parameters, splits, findings)
    return inspect(fields, source_names=raw.names, findings=findings)


def render_inspection(findings: InspectionReport, fields: xr.Dataset) -> str:
    """Write the findings as an HTML page; with what was found in every value, where the fields were stored."""
    return with_all_values(findings, fields).to_html()


def ingest_fields(
    raw: OpenedSources, findings: InspectionReport, parameters: IngestParameters, splits: SplitParameters
) -> xr.Dataset:
    """Bring the sources into canonical form, lazily.

    Errors of the inspection are refused here; missing and impossible values are refused while they are read.
    """
    findings.raise_for_errors()
    # The inspection has told what there is to tell.
    fields = canonical_fields(raw, parameters, splits, Held("ingest"))
    fields = refuse_missing(fields, allow=parameters.allow_missing)
    fields.attrs["sources"] = json.dumps([source.to_dict() for source in raw.descriptions])
    _trace(fields, raw, parameters, splits)
    return fields


def _trace(
    fields: xr.Dataset, raw: OpenedSources, parameters: IngestParameters, splits: SplitParameters
) -> None:
    """Trace the steps to their sources, so that a store takes over those that it has already."""
    # Which steps there are says nothing about their values.
    chosen = parameters.model_dump(mode="json", exclude={"start", "stop"})
    trace_to_sources(
        fields,
        settle_reduced_grids(raw, parameters.reduced_grids, Held("ingest")),
        [chosen, code_digest(ingest_fields)],
        mean_over=training_bounds(fields, splits) if _averages(parameters) else None,
        options=SourceOptions(parameters.names, parameters.select, parameters.units, winds=parameters.winds),
    )
