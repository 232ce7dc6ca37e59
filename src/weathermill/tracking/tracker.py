"""A run in MLflow, told in batches, and never in the way of the work."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import mlflow

from weathermill.redaction import redact
from weathermill.tracking import operations, runs
from weathermill.tracking.database import require_unlocked
from weathermill.tracking.operations import Operation
from weathermill.tracking.pending import FOLDER, Pending, note_synced, store_of, synced_runs
from weathermill.tracking.settings import TrackingSettings

logger = logging.getLogger(__name__)

BATCH = 500
EVERY_SECONDS = 5.0
RETRY_SECONDS = 60.0
LOCAL_PREFIX = "local-"


class MLflowTracker:
    """Tells MLflow about one run.

    Metrics are collected and sent together, because one call costs tens of milliseconds on SQLite. A tracking server
    that does not answer never stops the work: what it did not take is kept, with a project on disk, and told in
    order once it answers again: by this process, or by the next run.

    Parameters
    ----------
    run_id
        The run; one that begins with ``local-`` was begun without the server, which makes it when it answers.
    tracking_uri
        The tracking store; the current one when not given.
    project
        The project's folder, in whose ``mlflow_pending`` waits what could not be told; None keeps it in memory.
    settings
        To begin a local run on the server.
    """

    _current: ClassVar[MLflowTracker | None] = None
    #: The run that this process told of last.
    last_run_id: ClassVar[str | None] = None

    def __init__(
        self,
        run_id: str,
        tracking_uri: str | None = None,
        *,
        project: Path | None = None,
        settings: TrackingSettings | None = None,
    ) -> None:
        self.run_id = synced_runs(project).get(run_id, run_id) if project is not None else run_id
        self._first_id = run_id
        self.project = project
        self._settings = settings
        self._uri = tracking_uri
        self._made_client: mlflow.MlflowClient | None = None
        self._rows: list[list[Any]] = []
        folder = project / FOLDER / run_id if project is not None else None
        self._pending = Pending(folder, _digest(settings, project) if settings and project else "")
        self._last = time.monotonic()
        self._failed_at = -math.inf
        self._warned = False
        self._mutex = threading.RLock()

    @classmethod
    def active(cls) -> MLflowTracker | None:
        """The tracker of the run of this process, or None."""
        if cls._current is not None:
            return cls._current
        run = mlflow.active_run()
        return cls(run.info.run_id, mlflow.get_tracking_uri()) if run else None

    @classmethod
    def begin_locally(
        cls, settings: TrackingSettings, project: Path, *, name: str, tags: Mapping[str, str]
    ) -> MLflowTracker:
        """Begin a run without the server, to be told later."""
        tracker = cls(f"{LOCAL_PREFIX}{uuid.uuid4().hex}", project=project, settings=settings)
        tracker._failed_at = time.monotonic()
        begin = {"op": "begin", "name": name, "tags": dict(tags), "start_time": _now()}
        tracker._pending.append(begin)
        return tracker

    @property
    def _client(self) -> mlflow.MlflowClient:
        """The client; making it may already ask the store."""
        if self._made_client is None:
            self._made_client = mlflow.MlflowClient(self._uri)
        return self._made_client

    def make_current(self, current: bool = True) -> None:
        """Have :meth:`active` give this tracker, or no longer."""
        MLflowTracker._current = self if current else None
        MLflowTracker.last_run_id = self.run_id

    @property
    def is_known(self) -> bool:
        """Whether the server knows the run."""
        return not self.run_id.startswith(LOCAL_PREFIX)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log finite numbers at ``step``; they reach the store within some seconds."""
        now = _now()
        with self._mutex:
            self._rows += [[k, float(v), now, step] for k, v in metrics.items() if math.isfinite(float(v))]
            if len(self._rows) >= BATCH or time.monotonic() - self._last > EVERY_SECONDS:
                self._send_metrics()

    def last_step(self, key: str) -> int | None:
        """Give the largest step recorded under a metric, so that a resumed training repeats none; None if none."""
        with self._mutex:
            waiting = [row[3] for row in self._waiting_rows() if row[0] == key]
        try:
            recorded = (
                [m.step for m in self._client.get_metric_history(self.run_id, key)] if self.is_known else []
            )
        except Exception as error:
            logger.warning("MLflow did not say what it has of %s: %s", key, error)
            recorded = []
        return max([*recorded, *waiting], default=None)

    def _waiting_rows(self) -> list[list[Any]]:
        told = [row for op in self._pending if op["op"] == "metrics" for row in op["rows"]]
        return [*told, *self._rows]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; values that the run has already are left as they are."""
        self._tell(
            {"op": "params", "params": {k: redact(str(v))[: runs.PARAM_LENGTH] for k, v in params.items()}}
        )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._tell({"op": "tags", "tags": {k: redact(str(v))[:5000] for k, v in tags.items()}})

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Log a file or a folder."""
        self._tell({"op": "artifact", "path": str(path), "folder": folder})

    def log_dict(self, data: Mapping[str, Any], name: str) -> None:
        """Log a mapping as a JSON artefact."""
        self.log_text(json.dumps(data, indent=1, default=str), name)

    def log_text(self, text: str, name: str) -> None:
        """Log a text as an artefact."""
        self._tell({"op": "text", "text": redact(text), "name": name})

    def log_input(self, *, name: str, source: str, digest: str, context: str) -> None:
        """Log what the run read or made; see `weathermill.tracking.lineage.log_input`."""
        self._tell(
            {
                "op": "input",
                "name": redact(name),
                "source": redact(source),
                "digest": digest,
                "context": context,
            }
        )

    def log_model(
        self, folder: Path, *, registered_model_name: str | None = None, alias: str | None = None
    ) -> None:
        """Log the network that is saved in a folder as the run's model; see `weathermill.tracking.model`."""
        registration = {"registered_model_name": registered_model_name, "alias": alias}
        self._tell({"op": "model", "path": str(folder), **registration})

    def flush(self, *, insist: bool = False) -> None:
        """Send what waits; a server that has just not answered is asked again only if one insists."""
        with self._mutex:
            if insist:
                self._failed_at = -math.inf
            self._send_metrics()
            self._send_pending()

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        with self._mutex:
            self._failed_at = -math.inf
            self._send_metrics()
            self._tell({"op": "end", "status": status, "end_time": _now()})
            if self._pending:
                logger.warning(
                    "MLflow does not have all of this run yet: %d entries are kept in %s and told by the next run "
                    "that reaches it, or by `weathermill sync`",
                    len(self._pending),
                    self._pending.folder,
                )
            self._pending.release()
            MLflowTracker.last_run_id = self.run_id
            if MLflowTracker._current is self:
                MLflowTracker._current = None

    def _send_metrics(self) -> None:
        self._last = time.monotonic()
        while self._rows:
            batch, self._rows = self._rows[:BATCH], self._rows[BATCH:]
            self._tell({"op": "metrics", "rows": batch})

    def _tell(self, operation: Operation) -> None:
        """Do one operation now, after all that waits; or have it wait."""
        with self._mutex:
            try:
                done = self._send_pending() and self._attempt(operation)
            except BaseException:
                # A signal: whether it was taken is not known. To tell it again does no harm; but a model would be
                # registered twice, and the stage that makes it is not complete, so that it is run again.
                if operation["op"] != "model":
                    self._pending.append(operation)
                raise
            if not done:
                self._pending.append(operation)

    def _send_pending(self) -> bool:
        """Tell what waits, in order; say whether nothing waits any more."""
        if not self._pending:
            return True
        if time.monotonic() - self._failed_at < RETRY_SECONDS or not self._pending.usable:
            return False
        sent = False
        while self._pending and self._attempt(self._pending.first()):
            self._pending.done()
            sent = True
        if sent:
            self._pending.save()
        return not self._pending

    def _attempt(self, operation: Operation) -> bool:
        """Do one operation; say whether it need not be tried again."""
        try:
            require_unlocked(self._uri or mlflow.get_tracking_uri())
            if operation["op"] == "begin":
                self._begin(operation)
            else:
                operations.perform(self._client, self.run_id, operation)
        except Exception as error:
            if operations.is_permanent(error):
                logger.warning("MLflow did not take %s: %s", _in_words(operation), error)
                return True
            self._failed_at = time.monotonic()
            if not self._warned:
                logger.warning(
                    "MLflow does not answer; what it did not take is kept and told later: %s", error
                )
                self._warned = True
            return False
        if self._warned and operation["op"] != "end":
            logger.info("MLflow answers again")
        self._warned = False
        return True

    def _begin(self, operation: Operation) -> None:
        if self._settings is None or self.project is None:
            raise ConnectionError("no settings to begin the run with")
        known = synced_runs(self.project).get(self._first_id)
        if known is None:
            experiment = runs.connect(self._settings, self.project)
            self._made_client = None
            # A process may have been killed after it made the run and before it noted that.
            made = self._client.search_runs([experiment], f"tags.local_run_id = '{self._first_id}'")
            run = (
                made[0]
                if made
                else self._client.create_run(
                    experiment,
                    start_time=operation["start_time"],
                    tags={**operation["tags"], "local_run_id": self._first_id},
                    run_name=operation["name"],
                )
            )
            known = run.info.run_id
            note_synced(self.project, self._first_id, known)
        self.run_id = known


def _in_words(operation: Operation) -> str:
    kind = operation["op"]
    what = operation.get("name") or operation.get("path") or ", ".join(operation.get("params", {}))
    return f"{'artefact' if kind == 'text' else kind} {what or ''}".strip()


def _now() -> int:
    return int(time.time() * 1000)


def _digest(settings: TrackingSettings, project: Path) -> str:
    """Tell one tracking store from another; its URI itself may hold a password."""
    return hashlib.sha256(settings.resolved_uri(project).encode()).hexdigest()[:16]


def send_left_overs(settings: TrackingSettings, project: Path, *, anywhere: bool = False) -> list[str]:
    """Tell MLflow what earlier runs could not, where no process is at work on it; give the runs now complete.

    Parameters
    ----------
    settings, project
        Of whoever asks.
    anywhere
        Whether runs that were begun without a server may be made in this store although another was meant. Runs that
        another store knows are always left to it.
    """
    complete = []
    for folder in sorted((project / FOLDER).glob("*/")):
        meant = store_of(folder)
        elsewhere = bool(meant) and meant != _digest(settings, project)
        if elsewhere and not (anywhere and folder.name.startswith(LOCAL_PREFIX)):
            logger.info("%s waits for another tracking store: `weathermill sync --env` tells it", folder)
            continue
        tracker = MLflowTracker(folder.name, project=project, settings=settings)
        if not tracker._pending.usable:
            continue
        number = len(tracker._pending)
        tracker.flush(insist=True)
        if not tracker._pending:
            tracker._pending.save()
            complete.append(tracker.run_id)
            logger.info("MLflow was told the rest of run %s (%d entries)", tracker.run_id, number)
        tracker._pending.release()
    return complete


def synchronise(settings: TrackingSettings, project: Path) -> tuple[list[str], list[str]]:
    """Tell MLflow all that waits, and close the runs of processes that are gone.

    Returns
    -------
    complete, killed
        Runs that MLflow has all of now, and runs that are KILLED now. Nothing is raised where it does not answer.
    """
    complete = send_left_overs(settings, project, anywhere=True)
    try:
        killed = runs.close_abandoned(runs.connect(settings, project))
    except Exception as error:
        logger.warning("MLflow does not answer: %s", error)
        killed = []
    return complete, killed
