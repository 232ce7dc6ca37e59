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
from mlflow.entities import Run, RunStatus, RunTag

from weathermill.tracking.database import make_database, require_unlocked
from weathermill.tracking.settings import TrackingSettings

logger = logging.getLogger(__name__)

SOFTWARE = ("weathermill", "kedro", "torch", "xarray", "dask", "zarr", "xesmf", "numpy", "numba", "mlflow")
PARAM_LENGTH = 6000
#: Tag with the fingerprint of what a run trains.
TRAINING = "training.fingerprint"
RESUMED_FROM = "resumed_from.run_id"

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
            ["git", *words], cwd=project, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        commit, dirty = git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": str(dirty).lower()}


def connect(settings: TrackingSettings, project: Path) -> str:
    """Point MLflow at the store of the project and return the experiment's id, made if it is new."""
    uri = settings.resolved_uri(project)
    make_database(uri)
    require_unlocked(uri)
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.get_experiment_by_name(settings.experiment)
    if experiment is None:
        location = settings.resolved_artifacts(project)
        experiment_id = mlflow.create_experiment(
            settings.experiment, artifact_location=location, tags=EXPERIMENT_TAGS
        )
    else:
        experiment_id = experiment.experiment_id
    mlflow.set_experiment(experiment_id=experiment_id)
    return experiment_id


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


def _alive(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 2.0
    except psutil.Error:
        return False


def process_tags() -> dict[str, str]:
    """Tags that tell which process a run belongs to."""
    started = psutil.Process().create_time()
    return {
        "process.host": socket.gethostname(),
        "process.id": str(os.getpid()),
        "process.started": f"{started:.3f}",
    }


def start(experiment_id: str, *, name: str, tags: Mapping[str, str], continue_run: str | None = None) -> Run:
    """Start a run, or go on with the one that an interrupted training began in.

    Parameters
    ----------
    experiment_id
        Where it belongs.
    name, tags
        Of the run.
    continue_run
        A run to go on with, if the store knows it, it did not end well, and it is the same training (`TRAINING`).
        Otherwise the new run is tagged with where it went on from.
    """
    client = mlflow.MlflowClient()
    if continue_run is None:
        return client.create_run(experiment_id, run_name=name, tags=dict(tags))
    try:
        run = client.get_run(continue_run)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning("MLflow run %s cannot be continued (%s): a new one is started", continue_run, error)
        return client.create_run(experiment_id, run_name=name, tags=dict(tags))
    training = tags.get(TRAINING)
    same = run.data.tags.get(TRAINING, training) == training
    if run.info.status == "FINISHED" or not same:
        logger.info(
            "MLflow run %s %s: what goes on from its checkpoint is a run of its own",
            run.info.run_name,
            "is complete" if same else "is another training",
        )
        return client.create_run(experiment_id, run_name=name, tags={**tags, RESUMED_FROM: continue_run})
    client.update_run(continue_run, status="RUNNING")
    resumed = [RunTag(key, str(value)) for key, value in {**tags, "resumed": "true"}.items()]
    client.log_batch(continue_run, tags=resumed)
    return run
