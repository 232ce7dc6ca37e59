"""A new SQLite store for MLflow, made so that no crash and no second run leaves half of one.

MLflow builds its tables by a long chain of migrations, without a lock. A process killed within them, or two that do it
at once, leave a file that MLflow refuses ever after.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import mlflow

from weathermill.incremental.locks import StoreLocks

_PREFIX = "sqlite:///"
_PATIENCE = 2.0


def require_unlocked(uri: str) -> None:
    """Find out soon whether a SQLite store can be written to.

    MLflow waits for a lock for 20 seconds, in each of its calls.

    Raises
    ------
    sqlite3.OperationalError
        If another process has held it locked for two seconds, or it cannot be written to.
    """
    path = _path(uri)
    if path is None or not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        connection.execute("rollback")


def _path(uri: str) -> Path | None:
    return Path(uri.removeprefix(_PREFIX).partition("?")[0]) if uri.startswith(_PREFIX) else None


def make_database(uri: str) -> None:
    """Make the file of a ``sqlite:///`` tracking URI if it is not there: beside it, under a lock, then renamed."""
    path = _path(uri)
    if path is None or path.exists() or not path.is_absolute():
        return
    locks = StoreLocks()
    locks.acquire([path])
    try:
        if path.exists():
            return
        partial = path.with_name(path.name + ".partial")
        for left_over in path.parent.glob(partial.name + "*"):
            left_over.unlink()
        mlflow.MlflowClient(f"{_PREFIX}{partial}").search_experiments(max_results=1)
        partial.replace(path)
    finally:
        locks.release()
