"""The training engine's tracker, on MLflow: batched, and never in the way of training."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric

logger = logging.getLogger(__name__)

BATCH = 500
EVERY_SECONDS = 5.0


class MLflowTracker:
    """Logs metrics and artefacts to one MLflow run.

    Metrics are collected and sent together, because one call costs tens of milliseconds on SQLite. A tracking
    server that does not answer never stops the work: what could not be sent is kept and tried again with the next
    batch, and once more at :meth:`flush`.

    Parameters
    ----------
    run_id
        The run to log to.
    tracking_uri
        The tracking store; the current one when not given.
    """

    def __init__(self, run_id: str, tracking_uri: str | None = None) -> None:
        self.run_id = run_id
        self._client = mlflow.MlflowClient(tracking_uri)
        self._waiting: list[Metric] = []
        self._last = time.monotonic()
        self._warned = False

    @classmethod
    def active(cls) -> MLflowTracker | None:
        """The tracker of the run that is active in this process, or None."""
        run = mlflow.active_run()
        return cls(run.info.run_id, mlflow.get_tracking_uri()) if run else None

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log finite numbers at ``step``; they reach the store within some seconds."""
        now = int(time.time() * 1000)
        self._waiting += [
            Metric(k, float(v), now, step) for k, v in metrics.items() if math.isfinite(float(v))
        ]
        if len(self._waiting) >= BATCH or time.monotonic() - self._last > EVERY_SECONDS:
            self.flush()

    def last_step(self, key: str) -> int | None:
        """Give the largest step recorded under a metric, so that a resumed training repeats none; None if none."""
        try:
            return max((m.step for m in self._client.get_metric_history(self.run_id, key)), default=None)
        except Exception as error:
            logger.warning("MLflow did not say what it has of %s: %s", key, error)
            return None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; values that MLflow refuses to change are left as they were."""
        for key, value in params.items():
            try:
                self._client.log_param(self.run_id, key, value)
            except Exception as error:
                logger.warning("MLflow did not take parameter %s: %s", key, error)

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Log a file or a folder."""
        try:
            if Path(path).is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)
        except Exception as error:
            logger.warning("MLflow did not take artefact %s: %s", path, error)

    def log_dict(self, data: Mapping[str, Any], name: str) -> None:
        """Log a mapping as a JSON artefact."""
        try:
            self._client.log_text(self.run_id, json.dumps(data, indent=1, default=str), name)
        except Exception as error:
            logger.warning("MLflow did not take artefact %s: %s", name, error)

    def flush(self) -> None:
        """Send what waits."""
        self._last = time.monotonic()
        while self._waiting:
            batch = self._waiting[:BATCH]
            try:
                self._client.log_batch(self.run_id, metrics=batch)
            except Exception as error:
                if not self._warned:
                    logger.warning(
                        "MLflow did not take %d metrics, which are kept and sent later: %s", len(batch), error
                    )
                    self._warned = True
                return
            del self._waiting[: len(batch)]
            self._warned = False
