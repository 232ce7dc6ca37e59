"""What was noticed about data: one record a finding, with its severity, collected and logged."""

from __future__ import annotations

import logging
from collections.abc import MutableSequence
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}

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
    """

    severity: Severity
    subject: str
    message: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the finding as a dictionary of strings."""
        return asdict(self)


def tell(
    findings: MutableSequence[Finding] | None,
    severity: Severity,
    subject: str,
    message: str,
    remedy: str = "",
) -> Finding:
    """Log a finding, and append it to ``findings`` where there is such a list."""
    finding = Finding(severity, subject, message, remedy)
    logger.log(_LEVELS[severity], "%s: %s%s", subject, message, f" -> {remedy}" if remedy else "")
    if findings is not None:
        findings.append(finding)
    return finding
