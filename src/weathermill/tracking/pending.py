"""What the tracking server did not take: kept on disk, in order, until it does."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from weathermill.incremental.locks import StoreLock
from weathermill.tracking.operations import Operation, count_in_words

logger = logging.getLogger(__name__)

FOLDER = "mlflow_pending"
SYNCED = "synced.json"
REFUSED = "refused"
#: Of the ids of runs that were begun without the server.
LOCAL_PREFIX = "local-"
_CALLS = "calls.jsonl"
_STORE = "store.txt"
#: Between a run and what tells the folders of two processes apart that record to it.
_ANOTHER = "~"


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
        self._waiting: list[Operation] = []
        self._refused: list[Operation] = []
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
        self._refused = read_calls(self.folder / REFUSED / _CALLS)
        if not (self.folder / _CALLS).exists():
            return
        self._waiting = [each for line in read_calls(self.folder / _CALLS) for each in _current(line)]
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
                self._open()
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

    def _open(self) -> None:
        """Make the folder, or one beside it where another process is at work on what it has of the same run."""
        if not self._take():
            self.folder = self.folder.with_name(f"{run_of(self.folder)}{_ANOTHER}{uuid.uuid4().hex[:6]}")
            self._lock = StoreLock(self.folder, exclusive=True)
            self._take()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._store and not (self.folder / _STORE).exists():
            (self.folder / _STORE).write_text(self._store, encoding="utf-8")

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

    @property
    def refused(self) -> list[Operation]:
        """What will never be taken as it is, each with its ``reason``."""
        return list(self._refused)

    def keep(self, operations: Sequence[Operation]) -> None:
        """Have these wait, and no others; `save` has the folder follow."""
        self._waiting = list(operations)

    def refuse(self, operation: Operation, reason: str) -> None:
        """Set one aside that will never be taken as it is, with its file, where it blocks nothing."""
        known = [
            {k: v for k, v in each.items() if k not in ("reason", "refused_at")} for each in self._refused
        ]
        if operation in known:
            return
        try:
            if self.folder is not None:
                self._open()
                aside = self.folder / REFUSED
                aside.mkdir(exist_ok=True)
                operation = self._set_file_aside(operation, aside)
        except OSError as error:
            logger.warning("what MLflow refused is kept in memory only: %s", error)
        self._refused.append({**operation, "reason": reason, "refused_at": int(time.time())})
        self._write_refused()

    def _set_file_aside(self, operation: Operation, aside: Path) -> Operation:
        if "path" not in operation or not Path(operation["path"]).exists():
            return operation
        source = Path(operation["path"])
        if source.is_relative_to(aside):
            return operation
        target = aside / "files" / f"{len(self._refused) + 1:04d}-{uuid.uuid4().hex[:6]}" / source.name
        target.parent.mkdir(parents=True)
        # A copy also of what waited: until `save`, the list of what waits still names it.
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return {**operation, "path": str(target)}

    def try_refused_again(self) -> None:
        """Have what was refused wait once more, before all else."""
        again = [
            {k: v for k, v in each.items() if k not in ("reason", "refused_at")} for each in self._refused
        ]
        self._waiting = [*again, *self._waiting]
        self._write_all()
        self._refused = []
        # Its files stay where they are until they are taken; `save` then removes them with the folder.
        self._write_refused()

    def _write_refused(self) -> None:
        if self.folder is None or not self._locked:
            return
        path = self.folder / REFUSED / _CALLS
        if self._refused:
            _write_calls(path, self._refused)
        else:
            path.unlink(missing_ok=True)

    def save(self) -> None:
        """Have the folder hold what still waits and what was refused, and nothing else; it goes when nothing does."""
        if self.folder is None or not self._locked:
            return
        if self._waiting:
            self._write_all()
        elif self._refused:
            (self.folder / _CALLS).unlink(missing_ok=True)
            shutil.rmtree(self.folder / "files", ignore_errors=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.release()

    def warn(self, reason: str) -> None:
        """Say in the log what MLflow does not have when a run ends, and why."""
        if self._waiting:
            logger.warning(
                "MLflow does not have all of this run yet: %s wait in %s, and are told by the next run that reaches it,"
                " or by `weathermill sync`%s",
                count_in_words(self._waiting),
                self.folder or "memory",
                f": {reason}" if reason else "",
            )
        if self._refused:
            logger.warning(
                "MLflow refused %s of this run: kept in %s; `weathermill sync` lists them",
                count_in_words(self._refused),
                self.folder / REFUSED if self.folder is not None else "memory",
            )

    def release(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()
            self._locked = False

    def _write_all(self) -> None:
        _write_calls(self.folder / _CALLS, self._waiting)


def _write_calls(path: Path, operations: Sequence[Operation]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(operation) + "\n" for operation in operations)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_calls(path: Path) -> list[Operation]:
    """The operations that a file holds, up to a line that a kill cut short."""
    found: list[Operation] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def waiting_calls(folder: Path) -> list[Operation]:
    """The operations that wait in a folder, which may be another process's."""
    return read_calls(folder / _CALLS)


def _current(operation: Operation) -> list[Operation]:
    """An operation as it is written today: models were once logged and registered by one."""
    if operation["op"] != "model" or "key" in operation:
        return [operation]
    key, name = uuid.uuid4().hex, operation.get("registered_model_name")
    register = {"op": "register", "key": key, "name": name, "trained": int(time.time() * 1000)}
    return [{"op": "model", "path": operation["path"], "key": key}, *([register] if name else [])]


def run_of(folder: Path) -> str:
    """The run that the operations in a folder are for."""
    return folder.name.partition(_ANOTHER)[0]


def store_of(folder: Path) -> str:
    """The digest of the tracking URI that the operations in a folder are for; empty where that is not known."""
    try:
        return (folder / _STORE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def synced_runs(project: Path) -> dict[str, str]:
    """The ids that MLflow gave to runs that were begun without it, by the ids they had until then."""
    try:
        return dict(json.loads((project / FOLDER / SYNCED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def note_synced(project: Path, local_id: str, run_id: str) -> None:
    """Remember the id that MLflow gave to a run."""
    path = project / FOLDER / SYNCED
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {**synced_runs(project), local_id: run_id}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
    partial.replace(path)
