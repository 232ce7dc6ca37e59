"""Telling MLflow what earlier runs could not, and saying what it still does not have."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from weathermill.tracking import operations, runs
from weathermill.tracking.answers import explain
from weathermill.tracking.operations import Operation
from weathermill.tracking.pending import (
    FOLDER,
    LOCAL_PREFIX,
    REFUSED,
    read_calls,
    run_of,
    store_of,
    waiting_calls,
)
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOver:
    """What MLflow does not have of one run.

    Parameters
    ----------
    run_id
        The run.
    folder
        Where it is kept.
    waiting
        What will be taken later.
    reason, remedy
        Why it waits, and what to do.
    refused
        What will never be taken as it is, each with its ``reason``.
    """

    run_id: str
    folder: Path
    waiting: list[Operation] = field(default_factory=list)
    reason: str = ""
    remedy: str = ""
    refused: list[Operation] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Say by name what it is, and why."""
        if self.waiting:
            yield f"waits: run {self.run_id}: {operations.count_in_words(self.waiting)}: {self.reason}"
            if self.remedy:
                yield f"  -> {self.remedy}"
        for operation in self.refused:
            yield f"refused: run {self.run_id}: {operations.in_words(operation)}: {operation['reason']}"
        if self.refused:
            yield (
                f"  -> It is kept in {self.folder / REFUSED}. Mend the cause and give `weathermill sync"
                " --retry-refused`, or delete that folder to do without."
            )


@dataclass
class Delivery:
    """What came of telling MLflow.

    Parameters
    ----------
    complete
        Runs that MLflow has all of now.
    left
        What it does not have.
    killed
        Runs of processes that are gone, which are KILLED now.
    fault
        Why runs of processes that are gone could not be looked for; empty where they could, or `left` says it.
    """

    complete: list[str] = field(default_factory=list)
    left: list[LeftOver] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    fault: str = ""

    @property
    def all_told(self) -> bool:
        """Whether MLflow has everything."""
        return not self.left and not self.fault


def send_left_overs(
    settings: TrackingSettings, project: Path, *, anywhere: bool = False, retry_refused: bool = False
) -> Delivery:
    """Tell MLflow what earlier runs could not, where no process is at work on it.

    Parameters
    ----------
    settings, project
        Of whoever asks.
    anywhere
        Whether runs that were begun without a server may be made in this store although another was meant. Runs that
        another store knows are always left to it.
    retry_refused
        Whether what was refused for good is tried once more.
    """
    delivery = Delivery()
    for folder in sorted((project / FOLDER).glob("*/")):
        meant = store_of(folder)
        elsewhere = bool(meant) and meant != settings.digest(project)
        if elsewhere and not (anywhere and folder.name.startswith(LOCAL_PREFIX)):
            logger.info("%s waits for another tracking store: `weathermill sync --env` tells it", folder)
            delivery.left.append(_untouched(folder, "it is meant for another tracking store", _ELSEWHERE))
            continue
        _send(settings, project, folder, delivery, retry_refused=retry_refused)
    return delivery


_ELSEWHERE = "`weathermill sync --env=NAME` with the environment, or the MLFLOW_TRACKING_URI, that the run was made with."


def _send(
    settings: TrackingSettings, project: Path, folder: Path, delivery: Delivery, *, retry_refused: bool
) -> None:
    tracker = MLflowTracker(run_of(folder), project=project, settings=settings, folder=folder)
    pending = tracker.pending
    if not pending.usable:
        delivery.left.append(_untouched(folder, "a process is at work on it", "That process tells it."))
        return
    if retry_refused and pending.refused:
        pending.try_refused_again()
    number = len(pending)
    if number:
        tracker.flush(insist=True)
    if not pending:
        pending.save()
    if pending or pending.refused:
        reason = tracker.reason
        delivery.left.append(
            LeftOver(
                tracker.run_id,
                folder,
                list(pending),
                reason.reason if reason else "",
                reason.remedy if reason else "",
                pending.refused,
            )
        )
    else:
        delivery.complete.append(tracker.run_id)
        logger.info("MLflow was told the rest of run %s (%d entries)", tracker.run_id, number)
    pending.release()


def _untouched(folder: Path, reason: str, remedy: str) -> LeftOver:
    refused = read_calls(folder / REFUSED / "calls.jsonl")
    return LeftOver(run_of(folder), folder, waiting_calls(folder), reason, remedy, refused)


def synchronise(settings: TrackingSettings, project: Path, *, retry_refused: bool = False) -> Delivery:
    """Tell MLflow all that waits, and close the runs of processes that are gone.

    Nothing is raised where MLflow does not answer: what came of it says so.
    """
    delivery = send_left_overs(settings, project, anywhere=True, retry_refused=retry_refused)
    try:
        delivery.killed = runs.close_abandoned(runs.connect(settings, project))
    except Exception as error:
        answer = explain(error)
        # Mostly it is what the runs wait for, and told with them.
        known = any(left.reason == answer.reason for left in delivery.left)
        delivery.fault = "" if known else str(answer)
    return delivery
