"""MLflow's variables of the environment go before mlflow.yml, and nothing of ours is left in them."""

from __future__ import annotations

import os

import mlflow
import pytest

from weathermill.errors import TrackingError
from weathermill.hooks import MLflowHook
from weathermill.tracking import runs
from weathermill.tracking.answers import UnavailableError
from weathermill.tracking.environment import with_environment
from weathermill.tracking.settings import TrackingSettings

SETTINGS = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")


@pytest.fixture
def experiment(tmp_path, database):
    before = mlflow.get_tracking_uri()
    yield runs.connect(SETTINGS, tmp_path)
    mlflow.set_tracking_uri(before)


def test_each_variable_replaces_its_setting_and_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    given = {
        "MLFLOW_TRACKING_URI": "sqlite:///mine.db",
        "MLFLOW_EXPERIMENT_NAME": "mine",
        "MLFLOW_RUN_ID": "a" * 32,
    }
    with caplog.at_level("INFO"):
        found = with_environment(SETTINGS, given)
    assert found.tracking_uri == f"sqlite:///{tmp_path / 'mine.db'}"
    assert (found.experiment, found.run_id, found.artifact_location) == ("mine", "a" * 32, "artifacts")
    assert "MLFLOW_EXPERIMENT_NAME=mine" in caplog.text
    both = with_environment(SETTINGS, {"MLFLOW_EXPERIMENT_NAME": "mine", "MLFLOW_EXPERIMENT_ID": "7"})
    assert (both.experiment_id, both.experiment) == ("7", "weathermill")
    assert with_environment(SETTINGS, {"MLFLOW_TRACKING_URI": " "}) == SETTINGS


def test_a_server_of_the_environment_is_given_no_folder_of_this_machine():
    found = with_environment(SETTINGS, {"MLFLOW_TRACKING_URI": "http://user:secret@host:5000"})
    assert found.artifact_location is None
    bucket = SETTINGS.model_copy(update={"artifact_location": "s3://bucket/runs"})
    assert (
        with_environment(bucket, {"MLFLOW_TRACKING_URI": "http://host"}).artifact_location
        == "s3://bucket/runs"
    )


def test_credentials_of_the_environment_are_not_logged(caplog):
    with caplog.at_level("INFO"):
        with_environment(SETTINGS, {"MLFLOW_TRACKING_URI": "http://user:secret@elsewhere:5000"})
    assert "elsewhere" in caplog.text and "secret" not in caplog.text


def test_connecting_leaves_the_environment_as_it_was(experiment, tmp_path, monkeypatch):
    """Or the next session of the process, of another case, would take it for the user's."""
    assert "MLFLOW_TRACKING_URI" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine")
    runs.connect(SETTINGS.model_copy(update={"experiment": "other"}), tmp_path)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mine"


def test_an_experiment_is_given_by_its_id(experiment, tmp_path):
    client = mlflow.MlflowClient()
    mine = client.create_experiment("mine")
    assert runs.connect(SETTINGS.model_copy(update={"experiment_id": mine}), tmp_path) == mine
    with pytest.raises(TrackingError, match="no experiment with the id '99'"):
        runs.connect(SETTINGS.model_copy(update={"experiment_id": "99"}), tmp_path)
    client.delete_experiment(mine)
    with pytest.raises(UnavailableError, match="'mine' was deleted"):
        runs.connect(SETTINGS.model_copy(update={"experiment_id": mine}), tmp_path)


def test_a_run_of_the_environment_is_recorded_to(experiment, tmp_path):
    client = mlflow.MlflowClient()
    made = client.create_run(experiment, tags={"mine": "yes"}).info.run_id
    hook = hook_of(tmp_path, run_id=made)
    assert hook._begin("train", {"env": "base"}, None).run_id == made
    told = client.get_run(made)
    assert told.data.tags["env"] == "base" and told.data.tags["mine"] == "yes"
    for run_id, fault in ((made, "was deleted"), ("0" * 32, "does not exist")):
        if run_id == made:
            client.delete_run(made)
        with pytest.raises(TrackingError, match=fault) as refused:
            hook_of(tmp_path, run_id=run_id)._begin("train", {}, None)
        assert "Unset MLFLOW_RUN_ID" in str(refused.value)


@pytest.mark.parametrize(
    ("known", "status", "fault"),
    [
        ("a", "FINISHED", "holds another training"),
        ("a", "KILLED", "holds another training"),
        ("b", "FINISHED", "holds this training, which is complete"),
        ("b", "KILLED", ""),
        (None, "FINISHED", ""),
    ],
)
def test_no_second_training_is_recorded_to_a_run_of_the_environment(
    experiment, tmp_path, known, status, fault
):
    """Its metrics would go on from those of the first, under the first one's parameters."""
    client = mlflow.MlflowClient()
    made = client.create_run(experiment, tags={runs.TRAINING: known} if known else {}).info.run_id
    client.set_terminated(made, status)
    hook, tags = hook_of(tmp_path, run_id=made), {runs.TRAINING: "b"}
    if not fault:
        assert hook._begin("train", tags, None).run_id == made
        return
    with pytest.raises(TrackingError, match=fault):
        hook._begin("train", tags, None)
    assert client.get_run(made).info.status == status
    # Stages other than a training add to it.
    assert hook._begin("evaluate", {}, None).run_id == made


def hook_of(project, **changes):
    hook = MLflowHook()
    hook._project, hook._settings = project, SETTINGS.model_copy(update=changes)
    return hook


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("http://", "names no host"),
        ("http://:5000", "names no host"),
        ("http://host:port", "Port could not be cast"),
        ("host:5000", "lacks the scheme"),
        ("http//host:5000", "lacks the scheme"),
        ("htp://host:5000", "knows no htp://"),
        ("sqlite://runs.db", "three slashes"),
    ],
)
def test_a_malformed_uri_is_refused_before_the_run(tmp_path, uri, fault):
    hook = hook_of(tmp_path, tracking_uri=uri)
    with pytest.raises(TrackingError, match=fault) as refused:
        hook._begin("train", {}, None)
    assert "does not answer" not in str(refused.value) and "\n  -> Write http://" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_down_is_no_reason_to_refuse_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    hook = hook_of(tmp_path, tracking_uri="http://127.0.0.1:9")
    tracker = hook._begin("train", {}, "c" * 32)
    mlflow.set_tracking_uri(before)
    assert "MLflow does not answer: http://127.0.0.1:9: [Errno 111] Connection refused" in caplog.text
    (begin,) = tracker.pending
    assert begin["op"] == "begin" and begin["continue_run"] == "c" * 32
