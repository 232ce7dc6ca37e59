"""Checkpoints: all that resuming needs, written so that no crash and no full disk loses the last good one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weathermill.errors import CheckpointError, WeathermillError
from weathermill.tensors.files import fsync_folder, json_bytes, sealed_json, sha256_of, unseal_json, writing
from weathermill.training.state import Tensors, flatten, unflatten

logger = logging.getLogger(__name__)

FORMAT = "weathermill-checkpoint"
VERSION = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"(\d{6})-step-(\d+)$")


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
    """

    path: Path
    epoch: int
    step: int
    metric: float | None
    run_id: str | None
    files: dict[str, dict[str, Any]]

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


class CheckpointManager:
    """Keeps the last few checkpoints of one training, and the best.

    Each is a folder ``<sequence>-step-<step>`` of a safetensors file, a JSON file and a sealed manifest
    with their SHA-256. It is written as ``.partial``, synced, then renamed; older ones are deleted only
    after that. So a ``kill -9`` at any moment, or a full disk, leaves the one before.

    Parameters
    ----------
    folder
        Made when missing.
    keep
        How many of the latest to keep; the best is kept besides.
    background
        Whether ``save(..., wait=False)`` returns once the state is copied to host memory, and a thread writes it.
        A failure then raises from `wait`, or is a warning of the next `save`, which tries anew.
    """

    def __init__(self, folder: str | Path, keep: int = 3, background: bool = True) -> None:
        self.folder = Path(folder)
        self.keep = max(1, int(keep))
        self.background = background
        self._thread: threading.Thread | None = None
        self._failure: WeathermillError | None = None
        # Told of once, not at every save.
        self._left_out: set[Path] = set()
        with writing(self.folder, "The folder of checkpoints"):
            self.folder.mkdir(parents=True, exist_ok=True)

    def save(
        self,
        state: dict[str, Any],
        *,
        epoch: int,
        step: int,
        metric: float | None = None,
        run_id: str | None = None,
        wait: bool = True,
    ) -> None:
        """Save a training state.

        Parameters
        ----------
        state
            Nested dicts, lists and tuples of tensors, arrays, numbers and strings, see `state.flatten`.
        epoch, step
            Completed epochs and optimiser steps.
        metric
            Validation loss, where there is one; the smallest is the best.
        run_id
            The tracker's run.
        wait
            False lets a `background` manager write on while training goes on.

        Raises
        ------
        UnwritableOutputError
            When the disk is full or the folder read-only; the earlier checkpoints are untouched.
        """
        try:
            self.wait()
        except WeathermillError as error:
            logger.warning("The checkpoint before this one was not written: %s", error)
        skeleton, tensors = flatten(state)
        about = {"epoch": int(epoch), "step": int(step), "metric": metric, "run_id": run_id}
        if not self.background:
            self._write(skeleton, tensors, about)
            return
        self._thread = threading.Thread(
            target=self._write_quietly, args=(skeleton, tensors, about), name="checkpoint", daemon=False
        )
        self._thread.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait for a save in the background; raises what it raised."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _write_quietly(self, skeleton: Any, tensors: Tensors, about: dict[str, Any]) -> None:
        try:
            self._write(skeleton, tensors, about)
        except WeathermillError as error:
            self._failure = error
        except BaseException as error:
            self._failure = CheckpointError(
                f"The checkpoint was not written: {error!r}.",
                where=str(self.folder),
                remedy="The checkpoints before it are intact: go on with `--params train.resume=true`.",
            )

    def _write(self, skeleton: Any, tensors: Tensors, about: dict[str, Any]) -> None:
        folders = self._folders()
        sequence = folders[-1][0] + 1 if folders else 0
        final = self.folder / f"{sequence:06d}-step-{about['step']}"
        partial = self.folder / (final.name + ".partial")
        with writing(final, "A checkpoint"):
            self._sweep()
            partial.mkdir(parents=True)
            try:
                try:
                    save_file(tensors, partial / TENSORS)
                except SafetensorError as error:
                    raise _as_os_error(error) from error
                (partial / STATE).write_bytes(json_bytes(skeleton))
                files = {
                    name: {"size": (partial / name).stat().st_size, "sha256": sha256_of(partial / name)}
                    for name in (TENSORS, STATE)
                }
                manifest = {"format": FORMAT, "version": VERSION, **about, "files": files}
                (partial / MANIFEST).write_bytes(sealed_json(manifest))
                for name in (*files, MANIFEST):
                    _fsync(partial / name)
                fsync_folder(partial)
                partial.rename(final)
                fsync_folder(self.folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        self._prune()

    def _sweep(self) -> None:
        for leftover in (*self.folder.glob("*.partial"), *self.folder.glob("*.deleted")):
            shutil.rmtree(leftover, ignore_errors=True)

    @staticmethod
    def _remove(path: Path) -> None:
        # Renamed first, or a kill halfway through would leave what looks like a damaged checkpoint.
        doomed = path.with_name(path.name + ".deleted")
        with contextlib.suppress(OSError):
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _folders(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = _NAME.match(path.name)
            if match and path.is_dir():
                found.append((int(match[1]), path))
        return sorted(found)

    def all(self) -> list[Checkpoint]:
        """List the checkpoints whose manifest and sizes are right, oldest first."""
        good = []
        for _, path in self._folders():
            try:
                good.append(Checkpoint.open(path))
            except CheckpointError as error:
                if path not in self._left_out:
                    logger.warning("Left out: %s", error)
                self._left_out.add(path)
        return good

    def _prune(self) -> None:
        checkpoints = self.all()
        keep = {c.path for c in checkpoints[-self.keep :]}
        best = _best(checkpoints)
        if best is not None:
            keep.add(best.path)
        for checkpoint in checkpoints:
            if checkpoint.path not in keep:
                self._remove(checkpoint.path)

    def latest(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """Load the newest checkpoint that is intact, or None when there are none at all.

        A damaged one is left out with a warning that names it, and the one before is used.

        Raises
        ------
        CheckpointError
            When there are checkpoints, but none is intact.
        """
        self.wait()
        folders = self._folders()
        for _, path in reversed(folders):
            try:
                checkpoint = Checkpoint.open(path)
                return checkpoint, checkpoint.load()
            except CheckpointError as error:
                logger.warning("Using the checkpoint before a damaged one: %s", error)
        if folders:
            raise CheckpointError(
                f"All {len(folders)} checkpoints are damaged.",
                where=str(self.folder),
                remedy="Delete the folder and train anew.",
            )
        return None

    def best(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """Load the intact checkpoint with the smallest metric, or None when none has a metric."""
        self.wait()
        candidates = [c for c in self.all() if c.metric is not None]
        while candidates:
            best = _best(candidates)
            try:
                return best, best.load()
            except CheckpointError as error:
                logger.warning("The best checkpoint is damaged; using the next: %s", error)
                candidates.remove(best)
        return None

    def discard_after(self, checkpoint: Checkpoint) -> None:
        """Delete what is newer than a checkpoint: damaged ones, which resuming from it makes anew."""
        for _, path in self._folders():
            if path.name > checkpoint.path.name:
                self._remove(path)
        self._sweep()

    def set_aside(self) -> None:
        """Move the checkpoints of an earlier training to ``superseded``, until the next time."""
        self.wait()
        folders = self._folders()
        if not folders:
            return
        aside = self.folder / "superseded"
        with writing(self.folder, "The folder of checkpoints"):
            if aside.exists():
                shutil.rmtree(aside)
            aside.mkdir()
            for _, path in folders:
                path.rename(aside / path.name)
        logger.info("The checkpoints of an earlier training were moved to %s", aside)

    def verify(self) -> list[tuple[Path, CheckpointError | None]]:
        """Check every byte of every checkpoint: each folder with its fault, or None where it is intact."""
        self.wait()
        found: list[tuple[Path, CheckpointError | None]] = []
        for _, path in self._folders():
            try:
                Checkpoint.open(path).verify()
                found.append((path, None))
            except CheckpointError as error:
                found.append((path, error))
        return found

    def run_id(self) -> str | None:
        """Give the tracker's run of the newest readable checkpoint, or None."""
        checkpoints = self.all()
        return checkpoints[-1].run_id if checkpoints else None


def _best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    scored = [c for c in checkpoints if c.metric is not None and c.metric == c.metric]
    return min(scored, key=lambda c: (c.metric, c.path.name), default=None)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _as_os_error(error: SafetensorError) -> OSError:
    """Recover the errno that safetensors only puts into its message."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match[1]) if match else 5
    return OSError(number, os.strerror(number))
