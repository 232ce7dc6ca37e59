"""The SQLite store is whole whenever it is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from alembic import command
from alembic.config import Config

from weathermill.errors import TrackingError
from weathermill.tracking import database as databases
from weathermill.tracking import runs
from weathermill.tracking.answers import explain
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker

MAKE = """
import sys
from pathlib import Path
from weathermill.tracking import runs
from weathermill.tracking.settings import TrackingSettings
print("go", flush=True)
print(runs.connect(TrackingSettings(), Path(sys.argv[1])))
"""


def make(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "go\n"
    return process


def test_two_processes_make_one_database_and_one_experiment(tmp_path):
    processes = [make(tmp_path), make(tmp_path)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db"]


def test_a_kill_while_it_is_made_is_made_good_by_the_next(tmp_path):
    process = make(tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("mlflow.db.partial*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    again = make(tmp_path)
    assert again.communicate(timeout=120) and again.returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_experiment_by_name("weathermill") is not None


def test_a_lock_is_noticed_soon_and_what_was_to_be_told_waits(made_database, monkeypatch, tmp_path):
    """MLflow itself would wait for 20 seconds, call after call, and the training with it."""
    path = tmp_path / "runs.db"
    shutil.copy(made_database, path)
    uri = f"sqlite:///{path}"
    databases.require_unlocked(uri)
    run = mlflow.MlflowClient(uri).create_run("0")
    tracker = MLflowTracker(run.info.run_id, uri, project=tmp_path)
    monkeypatch.setattr(databases, "_PATIENCE", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            databases.require_unlocked(uri)
        began = time.monotonic()
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.flush()
        tracker.set_tags({"a": "b"})
        assert time.monotonic() - began < 2
        other.execute("rollback")
    tracker.end("FINISHED")
    told = mlflow.MlflowClient(uri).get_run(run.info.run_id)
    assert told.data.metrics == {"loss": 1.0} and told.data.tags["a"] == "b"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/runs.db"])
def test_what_is_no_file_is_not_looked_at(uri):
    databases.require_unlocked(uri)


def test_a_database_that_a_killed_process_was_writing_to_is_recovered(database, tmp_path):
    """A transaction that was cut short has to be taken back, for which one must be allowed to write."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("create table filling (bytes blob)")
        connection.executemany("insert into filling values (?)", [(bytes(2000),)] * 200)
        connection.commit()
    program = (
        "import os, signal, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('pragma cache_size = 1')\n"
        "db.execute('begin')\n"
        "db.execute('update filling set bytes = randomblob(2000)')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(database)], check=False)
    assert (tmp_path / "runs.db-journal").stat().st_size > 0
    runs.connect(TrackingSettings(tracking_uri=f"sqlite:///{database}"), tmp_path)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert set(connection.execute("select bytes from filling")) == {(bytes(2000),)}


def revision(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("select version_num from alembic_version").fetchone()[0]


@pytest.fixture
def aged(made_database, tmp_path):
    """A database of an older MLflow, with a run: the newest migration is undone."""
    path = shutil.copy(made_database, tmp_path / "runs.db")
    run = mlflow.MlflowClient(f"sqlite:///{path}").create_run("0").info.run_id
    config = Config()
    config.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    before = revision(path)
    # Some of MLflow's migrations cannot be undone; then only the mark is set back, and nothing is to do again.
    try:
        command.downgrade(config, "-1")
    except Exception:
        pytest.skip("the installed MLflow cannot undo its newest migration")
    assert revision(path) != before
    return path, run


def test_an_older_database_of_the_project_is_copied_before_it_is_migrated(aged, tmp_path, caplog):
    path, run = aged
    old, uri = revision(path), f"sqlite:///{path}"
    databases.require_schema(uri, tmp_path)
    copy = tmp_path / f"runs.db.before-{old}"
    assert revision(copy) == old and revision(path) == databases._revisions()[-1]
    assert f"copied to {copy}" in caplog.text
    assert mlflow.MlflowClient(uri).get_run(run).info.run_id == run
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("select run_uuid from runs").fetchall() == [(run,)]
    databases.require_schema(uri, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.before-*")) == [copy.name]


def test_an_older_database_that_others_may_use_is_left_to_them(aged, tmp_path):
    path, _ = aged
    before, project = path.read_bytes(), tmp_path / "project"
    project.mkdir()
    with pytest.raises(TrackingError, match="outside of the project") as refused:
        databases.require_schema(f"sqlite:///{path}", project)
    assert (
        f"`mlflow db upgrade sqlite:///{path}`" in refused.value.remedy and ".backup" in refused.value.remedy
    )
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.glob("*")) == [
        "project",
        "runs.db",
    ]


def test_a_newer_database_is_refused_by_name(made_database, tmp_path):
    path = shutil.copy(made_database, tmp_path / "runs.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("update alembic_version set version_num = 'fedcba987654'")
        connection.commit()
    with pytest.raises(TrackingError, match=r"newer schema \(fedcba987654\) than the installed MLflow"):
        databases.require_schema(f"sqlite:///{path}", tmp_path)
    assert revision(path) == "fedcba987654"


def test_a_file_that_is_not_mlflows_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "stations.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("create table stations (name text)")
        connection.commit()
    before = path.read_bytes()
    settings = TrackingSettings(tracking_uri=f"sqlite:///{path}")
    with pytest.raises(TrackingError, match="tables that are not MLflow's"):
        runs.connect(settings, tmp_path)
    assert path.read_bytes() == before
    path.write_bytes(b"CDF\x01" * 300)
    with pytest.raises(TrackingError, match="no SQLite database"):
        runs.connect(settings, tmp_path)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("database is locked", "the database is locked by another process"),
        ("attempt to write a readonly database", "the database is read-only"),
        ("database or disk is full", "the disk of the database is full"),
        ("unable to open database file", "the database cannot be opened"),
        ("database disk image is malformed", "the database is damaged"),
    ],
)
def test_what_sqlite_says_is_told_as_such_and_not_as_silence(said, reason):
    wrapped = mlflow.exceptions.MlflowException(f"(sqlite3.OperationalError) {said} [SQL: ...]")
    for error in (sqlite3.OperationalError(said), wrapped):
        answer = explain(error)
        assert answer.reason == reason and answer.remedy and not answer.final
