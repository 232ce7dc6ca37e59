"""The folder of training checkpoints as a catalog entry."""

from __future__ import annotations

from kedro.io import DatasetError

from weathermill.datasets.local import LocalDataset, writable
from weathermill.training.checkpoint import CheckpointManager


class CheckpointsDataset(LocalDataset):
    """Loads a manager of the folder; saving is the manager's own work, step by step, while training goes on.

    ``load_args`` are the keyword arguments of ``CheckpointManager``.
    """

    #: What training left behind decides nothing about what training would give.
    has_fingerprint = False

    #: Training reads and writes them, so a run that trains must have them for itself.
    written_while_read = True

    def load(self) -> CheckpointManager:
        """Make the manager; the folder is made with it, so that an unwritable one is told before training."""
        with writable(self._filepath):
            self._filepath.mkdir(parents=True, exist_ok=True)
            return CheckpointManager(self._filepath, **self._load_args)

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

    def run_id(self) -> str | None:
        """The tracker's run that the latest checkpoint belongs to, or None."""
        if not self._filepath.is_dir():
            return None
        return CheckpointManager(self._filepath, **self._load_args).run_id()
