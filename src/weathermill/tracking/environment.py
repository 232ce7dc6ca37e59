"""MLflow's own variables of the environment, and what they change in the settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow

from weathermill.redaction import redact
from weathermill.tracking.settings import TrackingSettings, tracking_settings

logger = logging.getLogger(__name__)

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
RUN_ID = "MLFLOW_RUN_ID"
_LOCAL = ("sqlite:", "file:")
_told: set[str] = set()


def with_environment(
    settings: TrackingSettings, environment: Mapping[str, str] = os.environ
) -> TrackingSettings:
    """Put MLflow's variables over the settings of ``mlflow.yml``, as MLflow's own commands do.

    ``MLFLOW_TRACKING_URI`` replaces ``tracking_uri`` (a relative SQLite path is relative to the current folder, as for
    MLflow), ``MLFLOW_EXPERIMENT_ID`` or else ``MLFLOW_EXPERIMENT_NAME`` replaces ``experiment``, and ``MLFLOW_RUN_ID``
    names a run to record to. What is replaced is logged.
    """
    given = {
        name: environment.get(name, "").strip() for name in (URI, EXPERIMENT_NAME, EXPERIMENT_ID, RUN_ID)
    }
    changes: dict[str, str | None] = {}
    if given[URI]:
        changes["tracking_uri"] = _absolute(given[URI])
        if not given[URI].startswith(_LOCAL) and "://" not in (settings.artifact_location or "://"):
            # A folder of this machine would be of no use to the server's other clients.
            changes["artifact_location"] = None
    if given[EXPERIMENT_ID]:
        changes["experiment_id"] = given[EXPERIMENT_ID]
    elif given[EXPERIMENT_NAME]:
        changes["experiment"] = given[EXPERIMENT_NAME]
    if given[RUN_ID]:
        changes["run_id"] = given[RUN_ID]
    heeded = {
        name: value
        for name, value in given.items()
        if value and not (name == EXPERIMENT_NAME and given[EXPERIMENT_ID])
    }
    if heeded and settings.enabled:
        told = ", ".join(f"{name}={redact(value)}" for name, value in heeded.items())
        if told not in _told:
            logger.info("MLflow: the environment goes before mlflow.yml: %s", told)
            _told.add(told)
    return settings.model_copy(update=changes)


def _absolute(uri: str) -> str:
    prefix = "sqlite:///"
    if uri.startswith(prefix) and not uri.startswith(prefix + "/"):
        return f"{prefix}{Path(uri.removeprefix(prefix)).resolve()}"
    return uri


def use_tracking_uri(uri: str) -> None:
    """Point MLflow to a store without leaving its address in the environment.

    ``mlflow.set_tracking_uri`` writes it there, where the next session of this process, and its children, would take
    it for what the user has set.
    """
    before = os.environ.get(URI)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(URI, None)
    else:
        os.environ[URI] = before


def current_settings(configuration: dict[str, Any]) -> TrackingSettings:
    """Check the contents of ``mlflow.yml``, and put the environment over it.

    Raises
    ------
    ParameterError
        If there are unknown or ill-typed keys.
    """
    return with_environment(tracking_settings(configuration))
