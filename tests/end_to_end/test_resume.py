"""A killed training goes on where it was, in the same MLflow run."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

EPOCHS = "train.epochs=40,train.checkpoint_every_steps=5"


@pytest.fixture
def prepared(project):
    project.run("prepare")
    return project


def start_training(project, parameters):
    kedro = str(Path(sys.executable).with_name("kedro"))
    environment = {**os.environ, "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [kedro, "run", "--pipelines=train", "--params", parameters],
        cwd=project.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(project, process, timeout=120):
    folder = project.file("06_models", "sample", "checkpoints")
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.suffix != ".partial" for path in folder.glob("??????-step-*")):
            return
        time.sleep(0.05)
    raise AssertionError(
        f"no checkpoint in {folder}: {process.stderr.read() if process.poll() is not None else ''}"
    )


def training_runs(project):
    runs = project.experiment_runs()
    return runs[runs["tags.pipelines"] == "train"].to_dict("records")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_training_goes_on_in_the_same_run(prepared, number):
    process = start_training(prepared, EPOCHS)
    wait_for_checkpoint(prepared, process)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    (run,) = training_runs(prepared)
    assert run["status"] == ("RUNNING" if number == signal.SIGKILL else "KILLED")
    assert not prepared.file("06_models", "sample", "model").exists()

    words = ["kedro", "run", "--pipelines=train", f"--params={EPOCHS},train.resume=true"]
    if number != signal.SIGKILL:
        # What the command says when it ends is what goes on.
        assert "in stage train" in told
        assert shlex.split(told.rstrip().splitlines()[-1]) == words
    result = prepared.command(*words[1:])
    assert result.returncode == 0, result.stderr
    (resumed,) = training_runs(prepared)
    assert resumed["run_id"] == run["run_id"]
    assert resumed["status"] == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run["run_id"], "validation/loss")
    steps = [metric.step for metric in history]
    assert len(steps) == len(set(steps)) == 40
