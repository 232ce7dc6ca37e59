"""A record of runs that is locked, down, slow or dying."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crashes.checks import Matrix, Outcome, orphans_of
from crashes.project import SMALL, Run

HELD_SECONDS = 20.0
_EPOCHS = "select count(*) from metrics where key = 'validation/loss'"


def _hold(database: Path, seconds: float) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as connection:
        connection.execute("begin exclusive")
        time.sleep(seconds)
        connection.execute("rollback")


def locked(matrix: Matrix) -> Iterator[Outcome]:
    """Hold MLflow's database locked: all the time, for some seconds within a training, and by a second run."""
    project = matrix.project
    database = project.path / "mlflow.db"
    project.clear()
    holder = _Child(lambda: _hold(database, 600))
    time.sleep(0.3)
    run = project.start()
    status = run.wait(600)
    holder.kill()
    yield _told(matrix, "SQLite locked", "all", "all the time", run, status)

    project.clear()
    run = project.start()
    matrix.timeline.start_of("train").wait(run)
    stage, node = matrix.struck(run)
    holder = _Child(lambda: _hold(database, HELD_SECONDS))
    status = run.wait(600)
    holder.kill()
    where = f"{HELD_SECONDS:.0f} s by another process, from {node} on"
    yield _told(matrix, "SQLite locked", stage, where, run, status)

    yield _by_a_second_run(matrix, database)


def _by_a_second_run(matrix: Matrix, database: Path) -> Outcome:
    """Hold the lock from within a second run, which then does its own work."""
    project = matrix.project
    project.clear()
    project.configure(environment="other")
    run = project.start()
    matrix.timeline.start_of("train").wait(run)
    stage, node = matrix.struck(run)

    def sabotage() -> None:
        threading.Thread(target=_hold, args=(database, HELD_SECONDS)).start()
        time.sleep(0.2)

    second = project.start("--env=other", sabotage=sabotage)
    status, other = run.wait(600), second.wait(600)
    where = f"{HELD_SECONDS:.0f} s by a second run, from {node} on"
    outcome = _told(matrix, "SQLite locked", stage, where, run, status)
    if other != 0:
        outcome.faults.append(f"the second run ended with {other}")
    theirs = {name.replace("/other/", "/sample/"): d for name, d in project.results("other").items()}
    if theirs != matrix.expected:
        outcome.faults.append("the second run's results differ")
    return outcome


def _told(matrix: Matrix, case: str, stage: str, where: str, run: Run, status: int) -> Outcome:
    seconds = time.monotonic() - run.began
    outcome = Outcome(case, stage, where, status)
    outcome.where += f" ({seconds:.0f} s)"
    outcome.faults = matrix.after_crash() + orphans_of(run)
    if status != 0:
        outcome.faults.append("the run itself failed")
    # A second run may have taken over what the first had trained.
    trained = sum(line.endswith("Completed node: train") for line in run.lines())
    outcome.faults += matrix.recover()
    epochs = matrix.project.record(_EPOCHS)[0][0] - matrix.told
    expected = SMALL["train"]["epochs"] * trained
    if epochs != expected:
        outcome.faults.append(f"validation/loss was told {epochs} times, not {expected}")
    return outcome


class _Child:
    """A forked process that does one thing."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.pid = os.fork()
        if not self.pid:
            try:
                act()
            finally:
                os._exit(0)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def server(matrix: Matrix, kind: str) -> Outcome:
    """A tracking server that is down, dies under way, or takes connections and never answers."""
    project = matrix.project
    project.clear()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    project.configure({"tracking_uri": f"http://127.0.0.1:{port}", "artifact_location": None})
    process = mute = None
    stage, where = "all", "all the time"
    try:
        if kind == "dies":
            process = _serve(project.path, port)
        if kind == "mute":
            mute = socket.create_server(("127.0.0.1", port), backlog=50)
        run = project.start()
        if process is not None:
            matrix.timeline.draw("train", matrix.random).wait(run)
            stage, where = matrix.struck(run)
            process.kill()
            process.wait()
        status = run.wait(900)
        outcome = Outcome(f"MLflow server {kind}", stage, where, status)
        outcome.where += f" ({time.monotonic() - run.began:.0f} s)"
        outcome.faults = matrix.after_crash() + orphans_of(run)
        if status != 0:
            outcome.faults.append("the run itself failed")
        if mute is not None:
            mute.close()
        process = _serve(project.path, port)
        outcome.faults += matrix.recover(database="server.db")
        outcome.faults += _record_faults(matrix)
    finally:
        if process is not None:
            process.kill()
            process.wait()
        project.configure()
    return outcome


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    store = ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    artefacts = ["--artifacts-destination", str(folder / "mlartifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *store, *artefacts],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process
        time.sleep(0.2)
    raise SystemExit(f"the MLflow server does not start; see {folder / 'server.log'}")


def _record_faults(matrix: Matrix) -> list[str]:
    """Whether the record of the disturbed run became complete: its metrics and its end."""
    rows = matrix.project.record(
        "select r.run_uuid, r.status, count(m.key) from runs r "
        "left join metrics m on m.run_uuid = r.run_uuid group by r.run_uuid order by r.start_time",
        "server.db",
    )
    if not rows or rows[0][1] != "FINISHED" or rows[0][2] == 0:
        return [f"the record is not complete: {rows[:1]}"]
    epochs = matrix.project.record("select count(*) from metrics where key = 'validation/loss'", "server.db")[
        0
    ][0]
    if epochs != SMALL["train"]["epochs"]:
        return [f"validation/loss was told {epochs} times"]
    return []
