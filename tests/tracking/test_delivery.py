"""Nothing that was to be recorded is struck before MLflow has it: it waits by name, or is set aside with the reason."""

from __future__ import annotations

import json

import mlflow
import pytest

from weathermill.tracking import operations, runs
from weathermill.tracking.delivery import synchronise
from weathermill.tracking.pending import FOLDER, REFUSED
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker


@pytest.fixture
def settings(server):
    return TrackingSettings(tracking_uri=server.uri, artifact_location=None)


def begin(settings, project, **arguments):
    run = runs.start(runs.connect(settings, project), name="train", tags=runs.process_tags(), **arguments)
    return MLflowTracker(run.info.run_id, project=project, settings=settings)


def tell_all(tracker, project):
    (project / "card.html").write_text("card")
    tracker.log_metrics({"loss": 1.0}, 3)
    tracker.log_params({"seed": 7})
    tracker.set_tags({"note": "kept"})
    tracker.log_artifact(project / "card.html", "evaluate")
    tracker.log_dict({"a": 1}, "a.json")
    tracker.log_input(name="tensors", source="/data/tensors", digest="ab", context="made")
    tracker.end("FINISHED")


def require_all(run_id):
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.params == {"seed": "7"}
    assert run.data.tags["note"] == "kept"
    history = mlflow.MlflowClient().get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(3, 1.0)]
    names = {
        e.path for folder in (None, "evaluate") for e in mlflow.MlflowClient().list_artifacts(run_id, folder)
    }
    assert names == {"a.json", "evaluate", "evaluate/card.html"}
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["tensors"]


SAID = {
    "wants a password": "wants a name and password",
    "forbids": "forbids it (403)",
    "knows no such page": "no MLflow server",
    "is in conflict": "something else is at work on it (409)",
    "is asked too often": "asked too often (429)",
    "fails": "an error of its own (500)",
    "is overloaded": "an error of its own (503)",
    "shows a login page": "no MLflow server",
    "answers with nothing": "no MLflow server",
}


@pytest.mark.parametrize("answer", SAID)
def test_what_a_server_does_not_take_waits_by_name_until_it_does(server, settings, tmp_path, answer, caplog):
    tracker = begin(settings, tmp_path)
    server.answer = "is overloaded"
    tell_all(tracker, tmp_path)
    server.answer = answer
    delivery = synchronise(settings, tmp_path)
    assert not delivery.all_told and delivery.complete == []
    (left,) = delivery.left
    assert len(left.waiting) == 7 and left.refused == []
    line, remedy = left.lines()
    assert tracker.run_id in line and "metrics (1)" in line and "artefact (2)" in line
    assert SAID[answer] in line and remedy.startswith("  -> ")
    assert "does not answer" not in line + delivery.fault
    server.answer = None
    assert synchronise(settings, tmp_path).complete == [tracker.run_id]
    require_all(tracker.run_id)
    assert not (tmp_path / FOLDER / tracker.run_id).exists()


@pytest.mark.parametrize(
    "answer", ["wants a password", "forbids", "shows a login page", "answers with nothing"]
)
def test_a_run_begun_without_the_server_is_not_struck_by_one_that_refuses(server, settings, tmp_path, answer):
    tracker = MLflowTracker.begin_locally(settings, tmp_path, name="all", tags={})
    server.answer = answer
    tell_all(tracker, tmp_path)
    delivery = synchronise(settings, tmp_path)
    assert [len(left.waiting) for left in delivery.left] == [8] and not delivery.all_told
    server.answer = None
    (run_id,) = synchronise(settings, tmp_path).complete
    require_all(run_id)


def test_an_upload_that_a_login_page_answers_is_not_taken_for_delivered(server, settings, tmp_path):
    """The page's 200 is all that an upload asks for."""
    tracker = begin(settings, tmp_path)
    server.answer, server.concerned = "shows a login page", lambda method, path: method == "PUT"
    tell_all(tracker, tmp_path)
    assert [op["op"] for op in tracker.pending] == ["artifact", "text"]
    # What does not need the artefact store is told all the same.
    assert mlflow.get_run(tracker.run_id).info.status == "FINISHED"
    (left,) = synchronise(settings, tmp_path).left
    assert "does not have it" in left.reason
    server.answer = None
    assert synchronise(settings, tmp_path).all_told
    require_all(tracker.run_id)


def test_what_is_never_taken_is_set_aside_by_name_and_blocks_nothing(server, settings, tmp_path, caplog):
    tracker = begin(settings, tmp_path)
    tracker.log_metrics({"good": 1.0, "bad name ???": 2.0, "better": 3.0}, 0)
    tracker.log_artifact(tmp_path / "missing.html")
    tracker.log_params({"first": 1, "bad ???": 2})
    tracker.end("FINISHED")
    run = mlflow.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics == {"good": 1.0, "better": 3.0}
    assert run.data.params == {"first": "1"}
    assert "missing.html: its file is gone" in caplog.text
    kept = tmp_path / FOLDER / tracker.run_id / REFUSED / "calls.jsonl"
    refused = {operations.in_words(op): op["reason"] for op in map(json.loads, kept.read_text().splitlines())}
    assert list(refused) == ["artefact missing.html", "parameters bad ???", "metrics bad name ???"]
    assert "Invalid value" in refused["metrics bad name ???"] or "bad name" in refused["metrics bad name ???"]
    delivery = synchronise(settings, tmp_path)
    assert not delivery.all_told
    lines = "\n".join(delivery.left[0].lines())
    assert "refused: run" in lines and "missing.html" in lines and "--retry-refused" in lines


def test_what_was_refused_is_told_once_its_cause_is_mended(server, settings, tmp_path):
    tracker = begin(settings, tmp_path)
    (tmp_path / "card.html").write_text("card")
    server.answer, server.concerned = "fails", lambda method, path: method == "PUT"
    tracker.log_artifact(tmp_path / "card.html")
    server.answer = None
    (waiting,) = tracker.pending
    tracker.pending.refuse(waiting, "too large")
    tracker.pending.keep([])
    tracker.pending.save()
    tracker.end("FINISHED")
    assert not synchronise(settings, tmp_path).all_told
    assert synchronise(settings, tmp_path, retry_refused=True).complete == [tracker.run_id]
    assert mlflow.artifacts.load_text(f"runs:/{tracker.run_id}/card.html") == "card"
    assert not (tmp_path / FOLDER / tracker.run_id).exists()


def test_what_a_deleted_run_was_to_be_told_waits_until_it_is_restored(server, settings, tmp_path, caplog):
    tracker = begin(settings, tmp_path)
    client = mlflow.MlflowClient()
    client.delete_run(tracker.run_id)
    for step in range(20):
        tracker.log_metrics({"loss": 1.0}, step)
        tracker.flush(insist=True)
    tracker.end("FINISHED")
    assert caplog.text.count("was deleted; what could not be recorded") == 1
    (left,) = synchronise(settings, tmp_path).left
    assert "was deleted" in left.reason and f"mlflow runs restore --run-id {tracker.run_id}" in left.remedy
    client.restore_run(tracker.run_id)
    assert synchronise(settings, tmp_path).all_told
    assert len(client.get_metric_history(tracker.run_id, "loss")) == 20


@pytest.mark.parametrize("known", [True, False])
def test_a_deleted_experiment_loses_nothing_and_is_told_with_the_remedy(server, settings, tmp_path, known):
    settings = settings.model_copy(update={"experiment": f"deleted {known}"})
    tracker = begin(settings, tmp_path)
    if not known:
        tracker = MLflowTracker.begin_locally(settings, tmp_path, name="all", tags={})
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(settings.experiment).experiment_id
    client.delete_experiment(experiment)
    tell_all(tracker, tmp_path)
    delivery = synchronise(settings, tmp_path)
    (left,) = delivery.left
    assert f"the experiment 'deleted {known}' was deleted" in left.reason
    assert f"mlflow experiments restore --experiment-id {experiment}" in left.remedy
    client.restore_experiment(experiment)
    (run_id,) = synchronise(settings, tmp_path).complete
    require_all(run_id)


def test_a_run_begun_locally_may_go_to_another_experiment_than_the_deleted_one(server, settings, tmp_path):
    settings = settings.model_copy(update={"experiment": "given up"})
    runs.connect(settings, tmp_path)
    client = mlflow.MlflowClient()
    client.delete_experiment(client.get_experiment_by_name("given up").experiment_id)
    tell_all(MLflowTracker.begin_locally(settings, tmp_path, name="all", tags={}), tmp_path)
    assert not synchronise(settings, tmp_path).all_told
    (run_id,) = synchronise(settings.model_copy(update={"experiment": "another"}), tmp_path).complete
    require_all(run_id)


def test_a_run_that_the_store_does_not_know_keeps_what_waits(server, settings, tmp_path):
    runs.connect(settings, tmp_path)
    tracker = MLflowTracker("0" * 32, project=tmp_path, settings=settings)
    tracker.set_tags({"a": "b"})
    tracker.pending.release()
    (left,) = synchronise(settings, tmp_path).left
    assert "does not know the run" in left.reason and len(left.waiting) == 1


def test_a_repeated_operation_after_a_lost_answer_doubles_nothing(server, settings, tmp_path):
    tracker = begin(settings, tmp_path)
    server.loses = lambda method, path: method in ("POST", "PUT")
    tell_all(tracker, tmp_path)
    for _ in range(8):
        synchronise(settings, tmp_path)
    server.loses = lambda method, path: False
    assert synchronise(settings, tmp_path).all_told
    require_all(tracker.run_id)


def test_a_run_whose_begin_lost_its_answer_is_made_once(server, settings, tmp_path):
    settings = settings.model_copy(update={"experiment": "begun once"})
    experiment = runs.connect(settings, tmp_path)
    tracker = MLflowTracker.begin_locally(settings, tmp_path, name="all", tags={})
    server.loses = lambda method, path: path.endswith("runs/create")
    tell_all(tracker, tmp_path)
    assert len(tracker.pending) == 8 and len(mlflow.search_runs([experiment])) == 1
    assert synchronise(settings, tmp_path).all_told
    assert len(mlflow.search_runs([experiment])) == 1


def test_what_another_process_is_at_work_on_is_named(server, settings, tmp_path):
    tracker = begin(settings, tmp_path)
    server.answer = "fails"
    tracker.set_tags({"a": "b"})
    server.answer = None
    (left,) = synchronise(settings, tmp_path).left
    assert left.reason == "a process is at work on it" and len(left.waiting) == 1
    tracker.end("FINISHED")
    assert synchronise(settings, tmp_path).all_told
