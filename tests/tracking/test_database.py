"""The SQLite store is whole whenever it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import mlflow

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
