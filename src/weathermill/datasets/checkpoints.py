"""The folder of training checkpoints as a catalog entry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kedro.io import DatasetError

from weathermill.datasets.local import LocalDataset, writable
from weathermill.training.checkpoint import Checkpoint, CheckpointManager
from weathermill.training.history import go_on, history_digest


class CheckpointsDataset(LocalDataset):
    """Loads a manager of the folder; saving is the manager's own work, step by step, while training goes on.

    ``load_args`` are the keyword arguments of ``CheckpointManager``.
    """

    #: What training left behind decides nothing about what training would give.
    has_fingerprint = False

    #: Training reads and writes them, so a run that trains must have them for itself.
    written_while_read = True

    #: Hashes of what the training is made of, by name, set before it is loaded to be trained with.
    digests: Mapping[str, str] | None = None

    def load(self) -> CheckpointManager:
        """Make the manager; the folder is made with it, so that an unwritable one is told before training."""
        with writable(self._filepath):
            self._filepath.mkdir(parents=True, exist_ok=True)
            return CheckpointManager(self._filepath, **self._load_args, digests=self.digests)

    def save(self, data: CheckpointManager) -> None:
        """Refuse: checkpoints are written by the training engine."""
        raise DatasetError("checkpoints are written while training; nothing is saved through the catalog")

    def _exists(self) -> bool:
        return True

    def verify(self, *, checksums: bool) -> None:
        """Check all checkpoints; raises `CheckpointError` naming the first that is damaged."""
        manager = CheckpointManager(self._filepath, **self._load_args)
        for _, fault in manager.verify():
            if fault is not None:
                raise fault

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint, not loaded, or None; nothing is made on disk."""
        if not self._filepath.is_dir():
            return None
        return CheckpointManager(self._filepath, **self._load_args).newest()

    def history_with(self, digests: Mapping[str, str]) -> str:
        """Hash the history that a training resumed from here with these digests would have.

        Empty where that is no other than the history of a training from its start: there is no checkpoint, or nothing
        changed since.
        """
        checkpoint = self.newest()
        if checkpoint is None:
            return ""
        phases = go_on(checkpoint.phases, checkpoint.epoch, checkpoint.step, {}, digests)
        return history_digest(phases) if len(phases) > 1 else ""

    def history(self) -> str:
        """Hash the history of the newest checkpoint; empty where that has no more than one phase."""
        checkpoint = self.newest()
        return history_digest(checkpoint.phases) if checkpoint and len(checkpoint.phases) > 1 else ""

    def is_of(self, digests: Mapping[str, str]) -> bool:
        """Whether the newest checkpoint is of a training with these digests."""
        newest = self.newest()
        return newest is not None and bool(newest.phases) and newest.phases[-1].digests == digests

    def beside(self, folder: Path) -> CheckpointsDataset:
        """The same of another folder."""
        return CheckpointsDataset(filepath=str(folder), load_args=self._load_args)

    def run_id(self) -> str | None:
        """The tracker's run that the latest checkpoint belongs to, or None."""
        checkpoint = self.newest()
        return None if checkpoint is None else checkpoint.run_id
