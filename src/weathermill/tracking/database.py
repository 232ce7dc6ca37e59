"""A new SQLite store for MLflow, made so that no crash and no second run leaves half of one.

MLflow builds its tables by a long chain of migrations, without a lock. A process killed within them, or two that do it
at once, leave a file that MLflow refuses ever after.
"""

from __future__ import annotations

from pathlib import Path

import mlflow

from weathermill.incremental.locks import StoreLocks

_PREFIX = "sqlite:///"


def make_database(uri: str) -> None:
    """Make the file of a ``sqlite:///`` tracking URI if it is not there: beside it, under a lock, then renamed."""
    if not uri.startswith(_PREFIX):
        return
    path = Path(uri.removeprefix(_PREFIX).partition("?")[0])
    if path.exists() or not path.is_absolute():
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
