"""Looking at sources before anything is configured: what they hold, what is wrong, what to ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weathermill.errors import WeathermillError
from weathermill.fields.choices import SourceOptions
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding, Held
from weathermill.fields.inspection import InspectionReport, inspect
from weathermill.fields.opening import open_sources
from weathermill.fields.overview import Overview, overview
from weathermill.fields.reduced import settle_reduced_grids


@dataclass
class Look:
    """What was seen: the overview from coordinates, and the report from a sample (None without one)."""

    overview: Overview
    report: InspectionReport | None
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """What would stop the ingest stage."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def to_text(self) -> str:
        """Return the lines for a terminal."""
        body, parameters = self.overview.to_text(with_findings=False).split("\n\n", 1)
        lines = [body]
        if self.report is not None and self.report.variables:
            lines.append("\nfrom a sample:")
            width = max(len(v.variable) for v in self.report.variables)
            for v in self.report.variables:
                level = "" if v.level is None else f"{v.level:g} hPa"
                span = (
                    f"{v.minimum:.5g} to {v.maximum:.5g} {v.units}" if v.maximum is not None else "no value"
                )
                missing = f", {100 * v.missing_share:.3g} % missing" if v.missing_share else ""
                lines.append(f"  {v.variable:<{width}} {level:>9}  {span}{missing}")
        lines.append("")
        lines.extend(
            f"{f.severity}: {f.subject}: {f.message}" + (f"\n  -> {f.remedy}" if f.remedy else "")
            for f in self.findings
        )
        if not self.findings:
            lines.append("nothing is wrong with it")
        return "\n".join([*lines, "", parameters])


def look_at(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    storage_options: Mapping[str, Any] | None = None,
    sample_steps: int = 3,
    options: SourceOptions | None = None,
) -> Look:
    """Look at sources without configuring anything, reading coordinates and a few time steps.

    Parameters
    ----------
    paths, storage_options
        See :func:`weathermill.fields.opening.open_sources`.
    sample_steps
        Time steps to read; 0 reads coordinates only.
    options
        Names, units and values to select, as parameters of the ingest stage say them.

    Returns
    -------
    Look
        Everything that is known and has no problem of its own is sampled, as the ingest stage would take it.

    Raises
    ------
    SourceNotFoundError, UnreadableSourceError
        Where a source does not open.
    """
    expanded: list[Finding] = []
    opened = settle_reduced_grids(open_sources(paths, storage_options=storage_options), "expand", expanded)
    seen = overview(opened.datasets, opened.names, options)
    seen.reduced = bool(expanded)
    findings, report = [*expanded, *seen.findings], None
    wanted = {key: value for key, value in seen.parameters().items() if key not in ("start", "reduced_grids")}
    if sample_steps > 0 and any(wanted[key] for key in wanted if key != "levels") and not _blocked(seen):
        noticed = Held("")
        try:
            fields = canonicalise(opened.datasets, source_names=opened.names, findings=noticed, **wanted)
            report = inspect(fields, source_names=opened.names, findings=noticed, sample_steps=sample_steps)
            findings.extend(report.findings)
        except WeathermillError as error:
            findings.extend(noticed)
            findings.append(Finding("error", error.where or "sources", error.what, error.remedy or ""))
    order = ("error", "warning", "info")
    unique = sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity))
    return Look(seen, report, unique)


def _blocked(seen: Overview) -> bool:
    return any(finding.severity == "error" for finding in seen.findings)
