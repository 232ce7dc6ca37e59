"""A run in MLflow, told in batches, and never in the way of the work."""

from __future__ import annotations

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
from weathermill.tracking.answers import Answer, explain
from weathermill.tracking.database import require_unlocked
from weathermill.tracking.operations import LEVELS, Operation
from weathermill.tracking.pending import (
    FOLDER,
    LOCAL_PREFIX,
    Pending,
    note_synced,
    synced_runs,
    waiting_calls,
)
from weathermill.tracking.settings import TrackingSettings

logger = logging.getLogger(__name__)

BATCH = 500
EVERY_SECONDS = 5.0
RETRY_SECONDS = 60.0


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
    folder
        Where what waits is kept, if not in ``mlflow_pending/<run>``.
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
        folder: Path | None = None,
    ) -> None:
        self.run_id = synced_runs(project).get(run_id, run_id) if project is not None else run_id
        self._first_id = run_id
        self.project = project
        self._settings = settings
        self._uri = tracking_uri
        self._made_client: mlflow.MlflowClient | None = None
        self._rows: list[list[Any]] = []
        if folder is None and project is not None:
            folder = project / FOLDER / run_id
        self._pending = Pending(folder, settings.digest(project) if settings and project else "")
        self._last = time.monotonic()
        # By level of operation: when it failed last, and why.
        self._failed_at: dict[int, float] = {}
        self._reasons: dict[int, Answer] = {}
        self._told: set[str] = set()
        self._logged_models: list[tuple[str, str, str]] = []
        self._continued: str | None = None
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
        cls,
        settings: TrackingSettings,
        project: Path,
        *,
        name: str,
        tags: Mapping[str, str],
        continue_run: str | None = None,
        reason: Answer | None = None,
    ) -> MLflowTracker:
        """Begin a run without the server, to be told later.

        Parameters
        ----------
        settings, project, name, tags
            Of the run.
        continue_run
            A run to go on with; whether that can be is found out when the server answers, as by
            `weathermill.tracking.runs.start`.
        reason
            Why the server could not be told.
        """
        tracker = cls(f"{LOCAL_PREFIX}{uuid.uuid4().hex}", project=project, settings=settings)
        tracker._failed_at[0] = time.monotonic()
        if reason is not None:
            tracker._reasons[0] = reason
            tracker._told.add(reason.reason)
        tracker._continued = continue_run
        begin = {
            "op": "begin",
            "name": name,
            "tags": {key: runs.tag_value(value) for key, value in tags.items()},
            "start_time": _now(),
            **({"continue_run": continue_run} if continue_run else {}),
        }
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
            logger.warning("MLflow did not say what it has of %s: %s", key, explain(error).reason)
            recorded = []
        return max([*recorded, *waiting], default=None)

    def _waiting_rows(self) -> list[list[Any]]:
        waiting = list(self._pending)
        if self._continued is not None and self.project is not None:
            waiting += waiting_calls(self.project / FOLDER / self._continued)
        told = [row for op in waiting if op["op"] == "metrics" for row in op["rows"]]
        return [*told, *self._rows]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; values that the run has already are left as they are."""
        self._tell(
            {"op": "params", "params": {k: redact(str(v))[: runs.PARAM_LENGTH] for k, v in params.items()}}
        )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._tell({"op": "tags", "tags": {k: runs.tag_value(v) for k, v in tags.items()}})

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
        entry = {"name": redact(name), "source": redact(source), "digest": digest, "context": context}
        self._tell({"op": "input", **entry})

    def log_model(
        self, folder: Path, *, registered_model_name: str | None = None, alias: str | None = None
    ) -> None:
        """Log the network that is saved in a folder as the run's model, and register it.

        The alias follows when the run has ended well: `end`.
        """
        key = uuid.uuid4().hex
        self._tell({"op": "model", "path": str(folder), "key": key})
        if registered_model_name is not None:
            name = registered_model_name
            self._tell({"op": "register", "key": key, "name": name, "trained": _now()})
            if alias is not None:
                self._logged_models.append((key, name, alias))

    def flush(self, *, insist: bool = False) -> None:
        """Send what waits; a server that has just not answered is asked again only if one insists."""
        with self._mutex:
            if insist:
                self._failed_at.clear()
            self._send_metrics()
            self._send_pending()

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED; only one that is FINISHED moves the alias of its model."""
        with self._mutex:
            self._failed_at.clear()
            self._send_metrics()
            self._tell({"op": "end", "status": status, "end_time": _now()})
            if status == "FINISHED":
                for key, name, alias in self._logged_models:
                    self._tell({"op": "alias", "key": key, "name": name, "alias": alias})
            self._logged_models = []
            self._pending.warn(str(self.reason) if self.reason else "")
            self._pending.release()
            MLflowTracker.last_run_id = self.run_id
            if MLflowTracker._current is self:
                MLflowTracker._current = None

    @property
    def reason(self) -> Answer | None:
        """Why something waits; None where nothing does."""
        return self._reasons[min(self._reasons)] if self._reasons else None

    @property
    def pending(self) -> Pending:
        """What waits, and what was refused."""
        return self._pending

    def _send_metrics(self) -> None:
        self._last = time.monotonic()
        while self._rows:
            batch, self._rows = self._rows[:BATCH], self._rows[BATCH:]
            self._tell({"op": "metrics", "rows": batch})

    def _tell(self, operation: Operation) -> None:
        """Do one operation now, after all that waits; or have it wait."""
        with self._mutex:
            try:
                level = LEVELS[operation["op"]]
                self._send_pending()
                done = level < self._blocked() and self._attempt(operation)
            except BaseException:
                # A signal: whether it was taken is not known. To tell it again does no harm; but the stage that makes
                # a model is not complete, so that it is run again, and logs another.
                if operation["op"] != "model":
                    self._pending.append(operation)
                raise
            if not done:
                self._pending.append(operation)

    def _blocked(self) -> int:
        """The lowest level that nothing may be sent of now, because something waits there."""
        return min((LEVELS[operation["op"]] for operation in self._pending), default=len(LEVELS))

    def _send_pending(self) -> bool:
        """Tell what waits, in order; say whether nothing waits any more."""
        if not self._pending:
            return True
        if not self._pending.usable or not self._may_try(self._blocked()):
            return False
        left: list[Operation] = []
        blocked = len(LEVELS)
        before = len(self._pending)
        if self.is_known and not self._is_recordable():
            return False
        for operation in self._pending:
            level = LEVELS[operation["op"]]
            if level >= blocked or not self._may_try(level) or not self._attempt(operation):
                blocked = min(blocked, level)
                left.append(operation)
        self._pending.keep(left)
        if len(left) < before:
            self._pending.save()
        return not left

    def _may_try(self, level: int) -> bool:
        failed = max((at for each, at in self._failed_at.items() if each <= level), default=-math.inf)
        return time.monotonic() - failed >= RETRY_SECONDS

    def _attempt(self, operation: Operation) -> bool:
        """Do one operation; say whether it is settled: taken, or refused for good and set aside."""
        level = LEVELS[operation["op"]]
        try:
            if operations.is_gone(operation):
                self._refuse(operation, f"its file is gone: {operation['path']}")
                return True
            require_unlocked(self._uri or mlflow.get_tracking_uri())
            if operation["op"] == "begin":
                self._begin(operation)
            else:
                operations.perform(self._client, self.run_id, operation)
        except Exception as error:
            answer = explain(error)
            if answer.final and operation["op"] != "begin":
                level, fault = self._find_fault(level)
                if fault is None:
                    return self._settle(operation, answer)
                answer = fault
            self._note_failure(level, answer)
            return False
        if self._reasons.pop(level, None) is not None and operation["op"] != "end":
            logger.info("MLflow answers again")
        return True

    def _is_recordable(self) -> bool:
        """Find out whether the run can be recorded to: a gateway may answer with 200 in place of MLflow."""
        _, fault = self._find_fault(0)
        if fault is not None:
            self._note_failure(0, fault)
        return fault is None

    def _find_fault(self, level: int) -> tuple[int, Answer | None]:
        """Find out whether a refusal is about the run or the server, and not about what was refused."""
        try:
            require_unlocked(self._uri or mlflow.get_tracking_uri())
            operations.find_fault(self._client, self.run_id)
        except Exception as error:
            return 0, explain(error)
        return level, None

    def _settle(self, operation: Operation, answer: Answer) -> bool:
        """Set aside what was refused, but have the rest of it taken."""
        parts = operations.halves(operation)
        if not parts:
            self._refuse(operation, answer.reason)
        return all(self._attempt(part) for part in parts)

    def _refuse(self, operation: Operation, reason: str) -> None:
        logger.warning("MLflow does not take %s: %s", operations.in_words(operation), reason)
        self._pending.refuse(operation, reason)

    def _note_failure(self, level: int, answer: Answer) -> None:
        self._failed_at[level] = time.monotonic()
        self._reasons[level] = answer
        if answer.reason not in self._told:
            logger.warning(answer.text("what could not be recorded in MLflow is kept and told later"))
            self._told.add(answer.reason)

    def _begin(self, operation: Operation) -> None:
        if self._settings is None or self.project is None:
            raise ConnectionError("no settings to begin the run with")
        known = synced_runs(self.project).get(self._first_id)
        if known is None:
            experiment = runs.connect(self._settings, self.project)
            self._made_client = None
            continued = operation.get("continue_run")
            run = runs.start_once(
                experiment,
                self._first_id,
                name=operation["name"],
                tags=operation["tags"],
                continue_run=synced_runs(self.project).get(continued, continued),
                start_time=operation["start_time"],
            )
            known = run.info.run_id
            note_synced(self.project, self._first_id, known)
            if MLflowTracker._current is self:
                # When it began, MLflow could not be asked for those that killed processes left.
                runs.close_abandoned_if_possible(experiment)
        self.run_id = known


def _now() -> int:
    return int(time.time() * 1000)
