"""The life of an MLflow run: opened, described, closed in the state that is true."""

from __future__ import annotations

import logging
import os
import platform
import socket
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import psutil
from mlflow.entities import Experiment, LifecycleStage, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from weathermill.errors import TrackingError
from weathermill.redaction import redact
from weathermill.tracking.answers import UnavailableError, explain, no_mlflow
from weathermill.tracking.database import make_database, require_address, require_schema, require_unlocked
from weathermill.tracking.environment import use_tracking_uri
from weathermill.tracking.settings import TrackingSettings

logger = logging.getLogger(__name__)

_connected: tuple[Path | None, str | None] = (None, None)

SOFTWARE = ("weathermill", "kedro", "torch", "xarray", "dask", "zarr", "xesmf", "numpy", "numba", "mlflow")
PARAM_LENGTH = 6000
TAG_LENGTH = 5000
#: Tag with the fingerprint of what a run trains.
TRAINING = "training.fingerprint"
RESUMED_FROM = "resumed_from.run_id"
#: Tag with the id that a run had before MLflow gave it one.
LOCAL_ID = "local_run_id"

#: The kind makes MLflow's pages open on the table of runs and not on language-model traces.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "One run for each `kedro run`. Compare `rmse/<channel>/<lead time>`, `skill/...` and `validation/loss`; "
        "each run's `model_card.html` tells the rest."
    ),
}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings under dotted names."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def software_versions() -> dict[str, str]:
    """The versions of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in SOFTWARE:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(project: Path) -> dict[str, str]:
    """The commit of the project and whether the work tree differs from it; empty outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            encoding="utf-8",
            errors="replace",
        ).stdout.strip()

    try:
        commit, dirty = git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": str(dirty).lower()}


def connect(settings: TrackingSettings, project: Path) -> str:
    """Point MLflow at the store of the project and return the experiment's id, made if it is new.

    Raises
    ------
    TrackingError
        If the tracking URI, the database that it names or the experiment's id can never do.
    UnavailableError
        If the experiment was deleted, or what answers is no MLflow server.
    Exception
        Whatever MLflow raises where it does not answer or refuses; `weathermill.tracking.answers.explain` explains it.
    """
    uri = settings.resolved_uri(project)
    global _connected
    require_address(uri)
    _connected = (project, None)
    # Also where the next lines refuse it: what is asked for then is not looked for in MLflow's default store.
    use_tracking_uri(uri)
    make_database(uri)
    require_schema(uri, project)
    require_unlocked(uri)
    client = mlflow.MlflowClient()
    if settings.experiment_id is not None:
        experiment = _experiment_of_id(client, settings.experiment_id)
    else:
        experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        experiment = client.get_experiment(_make_experiment(client, settings, project))
    if not experiment.experiment_id:
        raise no_mlflow()
    require_active(experiment)
    _connected = (project, experiment.experiment_id)
    return experiment.experiment_id


def connected() -> tuple[Path | None, str | None]:
    """The project, and the experiment's id, that this process connected to last; None where it has not."""
    return _connected


def _make_experiment(client: mlflow.MlflowClient, settings: TrackingSettings, project: Path) -> str:
    location = settings.resolved_artifacts(project)
    try:
        return client.create_experiment(settings.experiment, artifact_location=location, tags=EXPERIMENT_TAGS)
    except MlflowException as error:
        # Another run may have made it since it was asked for.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        made = client.get_experiment_by_name(settings.experiment)
        if made is None:
            raise
        return made.experiment_id


def _experiment_of_id(client: mlflow.MlflowClient, experiment_id: str) -> Experiment:
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise TrackingError(
            f"MLflow has no experiment with the id {experiment_id!r}",
            where=redact(mlflow.get_tracking_uri()),
            remedy="Correct MLFLOW_EXPERIMENT_ID or `experiment_id` in mlflow.yml; `mlflow experiments search` lists"
            " them.",
        ) from error


def require_active(experiment: Experiment) -> None:
    """Refuse an experiment that was deleted.

    Raises
    ------
    UnavailableError
        If it was.
    """
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UnavailableError(
            f"the experiment {experiment.name!r} was deleted",
            f"Restore it (`mlflow experiments restore --experiment-id {experiment.experiment_id}`), or record to"
            " another: `experiment` in mlflow.yml, or MLFLOW_EXPERIMENT_NAME.",
        )


def close_abandoned(experiment_id: str) -> list[str]:
    """Mark as KILLED the RUNNING runs of this host whose process is gone; return their ids."""
    client = mlflow.MlflowClient()
    abandoned = []
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=200)
    for run in running:
        tags = run.data.tags
        if tags.get("process.host") != socket.gethostname() or "process.id" not in tags:
            continue
        if not _alive(int(tags["process.id"]), float(tags.get("process.started", 0))):
            client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))
            abandoned.append(run.info.run_id)
            logger.warning(
                "MLflow run %s was left RUNNING by a process that is gone: marked KILLED", run.info.run_name
            )
    return abandoned


def close_abandoned_if_possible(experiment_id: str) -> None:
    """Do as `close_abandoned` does, where MLflow answers; otherwise it is left to the next run."""
    try:
        close_abandoned(experiment_id)
    except Exception as error:
        logger.info("runs of processes that are gone could not be closed: %s", explain(error).reason)


def _alive(pid: int, started: float) -> bool:
    """Whether a process is at work: one that has ended stays in the list of processes until its parent asks."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) >= 2.0:
            return False
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        # It is there, but may not be looked at.
        return True


def process_tags() -> dict[str, str]:
    """Tags that tell which process a run belongs to."""
    started = psutil.Process().create_time()
    return {
        "process.host": socket.gethostname(),
        "process.id": str(os.getpid()),
        "process.started": f"{started:.3f}",
    }


def start(
    experiment_id: str,
    *,
    name: str,
    tags: Mapping[str, str],
    continue_run: str | None = None,
    start_time: int | None = None,
) -> Run:
    """Start a run, or go on with the one that an interrupted training began in.

    Parameters
    ----------
    experiment_id
        Where it belongs.
    name, tags
        Of the run.
    continue_run
        A run to go on with, if it is active in the store, did not end well, and is the same training (`TRAINING`).
        Otherwise the new run is tagged with what it follows (`RESUMED_FROM`).
    start_time
        When a new run began, in milliseconds; now if not given.
    """
    client = mlflow.MlflowClient()
    tags = {key: tag_value(value) for key, value in tags.items()}
    if continue_run is None:
        return _new(client, experiment_id, name, tags, start_time)
    if (run := _run_to_continue(client, continue_run, tags.get(TRAINING))) is None:
        return _new(client, experiment_id, name, {**tags, RESUMED_FROM: continue_run}, start_time)
    return _go_on(client, run, {**tags, "resumed": "true"})


def start_once(experiment_id: str, local_id: str, *, tags: Mapping[str, str], **arguments: Any) -> Run:
    """Start a run that was begun without the server, by the id it had until then, as `start` does; once, if repeated."""
    client = mlflow.MlflowClient()
    # A process may have been killed after it made the run and before it noted that.
    made = client.search_runs([experiment_id], f"tags.{LOCAL_ID} = '{local_id}'")
    return made[0] if made else start(experiment_id, tags={**tags, LOCAL_ID: local_id}, **arguments)


def _new(
    client: mlflow.MlflowClient, experiment_id: str, name: str, tags: dict[str, str], start_time: int | None
) -> Run:
    run = client.create_run(experiment_id, start_time=start_time, run_name=name, tags=tags)
    if not run.info.run_id:
        raise no_mlflow()
    return run


def _run_to_continue(client: mlflow.MlflowClient, run_id: str, training: str | None) -> Run | None:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        logger.warning("MLflow run %s cannot be continued (%s): a new one is started", run_id, error)
        return None
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        why = "was deleted"
    elif run.data.tags.get(TRAINING, training) != training:
        why = "is another training"
    elif run.info.status == "FINISHED":
        why = "is complete"
    else:
        return run
    logger.log(
        logging.WARNING if "deleted" in why else logging.INFO,
        "MLflow run %s (%s) %s: what goes on from its checkpoint is a run of its own, with the tag %s",
        run.info.run_name,
        run_id,
        why,
        RESUMED_FROM,
    )
    return None


def _go_on(client: mlflow.MlflowClient, run: Run, tags: Mapping[str, str]) -> Run:
    client.update_run(run.info.run_id, status="RUNNING")
    client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    return run


def attach(run_id: str, tags: Mapping[str, str]) -> Run:
    """Record to a run that someone else has made, such as ``mlflow run`` (MLFLOW_RUN_ID).

    Raises
    ------
    TrackingError
        If there is no such run, it was deleted, or holds a training that this one does not go on with: the metrics of
        two trainings would be one series, under the parameters of the first.
    """
    client = mlflow.MlflowClient()
    fault = None
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            fault = "was deleted"
        elif tags.get(TRAINING) and (known := run.data.tags.get(TRAINING)):
            if known != tags[TRAINING]:
                fault = "holds another training"
            elif run.info.status == "FINISHED":
                fault = "holds this training, which is complete"
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        fault = "does not exist"
    if fault is not None:
        raise TrackingError(
            f"the MLflow run {run_id}, which MLFLOW_RUN_ID names, {fault}",
            where=redact(mlflow.get_tracking_uri()),
            remedy="Unset MLFLOW_RUN_ID to record to a new run, or set it to a run that is active.",
        )
    return _go_on(client, run, {key: tag_value(value) for key, value in tags.items()})


def tag_value(value: Any) -> str:
    """A tag's value as MLflow takes it: without credentials, and not too long."""
    return redact(str(value))[:TAG_LENGTH]
