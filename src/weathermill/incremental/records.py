"""What is known of an output on disk: its fingerprint and circumstances, in a small file beside it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

SUFFIX = ".fingerprint.json"


@dataclass(frozen=True)
class Record:
    """The record of one output.

    Parameters
    ----------
    fingerprint
        SHA-256 of everything that determines the contents.
    node
        The node that made it.
    made
        When, in seconds since 1970-01-01 UTC.
    seconds
        How long the node took.
    size
        Bytes.
    run_id
        The MLflow run, or empty.
    parts
        The fingerprints of what it was made of: each input, and the code.
    """

    fingerprint: str
    node: str
    made: float
    seconds: float
    size: int
    run_id: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def age(self) -> str:
        """How long ago it was made, in words."""
        return in_words(max(0.0, time.time() - self.made))


def in_words(seconds: float) -> str:
    """Say a duration in its largest sensible unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def record_path(output: Path) -> Path:
    """Where the record of an output is."""
    return output.with_name(output.name + SUFFIX)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def read_record(output: Path) -> Record | None:
    """The record of an output, or None if there is none that fits what is on disk."""
    try:
        record = Record(**json.loads(record_path(output).read_text()))
        return record if size_of(output) == record.size else None
    except (OSError, ValueError, TypeError):
        return None


def write_record(output: Path, record: Record) -> None:
    """Write the record of an output, atomically."""
    target = record_path(output)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(json.dumps(asdict(record), indent=1))
    partial.replace(target)


def remove_record(output: Path) -> None:
    """Forget an output, before it is written anew."""
    with contextlib.suppress(OSError):
        record_path(output).unlink()
