"""The life of MLflow runs, against a real SQLite store."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import mlflow
import psutil
import pytest

from weathermill.errors import ParameterError
from weathermill.tracking import lineage, operations, runs
from weathermill.tracking.settings import TrackingSettings, tracking_settings
from weathermill.tracking.tracker import MLflowTracker


@pytest.fixture
def experiment(tmp_path, database):
    before = mlflow.get_tracking_uri()
    yield runs.connect(
        TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts"), tmp_path
    )
    mlflow.set_tracking_uri(before)


def test_paths_are_resolved_against_the_project(tmp_path, experiment):
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path / 'runs.db'}"
    location = mlflow.get_experiment(experiment).artifact_location
    assert location == (tmp_path / "artifacts").as_uri()


def test_unknown_settings_are_told():
    with pytest.raises(ParameterError, match="tracking_url"):
        tracking_settings({"tracking_url": "http://localhost"})


def test_flatten_gives_dotted_names():
    assert dict(runs.flatten({"a": {"b": {"c": 1}, "d": [1]}, "e": {}})) == {"a.b.c": 1, "a.d": [1], "e": {}}


def test_metrics_are_batched_and_arrive_once(experiment):
    run = runs.start(experiment, name="train", tags=runs.process_tags())
    tracker = MLflowTracker(run.info.run_id)
    for step in range(1203):
        tracker.log_metrics({"train/loss": 1.0 / (step + 1), "bad": float("nan")}, step)
    tracker.flush()
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [m.step for m in history] == list(range(1203))
    assert "bad" not in mlflow.get_run(run.info.run_id).data.metrics


def test_a_store_that_does_not_answer_loses_nothing(experiment, monkeypatch):
    run = runs.start(experiment, name="train", tags={})
    tracker = MLflowTracker(run.info.run_id)

    def down(*_, **__):
        raise ConnectionError("server down")

    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, "log_batch", down)
        for step in range(700):
            tracker.log_metrics({"loss": float(step)}, step)
        tracker.flush()
    tracker.flush(insist=True)
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")) == 700


def test_runs_of_dead_processes_are_closed(experiment):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    client = mlflow.MlflowClient()
    host = socket.gethostname()
    dead = client.create_run(experiment, tags={"process.host": host, "process.id": child.stdout.strip()})
    elsewhere = client.create_run(
        experiment, tags={"process.host": "elsewhere", "process.id": child.stdout.strip()}
    )
    alive = client.create_run(experiment, tags=runs.process_tags())
    assert runs.close_abandoned(experiment) == [dead.info.run_id]
    status = {
        run.info.run_id: client.get_run(run.info.run_id).info.status for run in (dead, elsewhere, alive)
    }
    assert status == {
        dead.info.run_id: "KILLED",
        elsewhere.info.run_id: "RUNNING",
        alive.info.run_id: "RUNNING",
    }


def test_a_process_that_has_ended_but_is_still_listed_counts_as_gone(experiment):
    """In a container without an init process nobody takes note of its end."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    listed = psutil.Process(child.pid)
    tags = {**runs.process_tags(), "process.id": str(child.pid), "process.started": str(listed.create_time())}
    run = mlflow.MlflowClient().create_run(experiment, tags=tags)
    assert runs.close_abandoned(experiment) == []
    child.stdin.close()
    while listed.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert runs.close_abandoned(experiment) == [run.info.run_id]
    child.wait()


def test_a_process_that_may_not_be_looked_at_counts_as_at_work(experiment, monkeypatch):
    mlflow.MlflowClient().create_run(experiment, tags=runs.process_tags())

    def denied(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "create_time", denied)
    assert runs.close_abandoned(experiment) == []


def test_runs_of_dead_processes_are_closed_by_a_run_that_began_without_the_server(experiment, tmp_path):
    client = mlflow.MlflowClient()
    tags = {**runs.process_tags(), "process.started": "1.0"}
    dead = client.create_run(experiment, tags=tags).info.run_id
    settings = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")
    tracker = MLflowTracker.begin_locally(settings, tmp_path, name="all", tags=runs.process_tags())
    tracker.make_current()
    tracker.flush(insist=True)
    assert client.get_run(dead).info.status == "KILLED"
    assert client.get_run(tracker.run_id).info.status == "RUNNING"
    tracker.end("FINISHED")
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_run_begun_without_the_server_goes_on_where_dead_ones_cannot_be_closed(
    experiment, tmp_path, monkeypatch
):
    def fails(_):
        raise ConnectionError

    monkeypatch.setattr(runs, "close_abandoned", fails)
    settings = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")
    tracker = MLflowTracker.begin_locally(settings, tmp_path, name="all", tags=runs.process_tags())
    tracker.make_current()
    tracker.end("FINISHED")
    assert not tracker.pending and mlflow.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_run_is_continued_or_begun_anew(experiment):
    first = runs.start(experiment, name="train", tags={})
    mlflow.MlflowClient().set_terminated(first.info.run_id, "KILLED")
    again = runs.start(experiment, name="train", tags={}, continue_run=first.info.run_id)
    assert again.info.run_id == first.info.run_id
    assert mlflow.get_run(first.info.run_id).info.status == "RUNNING"
    other = runs.start(experiment, name="train", tags={}, continue_run="0" * 32)
    assert other.info.run_id != first.info.run_id


@pytest.mark.parametrize(
    ("status", "then", "now", "continued"),
    [
        ("RUNNING", "a", "a", True),
        ("KILLED", "a", "a", True),
        ("FAILED", "a", "a", True),
        ("FINISHED", "a", "a", False),
        ("KILLED", "a", "b", False),
        ("KILLED", None, "b", True),
    ],
)
def test_only_an_unfinished_run_of_the_same_training_is_gone_on_with(
    experiment, status, then, now, continued
):
    first = runs.start(experiment, name="train", tags={runs.TRAINING: then} if then else {})
    client = mlflow.MlflowClient()
    client.update_run(first.info.run_id, status=status)
    again = runs.start(experiment, name="train", tags={runs.TRAINING: now}, continue_run=first.info.run_id)
    assert (again.info.run_id == first.info.run_id) == continued
    told = client.get_run(again.info.run_id)
    assert told.info.status == "RUNNING" and told.data.tags[runs.TRAINING] == now
    if not continued:
        assert told.data.tags[runs.RESUMED_FROM] == first.info.run_id
        assert client.get_run(first.info.run_id).info.status == status


def test_a_deleted_run_is_not_gone_on_with_and_the_new_one_says_what_it_follows(experiment, caplog):
    first = runs.start(experiment, name="train", tags={runs.TRAINING: "a"}).info.run_id
    client = mlflow.MlflowClient()
    client.update_run(first, status="KILLED")
    client.delete_run(first)
    again = runs.start(experiment, name="train", tags={runs.TRAINING: "a"}, continue_run=first).info.run_id
    assert again != first and client.get_run(again).data.tags[runs.RESUMED_FROM] == first
    assert "was deleted: what goes on from its checkpoint is a run of its own" in caplog.text
    MLflowTracker(again).log_metrics({"loss": 1.0}, 1)
    assert client.get_run(first).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize(("status", "continued"), [("KILLED", True), ("FINISHED", False), ("deleted", False)])
def test_a_training_resumed_without_the_server_goes_on_by_the_same_rule(
    experiment, tmp_path, status, continued
):
    settings = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")
    client = mlflow.MlflowClient()
    first = runs.start(experiment, name="train", tags={runs.TRAINING: "a"}).info.run_id
    client.update_run(first, status="KILLED" if status == "deleted" else status)
    if status == "deleted":
        client.delete_run(first)
    tracker = MLflowTracker.begin_locally(
        settings, tmp_path, name="train", tags={runs.TRAINING: "a"}, continue_run=first
    )
    tracker.log_metrics({"loss": 1.0}, 7)
    tracker.end("FINISHED")
    told = client.get_run(tracker.run_id)
    assert (tracker.run_id == first) == continued
    assert told.info.status == "FINISHED" and told.data.metrics == {"loss": 1.0}
    assert told.data.tags.get(runs.RESUMED_FROM) == (None if continued else first)


def test_what_waits_of_the_run_before_counts_when_a_training_is_resumed_without_the_server(
    experiment, tmp_path, monkeypatch
):
    settings = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")
    first = runs.start(experiment, name="train", tags={}).info.run_id
    tracker = MLflowTracker(first, project=tmp_path, settings=settings)
    monkeypatch.setattr(operations, "perform", lambda *_: (_ for _ in ()).throw(ConnectionError("down")))
    tracker.log_metrics({"loss": 1.0}, 12)
    tracker.end("KILLED")
    resumed = MLflowTracker.begin_locally(settings, tmp_path, name="train", tags={}, continue_run=first)
    assert resumed.last_step("loss") == 12


def test_parameters_that_a_continued_run_has_stay(experiment):
    run = runs.start(experiment, name="train", tags={})
    tracker = MLflowTracker(run.info.run_id)
    tracker.log_params({"train.epochs": 3})
    tracker.log_params({"train.epochs": 5, "train.resume": True})
    assert mlflow.get_run(run.info.run_id).data.params == {"train.epochs": "3", "train.resume": "True"}


def test_lineage_reads_nothing(experiment, tmp_path):
    run = runs.start(experiment, name="prepare", tags={})
    lineage.log_input(
        run.info.run_id, name="tensors", source=str(tmp_path / "gone"), digest="ab" * 32, context="made"
    )
    (entry,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert entry.dataset.name == "tensors"
    assert entry.dataset.digest == ("ab" * 32)[:36]
    assert entry.tags[0].value == "made"
