"""Everything that is told to MLflow, as plain data, so that it can be kept in a file and told later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from weathermill.datasets import ForecasterDataset
from weathermill.tracking import lineage, model

Operation = dict[str, Any]

#: What the server will refuse however often it is asked.
_PERMANENT = {
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "NOT_IMPLEMENTED",
}


def is_permanent(error: Exception) -> bool:
    """Say whether trying again later would be in vain."""
    if isinstance(error, MlflowException):
        return error.error_code in _PERMANENT
    return isinstance(error, FileNotFoundError)


def perform(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    """Do one operation on a run; raises whatever MLflow raises."""
    _PERFORMERS[operation["op"]](client, run_id, operation)


def _metrics(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    client.log_batch(run_id, metrics=[Metric(*row) for row in operation["rows"]])


def _params(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    known = client.get_run(run_id).data.params
    params = [Param(key, value) for key, value in operation["params"].items() if key not in known]
    for first in range(0, len(params), 100):
        client.log_batch(run_id, params=params[first : first + 100])


def _tags(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    tags = [RunTag(key, value) for key, value in operation["tags"].items()]
    for first in range(0, len(tags), 100):
        client.log_batch(run_id, tags=tags[first : first + 100])


def _artifact(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    path = Path(operation["path"])
    log = client.log_artifacts if path.is_dir() else client.log_artifact
    log(run_id, str(path), operation["folder"])


def _text(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    client.log_text(run_id, operation["text"], operation["name"])


def _input(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    entry = {key: operation[key] for key in ("name", "source", "digest", "context")}
    lineage.log_input(run_id, **entry)


def _model(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    dataset = ForecasterDataset(filepath=operation["path"])
    status = client.get_run(run_id).info.status
    mlflow.start_run(run_id=run_id, nested=True)
    try:
        registration = {key: operation.get(key) for key in ("registered_model_name", "alias")}
        model.log_model(dataset.path, **dataset.shapes(), example=dataset.input_example(), **registration)
    finally:
        mlflow.end_run(status)


def _end(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    client.set_terminated(run_id, operation["status"], operation["end_time"])


_PERFORMERS: dict[str, Callable[[mlflow.MlflowClient, str, Mapping[str, Any]], None]] = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "artifact": _artifact,
    "text": _text,
    "input": _input,
    "model": _model,
    "end": _end,
}
