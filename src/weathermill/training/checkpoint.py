"""Checkpoints: all that resuming needs, written so that no crash and no full disk loses the last good one."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from weathermill.errors import CheckpointError, WeathermillError
from weathermill.tensors.files import fsync_folder, json_bytes, sealed_json, sha256_of, writing
from weathermill.training.checkpoint_files import (
    FORMAT,
    MANIFEST,
    NAME,
    STATE,
    TENSORS,
    VERSION,
    Checkpoint,
    as_os_error,
    fsync,
    step_of,
)
from weathermill.training.history import Phase
from weathermill.training.state import Tensors, flatten

logger = logging.getLogger(__name__)

__all__ = ["Checkpoint", "CheckpointManager"]


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
    digests
        Hashes of what a training that is saved here is made of, by name: they go into its history, see `Phase`.
    background
        Whether ``save(..., wait=False)`` returns once the state is copied to host memory, and a thread writes it.
        A failure then raises from `wait`, or is a warning of the next `save`, which tries anew.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int = 3,
        background: bool = True,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.digests = dict(digests or {})
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
        phases: Sequence[Phase] = (),
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
        phases
            With what it was trained so far.

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
        about = {
            "epoch": int(epoch),
            "step": int(step),
            "metric": metric,
            "run_id": run_id,
            "phases": [phase.to_dict() for phase in phases],
        }
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
                    raise as_os_error(error) from error
                (partial / STATE).write_bytes(json_bytes(skeleton))
                files = {
                    name: {"size": (partial / name).stat().st_size, "sha256": sha256_of(partial / name)}
                    for name in (TENSORS, STATE)
                }
                manifest = {"format": FORMAT, "version": VERSION, **about, "files": files}
                (partial / MANIFEST).write_bytes(sealed_json(manifest))
                for name in (*files, MANIFEST):
                    fsync(partial / name)
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
            match = NAME.match(path.name)
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

    def set_aside(self) -> bool:
        """Move the checkpoints of an earlier training to ``superseded``, until the next time; say whether there were any.

        Checkpoints that hold no step go: they must not drive out of ``superseded`` what took long to train.
        """
        self.wait()
        folders = self._folders()
        if folders and all(step_of(path) == 0 for _, path in folders):
            for _, path in folders:
                self._remove(path)
            return False
        if not folders:
            return False
        aside = self.folder / "superseded"
        with writing(self.folder, "The folder of checkpoints"):
            if aside.exists():
                shutil.rmtree(aside)
            aside.mkdir()
            for _, path in folders:
                path.rename(aside / path.name)
        logger.info("The checkpoints of an earlier training were moved to %s", aside)
        return True

    def bring_back(self) -> None:
        """Undo `set_aside` where the new training has not taken a step that is saved; else do nothing."""
        with contextlib.suppress(WeathermillError):
            self.wait()
        aside = self.folder / "superseded"
        folders = self._folders()
        if not aside.is_dir() or any(step_of(path) for _, path in folders):
            return
        with writing(self.folder, "The folder of checkpoints"):
            for _, path in folders:
                self._remove(path)
            for path in sorted(aside.iterdir()):
                path.rename(self.folder / path.name)
            aside.rmdir()
        logger.info("The checkpoints of the earlier training are back in %s", self.folder)

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

    def newest(self) -> Checkpoint | None:
        """Give the newest checkpoint whose manifest and sizes are right, without loading it, or None."""
        checkpoints = self.all()
        return checkpoints[-1] if checkpoints else None

    def run_id(self) -> str | None:
        """Give the tracker's run of the newest readable checkpoint, or None."""
        checkpoint = self.newest()
        return None if checkpoint is None else checkpoint.run_id


def _best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    scored = [c for c in checkpoints if c.metric is not None and c.metric == c.metric]
    return min(scored, key=lambda c: (c.metric, c.path.name), default=None)
