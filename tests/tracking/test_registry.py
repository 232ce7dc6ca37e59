"""One registered model for each case, whose alias only a run that ended well moves, once and never backwards."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest

from weathermill.datasets import ForecasterDataset
from weathermill.errors import ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tracking import operations, registry, runs
from weathermill.tracking.delivery import synchronise
from weathermill.tracking.settings import TrackingSettings, tracking_settings
from weathermill.tracking.tracker import MLflowTracker

NAME = "weathermill-case"
SETTINGS = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")


@pytest.fixture
def store(tmp_path, database, monkeypatch):
    """A store, and a model whose logging is cheap: what is logged is not looked at here."""
    before = mlflow.get_tracking_uri()
    channels = ChannelTable([Channel("2m_temperature", "2m_temperature", None, "prognostic", "K")])
    latitude, longitude = np.linspace(67.5, -67.5, 4), np.arange(8) * 45.0
    mean, std = np.array([288.0]), np.array([20.0])
    Forecaster(
        ModelConfig(base_channels=4, depth=1, norm="none"), channels, latitude, longitude, mean, std, std
    ).save(tmp_path / "model")
    monkeypatch.setattr(ForecasterDataset, "input_example", lambda self: None)
    yield runs.connect(SETTINGS, tmp_path)
    mlflow.set_tracking_uri(before)


def train(experiment, project, status):
    run = runs.start(experiment, name="train", tags={})
    tracker = MLflowTracker(run.info.run_id, project=project, settings=SETTINGS)
    tracker.log_model(project / "model", registered_model_name=NAME, alias="newest")
    tracker.end(status)
    return tracker.run_id


def aliased():
    return mlflow.MlflowClient().get_model_version_by_alias(NAME, "newest").run_id


def versions():
    found = mlflow.MlflowClient().search_model_versions(f"name = '{NAME}'")
    return [v.run_id for v in sorted(found, key=lambda v: int(v.version))]


def test_only_a_run_that_ended_well_moves_the_alias(store, tmp_path):
    good = train(store, tmp_path, "FINISHED")
    assert aliased() == good
    bad = [train(store, tmp_path, "FAILED"), train(store, tmp_path, "KILLED")]
    # Their networks are there to be looked at, but nobody is served by them.
    assert versions() == [good, *bad] and aliased() == good
    assert mlflow.get_run(good).info.status == "FINISHED"


def test_what_is_told_later_moves_the_alias_by_the_same_rule_and_never_backwards(
    store, tmp_path, monkeypatch
):
    def down(*_):
        raise ConnectionError("server down")

    with monkeypatch.context() as patch:
        patch.setattr(operations, "perform", down)
        first = train(store, tmp_path, "FINISHED")
        failed = train(store, tmp_path, "FAILED")
    delivery = synchronise(SETTINGS, tmp_path)
    assert delivery.all_told and set(delivery.complete) == {first, failed}
    assert aliased() == first and sorted(versions()) == sorted([first, failed])
    with monkeypatch.context() as patch:
        patch.setattr(operations, "perform", down)
        second = train(store, tmp_path, "FINISHED")
    third = train(store, tmp_path, "FINISHED")
    assert aliased() == third
    assert synchronise(SETTINGS, tmp_path).complete == [second]
    assert aliased() == third


@pytest.mark.parametrize("op", ["model", "register", "alias"])
def test_a_model_is_logged_and_registered_once_although_the_answer_was_lost(store, tmp_path, monkeypatch, op):
    perform = operations.perform
    lost = []

    def forgetful(client, run_id, operation):
        perform(client, run_id, operation)
        if operation["op"] == op and not lost:
            lost.append(op)
            raise ConnectionError("the answer was lost")

    monkeypatch.setattr(operations, "perform", forgetful)
    run_id = train(store, tmp_path, "FINISHED")
    assert synchronise(SETTINGS, tmp_path).all_told and lost == [op]
    assert versions() == [run_id] and aliased() == run_id
    run = mlflow.get_run(run_id)
    assert len(run.outputs.model_outputs) == 1 and run.info.status == "FINISHED"


def test_a_registry_that_does_not_answer_holds_up_nothing_but_the_registration(store, tmp_path, monkeypatch):
    def down(*_, **__):
        raise ConnectionError("registry down")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow, "register_model", down)
        run_id = train(store, tmp_path, "FINISHED")
        run = mlflow.get_run(run_id)
        assert run.info.status == "FINISHED" and len(run.outputs.model_outputs) == 1
        (left,) = synchronise(SETTINGS, tmp_path).left
        assert [op["op"] for op in left.waiting] == ["register", "alias"] and "registry down" in left.reason
    ended = mlflow.get_run(run_id).info.end_time
    assert synchronise(SETTINGS, tmp_path).all_told and aliased() == run_id
    assert mlflow.get_run(run_id).info.end_time == ended


def test_a_model_told_late_leaves_the_end_of_its_run_as_it_was(store, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(operations.model, "log_model", full)
        run_id = train(store, tmp_path, "FINISHED")
    ended = mlflow.get_run(run_id).info.end_time
    assert synchronise(SETTINGS, tmp_path).all_told
    info = mlflow.get_run(run_id).info
    assert (info.status, info.end_time) == ("FINISHED", ended) and aliased() == run_id


def test_a_version_that_says_nothing_of_its_training_gives_way_to_a_later_one(store, tmp_path):
    """As those that were registered before the tag was written."""
    old = train(store, tmp_path, "FINISHED")
    client = mlflow.MlflowClient()
    client.delete_model_version_tag(NAME, "1", registry.TRAINED)
    assert aliased() == old
    assert aliased() == old != train(store, tmp_path, "FINISHED") and versions()[-1] == aliased()


@pytest.mark.parametrize("name", ["weathermill/sample", "weathermill:sample", " "])
def test_names_that_mlflow_does_not_allow_are_refused_at_once(name):
    with pytest.raises(ParameterError, match="does not allow"):
        tracking_settings({"registered_model_name": name})


def test_a_model_whose_logging_was_cut_short_counts_as_not_logged(store):
    """A process was killed between making it and its last file: the repeated operation logs another."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = mlflow.MlflowClient()
    run_id = client.create_run(store).info.run_id
    cut_short, whole = (
        client.create_logged_model(store, name="model", source_run_id=run_id, tags={registry.KEY: key})
        for key in ("a", "b")
    )
    client.finalize_logged_model(whole.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(each.model_id, 0) for each in (cut_short, whole)])
    assert registry.logged_model_id(client, run_id, "a") is None
    assert registry.logged_model_id(client, run_id, "b") == whole.model_id
    assert registry.logged_model_id(client, run_id, "c") is None
