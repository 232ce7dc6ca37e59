"""What MLflow does not take is kept in order, on disk, and told later: by this process or by the next run."""

from __future__ import annotations

import json
import socket
import time

import mlflow
import pytest

from weathermill.tracking import operations, runs
from weathermill.tracking.answers import explain
from weathermill.tracking.delivery import Delivery, send_left_overs, synchronise
from weathermill.tracking.pending import FOLDER, Pending, synced_runs
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker

SETTINGS = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")


@pytest.fixture
def server(tmp_path, monkeypatch, database):
    """A store that can be switched off."""
    before = mlflow.get_tracking_uri()
    perform = operations.perform

    class Server:
        experiment = runs.connect(SETTINGS, tmp_path)
        up = True

    def guarded(*args):
        if not Server.up:
            raise ConnectionError("server down")
        return perform(*args)

    monkeypatch.setattr(operations, "perform", guarded)
    connect = runs.connect
    monkeypatch.setattr(runs, "connect", lambda *args: _refuse() if not Server.up else connect(*args))
    yield Server
    mlflow.set_tracking_uri(before)


def _refuse():
    raise ConnectionError("server down")


def begin(server, project):
    run = runs.start(server.experiment, name="train", tags=runs.process_tags())
    return MLflowTracker(run.info.run_id, project=project, settings=SETTINGS)


def steps(run_id, key="loss"):
    return [m.step for m in mlflow.MlflowClient().get_metric_history(run_id, key)]


def test_a_server_that_dies_half_way_gets_everything_in_order(server, tmp_path):
    tracker = begin(server, tmp_path)
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.flush()
    server.up = False
    tracker.log_metrics({"loss": 2.0}, 1)
    tracker.flush()
    artefact = tmp_path / "card.html"
    artefact.write_text("first")
    tracker.log_artifact(artefact)
    artefact.write_text("overwritten by a later run")
    tracker.set_tags({"note": "kept"})
    assert steps(tracker.run_id) == [0]
    assert (tmp_path / FOLDER / tracker.run_id / "calls.jsonl").exists()
    server.up = True
    tracker.end("FINISHED")
    assert steps(tracker.run_id) == [0, 1]
    run = mlflow.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["note"] == "kept"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/card.html") == "first"
    assert not (tmp_path / FOLDER / tracker.run_id).exists()


def test_what_a_dead_process_kept_is_told_by_the_next_run(server, tmp_path):
    tracker = begin(server, tmp_path)
    server.up = False
    tracker.log_metrics({"loss": 3.0}, 7)
    tracker.end("FINISHED")
    server.up = True
    assert send_left_overs(SETTINGS, tmp_path).complete == [tracker.run_id]
    assert steps(tracker.run_id) == [7]
    assert mlflow.get_run(tracker.run_id).info.status == "FINISHED"
    assert not list((tmp_path / FOLDER).iterdir())


def test_a_run_begun_without_the_server_is_made_later_once(server, tmp_path):
    server.up = False
    tracker = MLflowTracker.begin_locally(SETTINGS, tmp_path, name="all base", tags={"env": "base"})
    local = tracker.run_id
    tracker.log_params({"seed": 3})
    tracker.log_metrics({"loss": 1.0}, 4)
    tracker.end("FINISHED")
    server.up = True
    (run_id,) = send_left_overs(SETTINGS, tmp_path).complete
    run = mlflow.get_run(run_id)
    assert run.data.params == {"seed": "3"} and run.data.tags["local_run_id"] == local
    assert run.info.status == "FINISHED" and steps(run_id) == [4]
    assert synced_runs(tmp_path) == {local: run_id}
    assert send_left_overs(SETTINGS, tmp_path).complete == []


def test_a_kill_while_telling_tells_nothing_twice(server, tmp_path):
    server.up = False
    tracker = MLflowTracker.begin_locally(SETTINGS, tmp_path, name="all", tags={})
    tracker.log_metrics({"loss": 1.0}, 4)
    tracker.end("KILLED")
    calls = tmp_path / FOLDER / tracker.run_id / "calls.jsonl"
    before = calls.read_text()
    server.up = True
    (run_id,) = send_left_overs(SETTINGS, tmp_path).complete
    calls.parent.mkdir()
    # The file as it was when all was told but not yet struck, and a line cut short by the kill.
    calls.write_text(before + '{"op": "met')
    assert send_left_overs(SETTINGS, tmp_path).complete == [run_id]
    assert steps(run_id) == [4]
    assert len(mlflow.search_runs([server.experiment])) == 1


def test_a_folder_that_a_process_is_at_work_on_is_left_alone(server, tmp_path):
    tracker = begin(server, tmp_path)
    server.up = False
    tracker.set_tags({"a": "b"})
    server.up = True
    assert send_left_overs(SETTINGS, tmp_path).complete == []
    assert not Pending(tmp_path / FOLDER / tracker.run_id).usable


def test_two_processes_that_record_to_one_run_keep_what_waits_apart(server, tmp_path):
    """As with MLFLOW_RUN_ID; each rewrites its own list as it is told."""
    first = begin(server, tmp_path)
    second = MLflowTracker(first.run_id, project=tmp_path, settings=SETTINGS)
    server.up = False
    for number, tracker in enumerate((first, second, first, second)):
        tracker.set_tags({f"tag{number}": number})
    assert [len(tracker.pending) for tracker in (first, second)] == [2, 2]
    assert len(list((tmp_path / FOLDER).glob("*/"))) == 2
    server.up = True
    first.end("FINISHED")
    second.pending.release()
    assert send_left_overs(SETTINGS, tmp_path).complete == [first.run_id]
    assert {f"tag{number}" for number in range(4)} <= set(mlflow.get_run(first.run_id).data.tags)
    assert not list((tmp_path / FOLDER).glob("*/"))


def test_what_is_refused_for_good_does_not_block_the_rest(server, tmp_path, caplog):
    tracker = begin(server, tmp_path)
    tracker.log_artifact(tmp_path / "missing.html")
    tracker.log_metrics({"bad name ???": 1.0}, 0)
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.end("FINISHED")
    assert "missing.html" in caplog.text
    assert mlflow.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_server_that_does_not_answer_is_not_asked_at_every_call(server, tmp_path, monkeypatch):
    tracker = begin(server, tmp_path)
    asked = []

    def slow(*_):
        asked.append(time.monotonic())
        raise ConnectionError("slow")

    monkeypatch.setattr(operations, "perform", slow)
    for number in range(20):
        tracker.set_tags({"n": number})
        tracker.log_metrics({"loss": 1.0}, number)
        tracker.flush()
    assert len(asked) == 1
    assert tracker.last_step("loss") == 19


def test_last_step_counts_what_waits(server, tmp_path):
    tracker = begin(server, tmp_path)
    server.up = False
    tracker.log_metrics({"loss": 1.0}, 12)
    assert tracker.last_step("loss") == 12


def test_a_closed_port_is_told_apart_from_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
    with pytest.raises(Exception, match=r"refused|Max retries") as caught:
        client.get_run("a" * 32)
    assert (
        explain(caught.value).reason.startswith("MLflow does not answer") and not explain(caught.value).final
    )
    with pytest.raises(mlflow.exceptions.MlflowException) as caught:
        mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs.db'}").get_run("a" * 32)
    assert explain(caught.value).final


def test_operations_are_plain_json(server, tmp_path):
    tracker = begin(server, tmp_path)
    server.up = False
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_dict({"a": 1}, "a.json")
    tracker.log_input(name="tensors", source="/x", digest="ab", context="made")
    tracker.flush()
    lines = (tmp_path / FOLDER / tracker.run_id / "calls.jsonl").read_text().splitlines()
    assert [json.loads(line)["op"] for line in lines] == ["text", "input", "metrics"]


def test_a_store_that_cannot_even_be_opened_stops_nothing(server, tmp_path, monkeypatch):
    def locked(*_, **__):
        raise mlflow.exceptions.MlflowException("database is locked")

    monkeypatch.setattr(mlflow, "MlflowClient", locked)
    tracker = MLflowTracker.begin_locally(SETTINGS, tmp_path, name="all", tags={})
    tracker.log_metrics({"loss": 1.0}, 4)
    assert tracker.last_step("loss") == 4
    tracker.end("FINISHED")
    monkeypatch.undo()
    (run_id,) = send_left_overs(SETTINGS, tmp_path).complete
    assert steps(run_id) == [4]


def test_what_waits_for_another_store_is_left_to_it(server, tmp_path, caplog):
    """Two environments may have a server each; a run that is known to one must not be thrown away by the other."""
    tracker = begin(server, tmp_path)
    server.up = False
    tracker.log_metrics({"loss": 1.0}, 4)
    tracker.end("FINISHED")
    local = MLflowTracker.begin_locally(SETTINGS, tmp_path, name="all", tags={})
    local.end("FINISHED")
    server.up = True
    other = TrackingSettings(tracking_uri="sqlite:///other.db", artifact_location="artifacts")
    with caplog.at_level("INFO"):
        assert send_left_overs(other, tmp_path).complete == []
    assert "waits for another tracking store" in caplog.text
    # Asked to, one that no store knows is told here.
    delivery = synchronise(other, tmp_path)
    (told,) = delivery.complete
    assert mlflow.get_run(told).data.tags["local_run_id"] == local._first_id and delivery.killed == []
    runs.connect(SETTINGS, tmp_path)
    assert send_left_overs(SETTINGS, tmp_path).complete == [tracker.run_id]
    assert steps(tracker.run_id) == [4]


def test_runs_of_dead_processes_are_closed_by_synchronising(server, tmp_path):
    tags = {**runs.process_tags(), "process.started": "1.0"}
    run = runs.start(server.experiment, name="all", tags=tags)
    assert synchronise(SETTINGS, tmp_path) == Delivery(killed=[run.info.run_id])
    assert mlflow.get_run(run.info.run_id).info.status == "KILLED"


def test_synchronising_with_a_server_that_is_down_raises_nothing(server, tmp_path, monkeypatch):
    def down(*_):
        raise ConnectionError("server down")

    monkeypatch.setattr(runs, "connect", down)
    delivery = synchronise(SETTINGS, tmp_path)
    assert delivery.fault.startswith("MLflow does not answer: server down") and not delivery.all_told
