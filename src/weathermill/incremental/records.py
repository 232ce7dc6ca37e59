"""What is known of an output on disk: its fingerprint, files and circumstances, in a small file beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

SUFFIX = ".fingerprint.json"
_BLOCK = 2**22


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
        The fingerprints of what they are made of: each input, and the code.
    files
        Size and SHA-256 of each file, by its path inside the output ("." for an output that is one file).
    peak_memory
        The most host memory that the process held while the node ran and saved, in bytes; 0 where not known.
    execution
        The same for all outputs that one execution of the node made; empty where not known.
    contents
        Hashes of the bytes of the outputs on disk that it was made of, by name, also through datasets in memory; empty
        where not known.
    """

    fingerprint: str
    node: str
    made: float
    seconds: float
    size: int
    run_id: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    peak_memory: int = 0
    execution: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Hash of the names and bytes of its files; empty where they are not known."""
        sums = sorted((name, digest) for name, (_, digest) in self.files.items())
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest() if sums else ""

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


def in_mebibytes(size: int) -> str:
    """Say a number of bytes."""
    return f"{size / 2**20:.1f} MiB"


def record_path(output: Path) -> Path:
    """Where the record of an output is."""
    return output.with_name(output.name + SUFFIX)


def _files(output: Path) -> Iterator[tuple[str, Path]]:
    if not output.is_dir():
        yield ".", output
        return
    for entry in output.rglob("*"):
        if entry.is_file():
            yield entry.relative_to(output).as_posix(), entry


def sizes_of(output: Path) -> dict[str, int]:
    """Bytes of each file of an output."""
    return {name: path.stat().st_size for name, path in _files(output)}


def size_of(output: Path) -> int:
    """Bytes of an output."""
    return sum(sizes_of(output).values())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_of(output: Path, known: Mapping[str, str] | None = None) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file of an output.

    Parameters
    ----------
    output
        A file or a folder.
    known
        Checksums of files, by their path inside the output, that need not be computed again.
    """
    known = known or {}
    entries = sorted(_files(output))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        sums = pool.map(lambda entry: known.get(entry[0]) or sha256_of(entry[1]), entries)
        return {
            name: (path.stat().st_size, digest) for (name, path), digest in zip(entries, sums, strict=True)
        }


def fault_of(output: Path, record: Record, *, checksums: bool = False) -> str:
    """Say in what an output differs from its record; empty if in nothing.

    Parameters
    ----------
    output
        A file or a folder.
    record
        Its record.
    checksums
        Whether to read and compare every byte, too, and not only names and sizes.
    """
    try:
        sizes = sizes_of(output)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not record.files:
        return "" if sum(sizes.values()) == record.size else "has another size than its record says"
    if missing := sorted(set(record.files) - set(sizes)):
        return f"{_named(missing[0], output)} is missing"
    if unknown := sorted(set(sizes) - set(record.files)):
        return f"{_named(unknown[0], output)} was not there when it was written"
    for name, (size, _) in sorted(record.files.items()):
        if sizes[name] != size:
            how = "truncated" if sizes[name] < size else "longer than it was"
            return f"{_named(name, output)} is {how}: {sizes[name]} bytes, not {size}"
    if not checksums:
        return ""
    now = files_of(output)
    changed = [name for name in sorted(record.files) if now[name][1] != record.files[name][1]]
    if not changed:
        return ""
    own = {digest: name for name, (_, digest) in record.files.items()}
    other = own.get(now[changed[0]][1])
    how = f"holds the contents of {other}" if other else "is changed: its SHA-256 is another"
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{_named(changed[0], output)} {how}{more}"


def _named(name: str, output: Path) -> str:
    return output.name if name == "." else name


def stored_record(output: Path) -> Record | None:
    """The record of an output as it was written, whatever became of the output; None if there is none."""
    try:
        return Record(**json.loads(record_path(output).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def read_record(output: Path) -> Record | None:
    """The record of an output, or None if there is none that fits the names and sizes of what is on disk."""
    record = stored_record(output)
    return record if record is not None and not fault_of(output, record) else None


def write_record(output: Path, record: Record) -> None:
    """Write the record of an output, atomically."""
    target = record_path(output)
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def remove_record(output: Path) -> None:
    """Withdraw the record of an output, in the moment before the output is replaced.

    Raises
    ------
    OSError
        If there is one and it cannot be removed: it would go on describing what is no longer there.
    """
    path = record_path(output)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        # The disk must not learn of the replacement first.
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
