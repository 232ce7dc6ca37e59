"""What the tracking server did not take: kept on disk, in order, until it does."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weathermill.incremental.locks import StoreLock
from weathermill.tracking.operations import Operation

logger = logging.getLogger(__name__)

FOLDER = "mlflow_pending"
SYNCED = "synced.json"
_CALLS = "calls.jsonl"
_STORE = "store.txt"


class Pending:
    """Operations on one run that wait for the server.

    Parameters
    ----------
    folder
        Where they are kept, with copies of the files they send, so that they outlive this process and what later
        runs overwrite. None keeps them in memory only.
    store
        A digest of the tracking URI that they are for; kept with them.
    """

    def __init__(self, folder: Path | None = None, store: str = "") -> None:
        self.folder = folder
        self._store = store
        self._waiting: deque[Operation] = deque()
        self._lock = StoreLock(folder, exclusive=True) if folder is not None else None
        self._locked = False
        self._files = 0
        self._told = False
        if folder is not None and folder.is_dir() and self._take():
            self._read()

    def _take(self) -> bool:
        if self._lock is not None and not self._locked:
            self._locked = self._lock.acquire()
        return self._locked

    def _read(self) -> None:
        path = self.folder / _CALLS
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                self._waiting.append(json.loads(line))
            except ValueError:
                # A line that a kill cut short; nothing follows it.
                break
        self._files = len(list((self.folder / "files").glob("*")))
        self._write_all()

    @property
    def usable(self) -> bool:
        """Whether the folder is ours: not another process's that is at work on it."""
        return self.folder is None or self._locked

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Operation]:
        return iter(list(self._waiting))

    def append(self, operation: Operation) -> None:
        """Keep one more; a file that it sends is copied."""
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._take()
                if self._store and not (self.folder / _STORE).exists():
                    (self.folder / _STORE).write_text(self._store)
                operation = self._with_copy(operation)
                with (self.folder / _CALLS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(operation) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            if not self._told:
                logger.warning("what MLflow did not take is kept in memory only: %s", error)
                self._told = True
        self._waiting.append(operation)

    def _with_copy(self, operation: Operation) -> Operation:
        if "path" not in operation:
            return operation
        source = Path(operation["path"])
        self._files += 1
        target = self.folder / "files" / f"{self._files:04d}" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return {**operation, "path": str(target)}

    def first(self) -> Operation:
        """The one that must go next."""
        return self._waiting[0]

    def done(self) -> None:
        """Strike the first."""
        self._waiting.popleft()

    def save(self) -> None:
        """Have the folder hold what still waits, and nothing else; it goes when nothing does."""
        if self.folder is None or not self._locked:
            return
        if self._waiting:
            self._write_all()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.release()

    def release(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()
            self._locked = False

    def _write_all(self) -> None:
        path = self.folder / _CALLS
        partial = path.with_name(path.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(operation) + "\n" for operation in self._waiting)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def store_of(folder: Path) -> str:
    """The digest of the tracking URI that the operations in a folder are for; empty where that is not known."""
    try:
        return (folder / _STORE).read_text().strip()
    except OSError:
        return ""


def synced_runs(project: Path) -> dict[str, str]:
    """The ids that MLflow gave to runs that were begun without it, by the ids they had until then."""
    try:
        return dict(json.loads((project / FOLDER / SYNCED).read_text()))
    except (OSError, ValueError):
        return {}


def note_synced(project: Path, local_id: str, run_id: str) -> None:
    """Remember the id that MLflow gave to a run."""
    path = project / FOLDER / SYNCED
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {**synced_runs(project), local_id: run_id}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(known, indent=1))
    partial.replace(path)
