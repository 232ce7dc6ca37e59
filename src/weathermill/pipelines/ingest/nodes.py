"""Nodes of the ingest pipeline."""

from __future__ import annotations

import json

import xarray as xr

from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding
from weathermill.fields.inspection import InspectionReport, inspect
from weathermill.fields.missing import refuse_missing
from weathermill.fields.opening import OpenedSources
from weathermill.parameters import IngestParameters


def _canonical(
    raw: OpenedSources, parameters: IngestParameters, findings: list[Finding] | None = None
) -> xr.Dataset:
    return canonicalise(
        raw.datasets,
        variables=parameters.variables,
        surface_variables=parameters.surface_variables,
        static_variables=parameters.static_variables,
        levels=parameters.levels,
        start=parameters.start,
        stop=parameters.stop,
        units=parameters.units,
        source_names=raw.names,
        findings=findings,
    )


def inspect_sources(raw: OpenedSources, parameters: IngestParameters) -> InspectionReport:
    """Look for what is wrong with what would be ingested."""
    noticed: list[Finding] = []
    return inspect(_canonical(raw, parameters, noticed), source_names=raw.names, findings=noticed)


def render_inspection(findings: InspectionReport) -> str:
    """Write the findings as an HTML page."""
    return findings.to_html()


def ingest_fields(raw: OpenedSources, findings: InspectionReport, parameters: IngestParameters) -> xr.Dataset:
    """Bring the sources into canonical form, lazily.

    Refuse if the inspection found errors,
    and, while they are read, missing values.
    """
    findings.raise_for_errors()
    fields = _canonical(raw, parameters)
    fields = refuse_missing(fields, allow=parameters.allow_missing)
    fields.attrs["sources"] = json.dumps([source.to_dict() for source in raw.descriptions])
    return fields
