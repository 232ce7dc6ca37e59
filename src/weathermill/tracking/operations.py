"""Everything that is told to MLflow, as plain data, so that it can be kept in a file and told later.

Every operation may be repeated without harm, because the answer to the first attempt may have been lost: metrics of the
same step and time are one, known parameters stay, files are overwritten, and models are logged and registered once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from weathermill.datasets import ForecasterDataset
from weathermill.tracking import lineage, model, registry
from weathermill.tracking.answers import UnavailableError, no_mlflow
from weathermill.tracking.runs import require_active

Operation = dict[str, Any]

#: What takes an operation: the tracking store, the artefact store, the registry. An operation can go only where nothing
#: waits of its own level or of one below.
LEVELS = {
    "begin": 0,
    "metrics": 0,
    "params": 0,
    "tags": 0,
    "input": 0,
    "end": 0,
    "artifact": 1,
    "text": 1,
    "model": 1,
    "register": 2,
    "alias": 2,
}
#: Operations of more than one part, each of which may be taken or refused by itself.
_PARTS = {"metrics": "rows", "params": "params", "tags": "tags"}


def perform(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    """Do one operation on a run; raises whatever MLflow raises, and returns only when it was taken."""
    _PERFORMERS[operation["op"]](client, run_id, operation)


def halves(operation: Operation) -> tuple[Operation, ...]:
    """Split an operation in two; empty where it has a single part."""
    key = _PARTS.get(operation["op"])
    parts = list(operation[key].items() if key in ("params", "tags") else operation[key]) if key else []
    if len(parts) < 2:
        return ()
    middle = len(parts) // 2
    made = dict if key in ("params", "tags") else list
    return tuple({**operation, key: made(half)} for half in (parts[:middle], parts[middle:]))


def in_words(operation: Mapping[str, Any]) -> str:
    """Say what an operation is about."""
    kind = operation["op"]
    names = {
        "metrics": lambda: sorted({row[0] for row in operation["rows"]}),
        "params": lambda: list(operation["params"]),
        "tags": lambda: list(operation["tags"]),
        "artifact": lambda: [Path(operation["path"]).name],
        "register": lambda: [operation["name"]],
        "alias": lambda: [f"{operation['name']}@{operation['alias']}"],
        "end": lambda: [operation["status"]],
    }
    what = names.get(kind, lambda: [operation.get("name") or ""])()
    listed = ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
    return f"{_NOUNS.get(kind, kind)} {listed}".strip()


_NOUNS = {
    "artifact": "artefact",
    "text": "artefact",
    "params": "parameters",
    "begin": "begin of the run",
    "end": "end of the run",
    "register": "registration",
    "alias": "alias",
}


def count_in_words(operations: Iterable[Mapping[str, Any]]) -> str:
    """Say how many operations there are of each kind."""
    counts = Counter(_NOUNS.get(operation["op"], operation["op"]) for operation in operations)
    return ", ".join(f"{noun} ({number})" for noun, number in counts.items())


def is_gone(operation: Mapping[str, Any]) -> bool:
    """Say whether a file that an operation sends is there no more."""
    return "path" in operation and not Path(operation["path"]).exists()


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
    path, folder = Path(operation["path"]), operation["folder"]
    log = client.log_artifacts if path.is_dir() else client.log_artifact
    log(run_id, str(path), folder)
    _require_arrived(client, run_id, dict(_files_of(path)), folder or "")


def _files_of(path: Path) -> Iterator[tuple[str, int]]:
    if path.is_file():
        yield path.name, path.stat().st_size
        return
    for file in path.rglob("*"):
        if file.is_file():
            yield file.relative_to(path).as_posix(), file.stat().st_size


def _text(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    client.log_text(run_id, operation["text"], operation["name"])
    name = PurePosixPath(operation["name"])
    folder = "" if name.parent == PurePosixPath() else name.parent.as_posix()
    _require_arrived(client, run_id, {name.name: len(operation["text"].encode())}, folder)


def _require_arrived(client: mlflow.MlflowClient, run_id: str, files: Mapping[str, int], folder: str) -> None:
    """See that a server lists the files that were sent: a proxy's login page answers an upload with 200, too."""
    if not str(client.tracking_uri).startswith("http"):
        return
    found: dict[str, int | None] = {}
    for parent in sorted({PurePosixPath(name).parent.as_posix() for name in files}):
        where = "/".join(part for part in (folder, parent) if part not in ("", "."))
        for entry in client.list_artifacts(run_id, where or None):
            found[entry.path] = entry.file_size
    for name, size in files.items():
        path = f"{folder}/{name}" if folder else name
        if path not in found or found[path] not in (size, None):
            raise UnavailableError(
                f"the server said that it took the artefact {path}, but does not have it",
                "See that the artefact store of the server can be written to, and that no proxy answers in its place.",
            )


def _input(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    entry = {key: operation[key] for key in ("name", "source", "digest", "context")}
    lineage.log_input(run_id, **entry, client=client)


def _model(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    key = operation.get("key")
    if key is not None and registry.logged_model_id(client, run_id, key) is not None:
        return
    dataset = ForecasterDataset(filepath=operation["path"])
    info = client.get_run(run_id).info
    mlflow.start_run(run_id=run_id, nested=True)
    try:
        tags = {registry.KEY: key} if key is not None else None
        model.log_model(dataset.path, **dataset.shapes(), example=dataset.input_example(), tags=tags)
    finally:
        mlflow.end_run(info.status)
        if info.end_time:
            # The model is told after the run has ended; that it ended then stays.
            client.set_terminated(run_id, info.status, info.end_time)


def _register(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    model_id = _logged(client, run_id, operation)
    registry.register(client, run_id, model_id, operation["name"], operation["trained"])


def _alias(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    model_id = _logged(client, run_id, operation)
    registry.point_alias(client, run_id, model_id, operation["name"], operation["alias"])


def _logged(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> str:
    model_id = registry.logged_model_id(client, run_id, operation["key"])
    if model_id is None:
        raise registry.missing("the run has no logged model that could be registered")
    return model_id


def _end(client: mlflow.MlflowClient, run_id: str, operation: Mapping[str, Any]) -> None:
    client.set_terminated(run_id, operation["status"], operation["end_time"])
    if client.get_run(run_id).info.status != operation["status"]:
        raise no_mlflow()


_PERFORMERS: dict[str, Callable[[mlflow.MlflowClient, str, Mapping[str, Any]], None]] = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "artifact": _artifact,
    "text": _text,
    "input": _input,
    "model": _model,
    "register": _register,
    "alias": _alias,
    "end": _end,
}


def find_fault(client: mlflow.MlflowClient, run_id: str) -> None:
    """See that a run can be recorded to; what an operation is refused for lies elsewhere then.

    Raises
    ------
    UnavailableError
        If the run or its experiment was deleted, or the store does not know the run.
    Exception
        Whatever MLflow raises where it does not answer.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnavailableError(
            f"MLflow does not know the run {run_id}",
            "Was its store replaced, or the run deleted for good (`mlflow gc`)? Bring back the store, or delete what"
            f" waits: mlflow_pending/{run_id}.",
        ) from error
    if run.info.run_id != run_id:
        raise no_mlflow()
    require_active(client.get_experiment(run.info.experiment_id))
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UnavailableError(
            f"the run {run.info.run_name} ({run_id}) was deleted",
            f"Restore it (`mlflow runs restore --run-id {run_id}`), or delete what waits for it: mlflow_pending/{run_id}.",
        )
