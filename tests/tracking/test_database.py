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

import mlflow
import pytest

from weathermill.tracking import database
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
    database.require_unlocked(uri)
    run = mlflow.MlflowClient(uri).create_run("0")
    tracker = MLflowTracker(run.info.run_id, uri, project=tmp_path)
    monkeypatch.setattr(database, "_PATIENCE", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.require_unlocked(uri)
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
    database.require_unlocked(uri)
