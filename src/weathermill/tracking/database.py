"""MLflow's database: made so that no crash leaves half of one, checked before it is used, and never migrated unasked.

MLflow builds its tables by a long chain of migrations, without a lock. A process killed within them, or two that do it
at once, leave a file that MLflow refuses ever after.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow.db import upgrade

from weathermill.errors import TrackingError
from weathermill.incremental.locks import StoreLocks
from weathermill.redaction import redact

logger = logging.getLogger(__name__)

_PREFIX = "sqlite:///"
_PATIENCE = 2.0
_SCHEMES = ("http", "https", "databricks", "databricks-uc", "uc", "file", "")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def require_address(uri: str) -> None:
    """Refuse a tracking URI that names nothing that MLflow could record to, before anything is done.

    Raises
    ------
    TrackingError
        If it is malformed or of an unknown scheme.
    """
    # A plug-in of MLflow may know others.
    scheme, separator, _ = uri.partition("://")
    scheme = scheme.partition("+")[0]
    fault = ""
    if scheme == "sqlite" and not uri.startswith(_PREFIX):
        fault = "the path of a SQLite database comes after three slashes, four if it is absolute"
    elif scheme in ("http", "https"):
        fault = _fault_of_url(uri)
    elif not separator and re.match(r"(https?/|[\w.-]+:\d+(/|$))", uri):
        fault = "it lacks the scheme (http:// or https://)"
    elif separator and scheme not in (*_SCHEMES, *_DATABASES) and not _has_plugin(scheme):
        fault = (
            f"MLflow knows no {scheme}://, but http, https, sqlite, postgresql, mysql, mssql and databricks"
        )
    if fault:
        raise TrackingError(
            f"the tracking URI is malformed: {fault}",
            where=redact(uri),
            remedy="Write http://host:5000 or sqlite:///mlflow.db, as `tracking_uri` in mlflow.yml or in MLFLOW_TRACKING_URI.",
        )


def _fault_of_url(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        named = bool(parts.hostname)
        _ = parts.port
    except ValueError as error:
        return str(error)
    return "" if named else "it names no host"


def _has_plugin(scheme: str) -> bool:
    from importlib.metadata import entry_points

    return any(entry.name == scheme for entry in entry_points(group="mlflow.tracking_store"))


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


def require_schema(uri: str, project: Path) -> None:
    """See that the database has the schema of the installed MLflow, which would migrate an older one without a word.

    A SQLite file of the project is copied and then migrated. Any other database may have other users, whose MLflow
    could not read it any more: that is left to them.

    Parameters
    ----------
    uri
        The tracking URI; what is no database is not looked at.
    project
        The project's folder.

    Raises
    ------
    TrackingError
        If it is no database of MLflow, its schema is newer, or it is older and not the project's own.
    """
    if uri.partition("://")[0].partition("+")[0] not in _DATABASES:
        return
    path = _path(uri)
    if path is not None and (not path.exists() or path.stat().st_size == 0):
        return
    tables, revision = _revision_of(path) if path is not None else _revision_on_server(uri)
    known = _revisions()
    where = redact(uri)
    if not tables or not known or revision == known[-1]:
        return
    if revision is None or "experiments" not in tables:
        raise TrackingError("the database holds tables that are not MLflow's", where=where)
    if revision not in known:
        raise TrackingError(
            f"the database has a newer schema ({revision}) than the installed MLflow {mlflow.__version__} knows"
            f" ({known[-1]})",
            where=where,
            remedy="Install the MLflow that made it (`pip install --upgrade mlflow`), or give another `tracking_uri`.",
        )
    if path is None or not path.resolve().is_relative_to(project.resolve()):
        copied = f'`sqlite3 {path} ".backup copy.db"`' if path is not None else "a copy"
        raise TrackingError(
            f"the database has an older schema ({revision}) than that of the installed MLflow {mlflow.__version__}"
            f" ({known[-1]}), and is outside of the project: programs with an older MLflow may use it, and could not any"
            " more",
            where=where,
            remedy=f"Make {copied}, then run `mlflow db upgrade {where}`; or install an older MLflow.",
        )
    _migrate(path, revision, known[-1])


def _migrate(path: Path, revision: str, head: str) -> None:
    locks = StoreLocks()
    locks.acquire([path])
    try:
        if _revision_of(path)[1] != revision:
            # Another run has done it meanwhile.
            return
        copy = _copy_of(path, revision)
        logger.warning(
            "%s has the schema of an older MLflow (%s): copied to %s, and migrated to that of MLflow %s (%s)",
            path,
            revision,
            copy,
            mlflow.__version__,
            head,
        )
        try:
            upgrade.callback(f"{_PREFIX}{path}")
        except Exception as error:
            raise TrackingError(
                f"the database could not be migrated to MLflow {mlflow.__version__}: {error}",
                where=str(path),
                remedy=f"Bring back its copy, {copy}, or give another `tracking_uri`.",
            ) from error
    finally:
        locks.release()


def _copy_of(path: Path, revision: str) -> Path:
    """Copy a database, also one that others are writing to, to a name that is free."""
    copy = path.with_name(f"{path.name}.before-{revision}")
    number = 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}.before-{revision}-{number}")
    partial = copy.with_name(copy.name + ".partial")
    partial.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE)) as source,
        contextlib.closing(sqlite3.connect(partial)) as target,
    ):
        source.backup(target)
    partial.replace(copy)
    return copy


def _revision_of(path: Path) -> tuple[set[str], str | None]:
    """The tables of a SQLite file, and its Alembic revision."""
    try:
        # Not read-only: where a process was killed while it wrote, SQLite takes back what is half-written before it
        # reads, and may not do so in a connection that only reads.
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=_PATIENCE)
        ) as db:
            tables = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
            rows = (
                db.execute("select version_num from alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"the file is no SQLite database: {error}", where=str(path)) from error
    return tables, rows[0][0] if rows else None


def _revision_on_server(uri: str) -> tuple[set[str], str | None]:
    """The tables of a database on a server, and its Alembic revision."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            if "alembic_version" not in tables:
                return tables, None
            row = connection.execute(sqlalchemy.text("select version_num from alembic_version")).fetchone()
            return tables, row[0] if row else None
    finally:
        engine.dispose()


@cache
def _revisions() -> tuple[str, ...]:
    """The revisions of the installed MLflow's schema, the newest last; empty where it keeps them otherwise."""
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    after: dict[str, str | None] = {}
    for script in folder.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        revision = re.search(r"""^revision\b[^=]*=\s*["'](\w+)["']""", text, re.MULTILINE)
        down = re.search(r"""^down_revision\b[^=]*=\s*["'](\w+)["']""", text, re.MULTILINE)
        if revision is not None:
            after[revision.group(1)] = down.group(1) if down is not None else None
    heads = set(after) - set(after.values())
    return (*sorted(set(after) - heads), *heads) if len(heads) == 1 else ()
