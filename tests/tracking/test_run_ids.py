"""Every command takes a run by its id, the beginning of one, its name, or as the newest."""

from __future__ import annotations

import mlflow
import pytest

from weathermill.errors import TrackingError
from weathermill.tracking.pending import FOLDER, note_synced
from weathermill.tracking.run_ids import find_run, open_store, short_id
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker

SETTINGS = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")


@pytest.fixture
def log_run(tmp_path, database):
    before = mlflow.get_tracking_uri()
    experiment = open_store(SETTINGS, tmp_path)
    client = mlflow.MlflowClient()

    def log(name, where=experiment, **metrics):
        log.time += 1000
        run = client.create_run(where, run_name=name, start_time=log.time).info.run_id
        for key, value in metrics.items():
            client.log_metric(run, key, value)
        return run

    log.time = 1_700_000_000_000
    yield log
    mlflow.set_tracking_uri(before)


def found(reference, **how):
    return find_run(reference, **how).info.run_id


def test_an_id_its_beginning_a_name_and_newest_all_lead_to_the_run(log_run):
    first, last = log_run("all sample"), log_run("train sample")
    for reference in (first, first.upper(), first[:8], f" {first[:12]} ", "all sample"):
        assert found(reference) == first
    assert found("newest") == last
    assert found("newest", suits=lambda run: run.info.run_name == "all sample") == first


def test_what_is_ambiguous_is_refused_with_the_candidates(log_run, monkeypatch):
    runs_of_name = [log_run("all sample"), log_run("all sample")]
    with pytest.raises(TrackingError, match="2 MLflow runs are called 'all sample'") as refused:
        find_run("all sample")
    assert all(run[:8] in refused.value.what for run in runs_of_name)
    assert "more of its beginning" in refused.value.remedy
    while not (alike := [run for run in runs_of_name if run[0] == runs_of_name[0][0]])[1:]:
        runs_of_name.append(log_run("more"))
    with pytest.raises(TrackingError, match=f"MLflow runs are called '{alike[0][0]}'"):
        find_run(alike[0][0])


@pytest.mark.parametrize("reference", ["all sampel", "0" * 32, "local-77", "nothing"])
def test_what_is_unknown_is_refused_with_those_that_there_are(log_run, reference):
    run = log_run("all sample")
    with pytest.raises(TrackingError, match=f"no MLflow run '{reference}'") as refused:
        find_run(reference)
    assert f"{run[:8]}  2023-11-14 22:13 UTC  RUNNING   all sample" in refused.value.what
    with pytest.raises(TrackingError, match="no run is given"):
        find_run("  ")


def test_a_deleted_run_is_told_as_such_and_found_by_no_other_name(log_run):
    run = log_run("all sample")
    mlflow.MlflowClient().delete_run(run)
    with pytest.raises(TrackingError, match="was deleted") as refused:
        find_run(run)
    assert f"mlflow runs restore --run-id {run}" in refused.value.remedy
    for reference in ("all sample", run[:8], "newest"):
        with pytest.raises(TrackingError, match="no MLflow run"):
            find_run(reference)


def test_runs_of_the_project_go_before_those_of_others_on_the_server(log_run):
    mine = log_run("all sample")
    elsewhere = mlflow.MlflowClient().create_experiment("a stranger's")
    theirs = log_run("all sample", elsewhere), log_run("theirs alone", elsewhere)
    assert found("all sample") == mine and found("newest") == mine
    assert found("theirs alone") == theirs[1]


def test_the_newest_is_never_a_run_of_another_experiment(log_run):
    log_run("all sample", mlflow.MlflowClient().create_experiment("a stranger's"))
    with pytest.raises(TrackingError, match="no MLflow run 'newest'"):
        find_run("newest")


def test_more_runs_than_a_page_are_searched(log_run, monkeypatch):
    first = log_run("the first")
    for _ in range(4):
        log_run("later")
    monkeypatch.setattr("weathermill.tracking.run_ids._PAGE", 2)
    assert found("the first") == first


def test_an_id_from_before_mlflow_knew_the_run_leads_to_it(log_run, tmp_path):
    run = log_run("all sample")
    note_synced(tmp_path, "local-abcdef0123", run)
    assert found("local-abcdef0123") == found("local-abc") == run
    note_synced(tmp_path, "local-abd", run)
    with pytest.raises(TrackingError, match="2 runs are called 'local-ab': local-abcdef0123, local-abd"):
        find_run("local-ab")
    tracker = MLflowTracker.begin_locally(SETTINGS, tmp_path, name="all sample", tags={})
    with pytest.raises(TrackingError, match=r"MLflow does not know the run local-.* yet") as waits:
        find_run(short_id(tracker.run_id))
    assert "weathermill sync" in waits.value.remedy and (tmp_path / FOLDER / tracker.run_id).exists()


def test_a_store_that_cannot_be_asked_is_told_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    settings = SETTINGS.model_copy(update={"tracking_uri": "http://127.0.0.1:9", "artifact_location": None})
    for ask in (
        lambda: open_store(settings, tmp_path),
        lambda: find_run("newest"),
        lambda: find_run("a" * 32),
    ):
        with pytest.raises(
            TrackingError, match=r"cannot be asked: MLflow does not answer.*Connection refused"
        ):
            ask()
    mlflow.set_tracking_uri(before)
