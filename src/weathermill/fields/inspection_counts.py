"""The inspection report, completed by what was counted of every value when the fields were stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from weathermill.fields.coordinates import LEVEL
from weathermill.fields.inspection import BEYOND_LIMITS, InspectionReport, VariableSummary
from weathermill.fields.value_counts import ValueCounts, counts_of, judge_values


def with_all_values(report: InspectionReport, fields: xr.Dataset) -> InspectionReport:
    """Return the report of a sample with extremes, gaps and values beyond the limits of all steps.

    Parameters
    ----------
    report
        From `weathermill.fields.inspection.inspect`.
    fields
        As loaded from the store that they were written to; its data is not read. Of other fields nothing was counted,
        and the report stays as it is.
    """
    counts = counts_of(fields)
    if not counts:
        return report
    findings = [f for f in report.findings if not (f.subject in counts and BEYOND_LIMITS in f.message)]
    for name, entry in counts.items():
        if name in fields.data_vars:
            findings.extend(judge_values(fields[name], entry))
    findings.sort(key=lambda finding: ("error", "warning", "info").index(finding.severity))
    return InspectionReport(
        findings=findings,
        facts={**report.facts, "values": "extremes, gaps and limits are those of all steps"},
        variables=[_completed(summary, fields, counts) for summary in report.variables],
    )


def _completed(
    summary: VariableSummary, fields: xr.Dataset, counts: dict[str, ValueCounts]
) -> VariableSummary:
    entry = counts.get(summary.variable)
    if entry is None or summary.variable not in fields.data_vars:
        return summary
    field = fields[summary.variable]
    levels = field[LEVEL].values if LEVEL in field.dims else np.zeros(1)
    at = int(np.argmin(np.abs(levels - summary.level))) if summary.level is not None else 0
    seen, some = max(1, entry.seen), bool(entry.minimum[at] <= entry.maximum[at])
    return replace(
        summary,
        minimum=float(entry.minimum[at]) if some else None,
        maximum=float(entry.maximum[at]) if some else None,
        missing_share=float(entry.missing[at] / seen),
        outside_share=float(entry.outside[at] / seen),
    )
