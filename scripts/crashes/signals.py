"""Signals at random moments of every stage, and kills at the moments of renaming."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crashes.checks import RESUME, Matrix, Outcome, orphans_of
from crashes.moments import BEGIN, CLOSE, STAGES

KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TRIES = 8


#: Strikes a run within a stage, and has the next one resume its training or not; None where that was no row.
Strike = Callable[[Matrix, str, tuple[str, ...]], Outcome | None]


def spread(matrix: Matrix, strike: Strike, stages: tuple[str, ...], each: int = 1) -> Iterator[Outcome]:
    """Strike every stage so many times.

    Where a run was faster or slower than foreseen and was struck in another stage, that row counts for that stage, and
    the stage that was meant is tried again. A run that had ended already is no row.
    """
    number = 0
    for stage in stages:
        # Before the first stage and after the last there is less to lose.
        wanted = each if stage in STAGES else 1
        hits = 0
        for _ in range(_TRIES * wanted):
            if hits >= wanted:
                break
            # Every other training that is struck is gone on with; the others begin anew.
            outcome = strike(matrix, stage, RESUME if number % 2 else ())
            if outcome is not None:
                number += 1
                hits += outcome.stage == stage
                yield outcome


def sending(kind: int) -> Strike:
    """Strike with a signal."""
    return lambda matrix, stage, resume: signalled(matrix, stage, kind, resume)


def signalled(matrix: Matrix, stage: str, kind: int, resume: tuple[str, ...]) -> Outcome | None:
    """Send a signal at a random moment of a stage; None if the run had ended before."""
    project = matrix.project
    project.clear()
    moment = matrix.timeline.draw(stage, matrix.random)
    run = project.start()
    if not moment.wait(run):
        run.wait()
        return None
    run.signal(kind)
    status = run.wait(60)
    at, node = matrix.struck(run)
    if status == 0 and (kind == signal.SIGKILL or at == CLOSE):
        return None
    outcome = Outcome(signal.Signals(kind).name, at, f"{moment.text(node)}, {_then(resume)}", status)
    if status == 0:
        outcome.faults.append("it went on")
    outcome.faults += matrix.after_crash() + orphans_of(run)
    if kind != signal.SIGKILL:
        outcome.faults += [f"{len(project.running())} runs RUNNING at once"] * bool(project.running())
        outcome.faults += [
            f"{left} was left at once" for left in project.left_overs() if left.endswith(".lock")
        ]
    outcome.faults += matrix.recover(*resume)
    return outcome


def _then(resume: tuple[str, ...]) -> str:
    return "then resumed" if resume else "then anew"


def at_renames(matrix: Matrix, number: int) -> Iterator[Outcome]:
    """Kill runs just before or just after something gets its final name, at moments spread over all renames."""
    names = _renames(matrix)
    chosen = sorted(matrix.random.sample(range(len(names)), min(number, len(names))))
    for k, index in enumerate(chosen):
        yield _killed_at(matrix, index, names[index], before=bool(k % 2), resume=RESUME if k % 4 > 1 else ())


def _watch_renames(act: Any) -> None:
    """Have ``act`` called with the target before and after each renaming within the project's data."""
    originals = {"rename": os.rename, "replace": os.replace}
    for name in originals:

        def renaming(source: Any, target: Any, _original: Any = originals[name], **options: Any) -> Any:
            watched = "/data/" in str(Path(target).absolute())
            if watched:
                act(str(target), True)
            result = _original(source, target, **options)
            if watched:
                act(str(target), False)
            return result

        setattr(os, name, renaming)


def _renames(matrix: Matrix) -> list[str]:
    """What an undisturbed run renames, in order."""
    project = matrix.project
    project.clear()
    listing = project.path / "renames.txt"
    listing.write_text("", encoding="utf-8")

    def note(target: str, before: bool) -> None:
        if before:
            with listing.open("a", encoding="utf-8") as file:
                file.write(target + "\n")

    if project.start(sabotage=lambda: _watch_renames(note)).wait() != 0:
        raise SystemExit(f"the undisturbed run failed; see {project.log}")
    return listing.read_text(encoding="utf-8").splitlines()


def _killed_at(matrix: Matrix, index: int, target: str, before: bool, resume: tuple[str, ...]) -> Outcome:
    matrix.project.clear()
    count = 0

    def act(_: str, is_before: bool) -> None:
        nonlocal count
        if count == index and is_before == before:
            os.kill(os.getpid(), signal.SIGKILL)
        count += not is_before

    run = matrix.project.start(sabotage=lambda: _watch_renames(act))
    status = run.wait()
    stage, _ = matrix.struck(run)
    where = f"{'before' if before else 'after'} renaming to {Path(target).name[-24:]}"
    outcome = Outcome("SIGKILL at rename", stage, where, status, matrix.after_crash() + orphans_of(run))
    if status != -signal.SIGKILL:
        outcome.faults.append("it was not struck")
    outcome.faults += matrix.recover(*resume)
    return outcome


def early(matrix: Matrix) -> Iterator[Outcome]:
    """Kill a training that has begun in MLflow but has no checkpoint yet, and go on with it."""
    project = matrix.project
    for kind in KINDS:
        project.clear()

        def sabotage(kind: int = kind) -> None:
            from weathermill.training.checkpoint import CheckpointManager

            def struck(*_: Any, **__: Any) -> None:
                os.kill(os.getpid(), kind)
                # A signal that is put off lets the training come to its first step.
                return original(*_, **__)

            original = CheckpointManager.save
            CheckpointManager.save = struck

        run = project.start(sabotage=sabotage)
        status = run.wait()
        outcome = Outcome(signal.Signals(kind).name, "train", "before its first checkpoint", status)
        outcome.faults = matrix.after_crash() + orphans_of(run) + matrix.recover(*RESUME)
        states = sorted(state for (state,) in project.record("select status from runs"))
        killed = states.count("KILLED")
        if states.count("FINISHED") != len(states) - killed or killed > 1:
            outcome.faults.append(f"the runs are {', '.join(states)}")
        yield outcome


ALL = (BEGIN, *STAGES, CLOSE)
