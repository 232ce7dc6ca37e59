"""Looking at sources before anything is configured: what they hold, what is wrong, what to ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weathermill.errors import WeathermillError
from weathermill.fields.choices import SourceOptions
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding, Held
from weathermill.fields.inspection import SAMPLE_STEPS, InspectionReport, inspect
from weathermill.fields.opening import OpenedSources, open_sources
from weathermill.fields.overview import HeldVariable, Overview, overview, yaml_lines
from weathermill.fields.reduced import settle_reduced_grids
from weathermill.fields.survey import survey

#: Tries parameters on sources: (sources, ``ingest`` parameters, time steps to read, list to note findings in) -> the
#: inspection report, or None where nothing is read. Raises a WeathermillError of what would stop a run.
Check = Callable[[OpenedSources, dict[str, Any], int, list[Finding]], InspectionReport | None]

_CANONICAL = (
    "variables",
    "surface_variables",
    "static_variables",
    "levels",
    "units",
    "names",
    "select",
    "winds",
)


@dataclass
class Look:
    """What was seen: the overview from coordinates, and the report from a sample (None without one)."""

    overview: Overview
    report: InspectionReport | None
    findings: list[Finding]
    proposed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """What would stop a run with the proposed parameters."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def to_text(self) -> str:
        """Return the lines for a terminal."""
        body = self.overview.to_text(with_findings=False).split("\n\n", 1)[0]
        parameters = "\n".join(["ingest:", *yaml_lines(dict(self.proposed))])
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
        if self.errors:
            parameters = "the parameters to begin with, once the errors are settled:\n" + parameters
        return "\n".join([*lines, "", parameters])


def look_at(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    storage_options: Mapping[str, Any] | None = None,
    sample_steps: int = SAMPLE_STEPS,
    options: SourceOptions | None = None,
    check: Check | None = None,
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
    check
        How the proposed parameters are tried on the sources; by default they are ingested and inspected. That of
        :mod:`weathermill.pipelines.proposal` goes by everything that a run would refuse.

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
    proposed = seen.parameters()
    nothing = nothing_to_ingest(seen)
    if not any(finding.severity == "error" for finding in seen.findings):
        try:
            if nothing:
                # A name or choice that no source has may be why; then that is said, and not what it leads to.
                survey(opened.datasets, opened.names, Held(""), options or SourceOptions())
                findings.append(nothing)
            else:
                report = (check or ingest_sample)(opened, proposed, sample_steps, findings)
        except WeathermillError as error:
            findings.append(Finding("error", error.where or "sources", error.what, error.remedy or ""))
    if report is not None:
        findings.extend(report.findings)
    order = ("error", "warning", "info")
    unique = sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity))
    return Look(seen, report, unique, proposed)


def nothing_to_ingest(seen: Overview) -> Finding | None:
    """Return an error where no variable can be ingested and predicted, with what there is; else None."""
    proposed = seen.parameters()
    if proposed["variables"] or proposed["surface_variables"]:
        return None
    reasons = [
        f"{variable.name} ({_reason(variable)})" for variable in seen.variables if not _predictable(variable)
    ]
    listed = "; ".join(reasons[:8]) + (f"; and {len(reasons) - 8} more" if len(reasons) > 8 else "")
    return Finding(
        "error",
        "variables",
        "no variable can be used" + (f": {listed}" if listed else "; the sources hold no gridded variable"),
        "Say what a variable is by ingest.names: {<its name in the file>: <canonical name>}, or name one that is not in the"
        " vocabulary among ingest.variables or ingest.surface_variables as the file calls it.",
    )


def _predictable(variable: HeldVariable) -> bool:
    return variable.known and not variable.problems and variable.kind != "static"


def _reason(variable: HeldVariable) -> str:
    if variable.problems:
        return variable.problems[0]
    return "not in the vocabulary" if not variable.known else "does not vary in time"


def ingest_sample(
    opened: OpenedSources, proposed: dict[str, Any], sample_steps: int, findings: list[Finding]
) -> InspectionReport | None:
    """Ingest and inspect a sample; None without one. See `Check`."""
    if not sample_steps:
        return None
    noticed = Held("")
    wanted = {key: value for key, value in proposed.items() if key in _CANONICAL}
    try:
        fields = canonicalise(opened.datasets, source_names=opened.names, findings=noticed, **wanted)
        return inspect(fields, source_names=opened.names, findings=noticed, sample_steps=sample_steps)
    except WeathermillError:
        findings.extend(noticed)
        raise
