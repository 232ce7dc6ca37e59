"""Writing files so that a crash, a full disk or a missing permission never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weathermill.errors import UnwritableOutputError

_CHUNK = 1 << 22


@contextlib.contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Turn an `OSError` inside into an `UnwritableOutputError` that names the path and the cause."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = _free(path)
            raise UnwritableOutputError(
                f"The disk is full: {what} cannot be written ({free} free).",
                where=str(path),
                remedy="Free disk space and run again; what is complete is kept.",
            ) from error
        raise UnwritableOutputError(
            f"{what} cannot be written: {error.strerror or error}.", where=str(path)
        ) from error


def _free(path: Path) -> str:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB"
    return "unknown"


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the platform can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file by way of ``<name>.partial`` in the same folder, synced before it gets its name."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def json_bytes(value: Any) -> bytes:
    """Encode as UTF-8 JSON with sorted keys: equal values give equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sha256_of(path: Path) -> str:
    """Hash a file, 4 MiB at a time."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            digest.update(view[:n])
    return digest.hexdigest()


def sealed_json(value: dict[str, Any]) -> bytes:
    """Encode a JSON object with its own SHA-256 in the key ``seal``, so that damage to it shows."""
    value = {key: item for key, item in value.items() if key != "seal"}
    return json_bytes({**value, "seal": hashlib.sha256(json_bytes(value)).hexdigest()})


def unseal_json(data: bytes) -> dict[str, Any]:
    """Decode what `sealed_json` made.

    Raises
    ------
    ValueError
        When it is no JSON, or not what was sealed.
    """
    value = json.loads(data)
    if not isinstance(value, dict) or "seal" not in value:
        raise ValueError("it carries no seal")
    seal = value.pop("seal")
    if hashlib.sha256(json_bytes(value)).hexdigest() != seal:
        raise ValueError("its contents do not match its seal")
    return value


def replace_folder(new: Path, target: Path) -> None:
    """Give a complete folder its final name; an older one is moved aside only now and deleted last.

    Between the two renames there is a moment without a folder of that name; `recover_folder` mends a crash
    in it.
    """
    aside = target.with_name(target.name + ".replaced")
    if aside.exists():
        shutil.rmtree(aside)
    if target.exists():
        target.rename(aside)
    new.rename(target)
    fsync_folder(target.parent)
    if aside.exists():
        shutil.rmtree(aside)


def recover_folder(target: Path) -> None:
    """Undo what a crash inside `replace_folder` left: bring the older folder back, or delete it."""
    aside = target.with_name(target.name + ".replaced")
    if aside.exists():
        if target.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(target)
