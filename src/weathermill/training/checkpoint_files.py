"""One checkpoint on disk: its folder, its files, and whether they are intact."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from weathermill.errors import CheckpointError
from weathermill.tensors.files import sha256_of, unseal_json
from weathermill.training.history import Phase, phases_of
from weathermill.training.state import unflatten

FORMAT = "weathermill-checkpoint"
VERSION = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"(\d{6})-step-(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk, found intact or not yet looked into.

    Parameters
    ----------
    path
        Its folder.
    epoch, step
        Completed epochs and optimiser steps.
    metric
        What the best checkpoint has least of (the validation loss), or None for one within an epoch.
    run_id
        The tracker's run.
    files
        Name to size and SHA-256.
    phases
        With what it was trained.
    """

    path: Path
    epoch: int
    step: int
    metric: float | None
    run_id: str | None
    files: dict[str, dict[str, Any]]
    phases: tuple[Phase, ...] = ()

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read the manifest and compare the sizes of the files.

        Raises
        ------
        CheckpointError
            When something is missing, truncated or of another format.
        """
        try:
            manifest = unseal_json((path / MANIFEST).read_bytes())
            if manifest["format"] != FORMAT or manifest["version"] != VERSION:
                raise ValueError(f"it is of format {manifest['format']!r} version {manifest['version']!r}")
            for name, record in manifest["files"].items():
                size = (path / name).stat().st_size
                if size != record["size"]:
                    raise ValueError(f"{name} has {size} bytes and should have {record['size']}")
            return cls(
                path,
                manifest["epoch"],
                manifest["step"],
                manifest["metric"],
                manifest["run_id"],
                manifest["files"],
                phases_of(manifest.get("phases"), manifest["epoch"], manifest["step"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"The checkpoint is damaged: {error}.", where=str(path)) from error

    def verify(self) -> None:
        """Compare every byte with the manifest's SHA-256; raises `CheckpointError` naming the file."""
        for name, record in self.files.items():
            try:
                intact = sha256_of(self.path / name) == record["sha256"]
            except OSError as error:
                raise CheckpointError(
                    f"The checkpoint's {name} cannot be read: {error}.", where=str(self.path)
                ) from error
            if not intact:
                raise CheckpointError(
                    f"The checkpoint is damaged: {name} does not match its SHA-256.", where=str(self.path)
                )

    def load(self) -> dict[str, Any]:
        """Verify, then give the state back, tensors on the CPU."""
        self.verify()
        try:
            skeleton = json.loads((self.path / STATE).read_bytes())
            return unflatten(skeleton, load_file(self.path / TENSORS))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"The checkpoint cannot be read: {error}.", where=str(self.path)) from error


def step_of(path: Path) -> int:
    """Optimiser steps of a checkpoint, by the name of its folder."""
    match = NAME.match(path.name)
    return int(match[2]) if match else 0


def fsync(path: Path) -> None:
    """Have the disk hold a file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_os_error(error: SafetensorError) -> OSError:
    """Recover the errno that safetensors only puts into its message."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match[1]) if match else 5
    return OSError(number, os.strerror(number))
