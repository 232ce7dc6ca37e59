"""What was noticed about data: one record a finding, with its severity, collected and logged."""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableSequence
from dataclasses import asdict, dataclass
from typing import Literal

import xarray as xr

Severity = Literal["error", "warning", "info"]

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}

# The key of `Dataset.encoding` under which findings of opening travel to whoever has a place for them.
_ATTACHED = "weathermill_findings"

logger = logging.getLogger("weathermill.fields")


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Attributes
    ----------
    severity
        ``error`` stops a run, ``warning`` and ``info`` do not.
    subject
        What it is about: a variable, a coordinate, a source or a grid.
    message
        One sentence.
    remedy
        What to do about it; may be empty.
    settled_by
        Names of variables; a user's table of names that has any of them has done what the remedy says.
    """

    severity: Severity
    subject: str
    message: str
    remedy: str = ""
    settled_by: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """Return the finding, but for what settles it, as a dictionary of strings."""
        values = asdict(self)
        del values["settled_by"]
        return values


class Held(list[Finding]):
    """Findings of one source that are held back until those of all sources can be told together."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source


def tell_together(findings: MutableSequence[Finding] | None, held: Iterable[Held]) -> None:
    """Tell findings of many sources: what is said alike of several of them is said once.

    Parameters
    ----------
    findings
        As for :func:`tell`.
    held
        Findings by source; the source's name in a message does not make it another one.
    """
    groups: dict[tuple[str, str, str], list[tuple[str, Finding]]] = {}
    for group in held:
        for finding in dict.fromkeys(group):
            key = (finding.severity, finding.subject, finding.message.replace(group.source, "\0"))
            groups.setdefault(key, []).append((group.source, finding))
    for entries in groups.values():
        _, first = entries[0]
        more = f" (and {len(entries) - 1} more sources likewise)" if len(entries) > 1 else ""
        tell(findings, first.severity, first.subject, first.message + more, first.remedy)


def tell(
    findings: MutableSequence[Finding] | None,
    severity: Severity,
    subject: str,
    message: str,
    remedy: str = "",
) -> Finding:
    """Log a finding, and append it to ``findings`` where there is such a list."""
    finding = Finding(severity, subject, message, remedy)
    if isinstance(findings, Held):
        findings.append(finding)
        return finding
    logger.log(_LEVELS[severity], "%s: %s%s", subject, message, f" -> {remedy}" if remedy else "")
    if findings is not None:
        findings.append(finding)
    return finding


def attach(dataset: xr.Dataset, findings: Iterable[Finding]) -> None:
    """Have a dataset as opened carry findings, which :func:`attached` returns when it is surveyed."""
    dataset.encoding[_ATTACHED] = (*attached(dataset), *findings)


def attached(dataset: xr.Dataset) -> tuple[Finding, ...]:
    """Return what was noticed when a dataset was opened."""
    return dataset.encoding.get(_ATTACHED, ())
