from __future__ import annotations

import json
import time

import pytest

from weathermill.training.tracker import MetricLog, NullTracker, RecordingTracker, Tracker, flush, run_id


def test_recording_tracker_writes_and_reads_back(tmp_path):
    tracker = RecordingTracker(tmp_path / "run")
    assert isinstance(tracker, Tracker)
    assert isinstance(NullTracker(), Tracker)
    tracker.log_metrics({"train/loss": 0.1 + 0.2}, 1)
    tracker.log_metrics({"train/loss": 0.25, "validation/loss": 1.0}, 2)
    assert tracker.rows() == [
        (1, {"train/loss": 0.1 + 0.2}),
        (2, {"train/loss": 0.25, "validation/loss": 1.0}),
    ]
    tracker.log_params({"a": 1})
    tracker.log_params({"b": 2})
    assert json.loads((tmp_path / "run/params.json").read_text()) == {"a": 1, "b": 2}
    (tmp_path / "plot.txt").write_text("x")
    tracker.log_artifact(tmp_path / "plot.txt", "plots")
    assert (tmp_path / "run/artifacts/plots/plot.txt").read_text() == "x"
    assert run_id(tracker) == "run"
    assert run_id(NullTracker()) is None
    flush(NullTracker())


def test_line_cut_short_is_dropped(tmp_path):
    tracker = RecordingTracker(tmp_path)
    tracker.log_metrics({"loss": 1.0}, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "metr')
    again = RecordingTracker(tmp_path)
    assert again.last_step("loss") == 1
    again.log_metrics({"loss": 2.0}, 2)
    assert again.rows() == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]


def test_metric_log_batches_and_drops_non_finite(tmp_path):
    tracker = RecordingTracker(tmp_path)
    log = MetricLog(tracker)
    log.add(1, {"loss": 1.0, "bad": float("nan")})
    log.extend([(2, {"loss": float("inf")}), (3, {"loss": 3.0})])
    assert tracker.rows() == []
    log.flush()
    log.flush()
    log.close()
    assert tracker.rows() == [(1, {"loss": 1.0}), (3, {"loss": 3.0})]


def test_resumed_log_sends_only_what_is_missing(tmp_path):
    tracker = RecordingTracker(tmp_path)
    tracker.log_metrics({"a": 1.0, "b": 1.0}, 1)
    tracker.log_metrics({"a": 2.0}, 2)
    log = MetricLog(RecordingTracker(tmp_path), resumed=True)
    log.extend([(1, {"a": 1.0, "b": 1.0}), (2, {"a": 2.0, "b": 2.0}), (3, {"a": 3.0, "b": 3.0})])
    log.flush()
    rows = tracker.rows()
    for key in "ab":
        assert [(s, m[key]) for s, m in rows if key in m] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_slow_tracker_holds_nothing_up_and_gets_all_in_order(tmp_path):
    class Slow(RecordingTracker):
        def log_metrics(self, metrics, step=0):
            time.sleep(0.02)
            super().log_metrics(metrics, step)

    tracker = Slow(tmp_path)
    log = MetricLog(tracker)
    began = time.perf_counter()
    for step in range(10):
        log.add(step, {"loss": float(step)})
        log.send()
    assert time.perf_counter() - began < 0.1
    log.close()
    assert [step for step, _ in tracker.rows()] == list(range(10))


def test_failing_tracker_raises_where_training_can_see_it(tmp_path):
    class Broken(NullTracker):
        def log_metrics(self, metrics, step=0):
            raise RuntimeError("no such run")

    log = MetricLog(Broken())
    log.add(1, {"loss": 1.0})
    with pytest.raises(RuntimeError, match="no such run"):
        log.flush()
    log.close()
