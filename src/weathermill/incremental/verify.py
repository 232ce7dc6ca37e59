"""Whether what is on disk is what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kedro.framework.context import KedroContext

from weathermill.errors import WeathermillError
from weathermill.incremental.plan import output_path
from weathermill.incremental.records import fault_of, in_mebibytes, stored_record
from weathermill.incremental.selection import combined_pipeline


@dataclass(frozen=True)
class Finding:
    """What became of one output.

    Parameters
    ----------
    name
        The catalog entry.
    path
        Where it is.
    state
        ``intact``, ``damaged`` or ``unknown`` (there is nothing to compare it with).
    detail
        What is wrong; else its size.
    node
        What made it, where that is known.
    """

    name: str
    path: Path
    state: str
    detail: str
    node: str = ""


def verify_outputs(
    context: KedroContext, names: Sequence[str] = (), *, checksums: bool = True
) -> list[Finding]:
    """Compare every output of pipelines that is on disk with its record and with the manifest that it may have.

    Parameters
    ----------
    context
        The project.
    names
        Pipelines; all when empty.
    checksums
        Whether to read every byte; otherwise names and sizes are compared.
    """
    combined = combined_pipeline(names)
    findings = []
    for name in sorted(combined.datasets()):
        if name.startswith("params:") or name not in context.catalog:
            continue
        dataset = context.catalog.get(name)
        path = output_path(dataset)
        if path is None or not path.exists() or any(path == known.path for known in findings):
            continue
        record = stored_record(path)
        fault = fault_of(path, record, checksums=checksums) if record is not None else ""
        own = getattr(dataset, "verify", None)
        if not fault and own is not None:
            try:
                own(checksums=checksums)
            except WeathermillError as error:
                fault = f"{error.what} [{error.where}]"
        if fault:
            findings.append(Finding(name, path, "damaged", fault, record.node if record is not None else ""))
        elif record is None and own is None:
            findings.append(Finding(name, path, "unknown", "it has no record"))
        else:
            findings.append(Finding(name, path, "intact", in_mebibytes(record.size) if record else ""))
    return findings
