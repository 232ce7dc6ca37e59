"""Runs as the commands take them: an id, the beginning of one, a name, or ``newest``."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from weathermill.errors import TrackingError
from weathermill.redaction import redact
from weathermill.tracking import runs
from weathermill.tracking.answers import explain
from weathermill.tracking.pending import FOLDER, LOCAL_PREFIX, synced_runs
from weathermill.tracking.settings import TrackingSettings

NEWEST = "newest"
_LISTED = 10
_PAGE = 1000
_LONG = re.compile(r"[0-9a-f]{32}")
_REMEDY = "Give the id of a run, a beginning of it that no other has, its name, or `newest`."


def open_store(settings: TrackingSettings, project: Path) -> str:
    """Point MLflow at the store of the project for a command that only reads; return the experiment's id.

    Raises
    ------
    TrackingError
        If MLflow cannot be asked, with the reason.
    """
    try:
        return runs.connect(settings, project)
    except TrackingError:
        raise
    except Exception as error:
        raise _unasked(error) from error


def find_run(
    reference: str,
    *,
    suits: Callable[[Run], bool] | None = None,
    meaning: str = "",
) -> Run:
    """Find a run by its id, the beginning of its id, its name, or as the newest.

    Runs of the experiment that was connected to last go before those of others. An id that a run had before MLflow
    knew it (``local-...``) leads to the run that MLflow made of it.

    Parameters
    ----------
    reference
        What the user gave.
    suits
        Which runs are of use: ``newest`` is the newest of these, and these are listed where none is found.
    meaning
        What they have in common, as in "runs with scores".

    Raises
    ------
    TrackingError
        If there is none, or more than one; it lists the candidates.
    """
    reference = reference.strip()
    if not reference:
        raise TrackingError("no run is given", where=_store(), remedy=_REMEDY)
    project, experiment_id = runs.connected()
    reference = _known_to_mlflow(reference, project)
    try:
        return _find(reference, experiment_id, suits or (lambda run: True), meaning)
    except TrackingError:
        raise
    except Exception as error:
        raise _unasked(error) from error


def _find(reference: str, experiment_id: str | None, suits: Callable[[Run], bool], meaning: str) -> Run:
    client = mlflow.MlflowClient()
    if _LONG.fullmatch(reference.lower()):
        return _of_id(client, reference.lower(), suits, meaning)
    others = [e.experiment_id for e in client.search_experiments() if e.experiment_id != experiment_id]
    known: list[Run] = []
    for experiments in ([experiment_id] if experiment_id is not None else [], others):
        if not experiments:
            continue
        # The newest run of a stranger's experiment is hardly meant.
        of_these = list(_runs_of(client, experiments))
        known += of_these
        if reference == NEWEST:
            found = [run for run in of_these if suits(run)][:1]
        else:
            found = [run for run in of_these if _is_called(run, reference)]
        if len(found) == 1:
            return found[0]
        if found:
            raise TrackingError(
                f"{len(found)} MLflow runs are called {reference!r}:\n    " + listed(found[:_LISTED]),
                where=_store(),
                remedy="Give the id, or more of its beginning.",
            )
        if reference == NEWEST and experiment_id is not None:
            break
    raise _none(reference, known, suits, meaning)


def _is_called(run: Run, reference: str) -> bool:
    return run.info.run_id.startswith(reference.lower()) or run.info.run_name == reference


def _of_id(client: mlflow.MlflowClient, run_id: str, suits: Callable[[Run], bool], meaning: str) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        raise _none(run_id, list(_runs_of(client, experiments)), suits, meaning) from error
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise TrackingError(
            f"the MLflow run {run_id} ({run.info.run_name}) was deleted",
            where=_store(),
            remedy=f"Restore it (`mlflow runs restore --run-id {run_id}`), or give another.",
        )
    return run


def _runs_of(client: mlflow.MlflowClient, experiments: Sequence[str]) -> Iterator[Run]:
    """The active runs of experiments, the newest first."""
    token = None
    while True:
        page = client.search_runs(
            list(experiments),
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["attributes.start_time DESC"],
            max_results=_PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _known_to_mlflow(reference: str, project: Path | None) -> str:
    """Replace an id that a run had before MLflow knew it."""
    if project is None or not reference.startswith(LOCAL_PREFIX):
        return reference
    synced = synced_runs(project)
    waiting = {folder.name for folder in (project / FOLDER).glob(f"{LOCAL_PREFIX}*/")}
    found = sorted(local for local in {*synced, *waiting} if local.startswith(reference))
    if len(found) > 1:
        raise TrackingError(
            f"{len(found)} runs are called {reference!r}: {', '.join(found[:_LISTED])}",
            where=str(project / FOLDER),
            remedy="Give the id, or more of its beginning.",
        )
    if found and found[0] not in synced:
        raise TrackingError(
            f"MLflow does not know the run {found[0]} yet",
            where=str(project / FOLDER / found[0]),
            remedy="`weathermill sync` tells MLflow of it.",
        )
    return synced[found[0]] if found else reference


def _none(reference: str, known: Sequence[Run], suits: Callable[[Run], bool], meaning: str) -> TrackingError:
    names = {run.info.run_name or "" for run in known}
    alike = difflib.get_close_matches(reference, names, n=3)
    candidates = [run for run in known if suits(run) and run.info.run_name in alike] or [
        run for run in known if suits(run)
    ]
    kind = meaning or "runs"
    told = (
        f"; there are these {kind}:\n    {listed(candidates[:_LISTED])}"
        if candidates
        else f", and there are no {kind}"
    )
    return TrackingError(f"there is no MLflow run {reference!r}{told}", where=_store(), remedy=_REMEDY)


def _unasked(error: Exception) -> TrackingError:
    answer = explain(error)
    return TrackingError(f"MLflow cannot be asked: {answer.reason}", where=_store(), remedy=answer.remedy)


def _store() -> str:
    return redact(mlflow.get_tracking_uri())


def started(run: Run) -> str:
    """When a run began, in UTC."""
    return dt.datetime.fromtimestamp(run.info.start_time / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def listed(found: Sequence[Run]) -> str:
    """Runs for choosing among: beginning of the id, start, state and name."""
    return "\n    ".join(
        f"{run.info.run_id[:8]}  {started(run)}  {run.info.status:<8}  {run.info.run_name}" for run in found
    )


def short_id(run_id: str) -> str:
    """The beginning of an id, as tables show it and the commands take it."""
    return run_id[: len(LOCAL_PREFIX) + 8 if run_id.startswith(LOCAL_PREFIX) else 8]
