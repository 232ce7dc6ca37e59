"""A resumed training continues its MLflow run without gaps or doubles."""

from __future__ import annotations

import mlflow
import pytest

from weathermill.hooks import MLflowHook
from weathermill.tracking import operations, runs
from weathermill.tracking.pending import FOLDER
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker
from weathermill.training.tracker import MetricLog


@pytest.fixture
def run_id(tmp_path, database):
    before = mlflow.get_tracking_uri()
    experiment = runs.connect(TrackingSettings(tracking_uri="sqlite:///runs.db"), tmp_path)
    yield runs.start(experiment, name="train", tags={}).info.run_id
    mlflow.set_tracking_uri(before)


def test_a_resumed_log_sends_each_step_once(run_id):
    rows = [(step, {"train/loss": 1.0 / step, "validation/loss": 2.0 / step}) for step in range(1, 11)]
    first = MetricLog(MLflowTracker(run_id))
    first.extend(rows[:6])
    first.flush()
    assert MLflowTracker(run_id).last_step("train/loss") == 6
    assert MLflowTracker(run_id).last_step("nothing") is None

    resumed = MetricLog(MLflowTracker(run_id), resumed=True)
    resumed.extend(rows[3:])
    resumed.flush()
    for key in ("train/loss", "validation/loss"):
        history = mlflow.MlflowClient().get_metric_history(run_id, key)
        assert [(m.step, m.value) for m in history] == [(step, metrics[key]) for step, metrics in rows]


def test_a_server_that_does_not_answer_is_only_a_warning(run_id, monkeypatch, caplog):
    tracker = MLflowTracker(run_id)

    def down(*_):
        raise ConnectionError("server down")

    monkeypatch.setattr(tracker._client, "get_metric_history", down)
    assert tracker.last_step("train/loss") is None
    assert "server down" in caplog.text


@pytest.mark.parametrize("taken", [True, False])
def test_what_a_signal_interrupts_is_told_once_at_the_end(run_id, tmp_path, monkeypatch, taken):
    """It strikes before the store took the numbers, or after."""
    tracker = MLflowTracker(run_id, project=tmp_path)
    perform = operations.perform

    def interrupted(client, run, operation):
        if taken:
            perform(client, run, operation)
        raise KeyboardInterrupt

    tracker.log_metrics({"loss": 1.0}, 3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(operations, "perform", interrupted)
        tracker.flush()
    tracker.end("KILLED")
    assert [m.step for m in mlflow.MlflowClient().get_metric_history(run_id, "loss")] == [3]
    assert mlflow.get_run(run_id).info.status == "KILLED"
    assert not list((tmp_path / FOLDER).glob("*/"))


def test_an_end_that_a_signal_interrupts_is_made_good_at_the_exit():
    class Tracker:
        def __init__(self):
            self.ended = []

        def end(self, status):
            self.ended.append(status)
            if len(self.ended) == 1:
                raise KeyboardInterrupt

    hook = MLflowHook()
    hook._tracker = tracker = Tracker()
    with pytest.raises(KeyboardInterrupt):
        hook._end("FINISHED")
    # What the exit of the process does: all was done, so that it is not KILLED.
    hook._end("KILLED")
    assert tracker.ended == ["FINISHED", "FINISHED"]
    assert hook._tracker is None


def test_a_model_that_a_signal_interrupts_is_not_told_at_the_end(run_id, tmp_path, monkeypatch):
    """At the exit of the process no threads can be begun, and its end would wait behind it."""
    tracker = MLflowTracker(run_id, project=tmp_path)
    (tmp_path / "model").mkdir()

    def interrupted(*_):
        raise SystemExit(143)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(operations, "perform", interrupted)
        tracker.log_model(tmp_path / "model")
    tracker.end("KILLED")
    assert mlflow.get_run(run_id).info.status == "KILLED"
    assert not list((tmp_path / FOLDER).glob("*/"))
