"""Stores that become read-only, and disks that become full, while a run is at work."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crashes.checks import Matrix, Outcome, orphans_of, told_plainly
from crashes.moments import CLOSE, Moment
from crashes.project import Run


def may_mount() -> bool:
    """Whether file systems can be mounted here."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def _unmount(place: str) -> None:
    subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Put a read-only view of a folder over it.

    To remount a file system read-only is refused while any file is open for writing; a view over it is not, and what
    is opened from then on is opened in the view.
    """
    with tempfile.TemporaryDirectory() as aside, contextlib.ExitStack() as mounted:
        # Made aside: over the folder, a file might be opened through the view before it is read-only.
        _mount("--bind", str(folder), aside)
        mounted.callback(_unmount, aside)
        _mount("-o", "remount,bind,ro", aside)
        _mount("--bind", aside, str(folder))
        mounted.callback(_unmount, str(folder))
        yield


@contextlib.contextmanager
def small_disk(folder: Path, sample: Path) -> Iterator[None]:
    """Put a file system of its own at ``folder``, with the raw data."""
    _mount("-t", "tmpfs", "-o", "size=300m", "none", str(folder))
    try:
        (folder / "01_raw").mkdir()
        shutil.copy2(sample, folder / "01_raw" / "speedy_t21_sample.nc")
        yield
    finally:
        _unmount(str(folder))


def fill(folder: Path) -> None:
    """Leave no room on a tmpfs: its size becomes what is used."""
    for _ in range(100):
        use = os.statvfs(folder)
        used = (use.f_blocks - use.f_bfree) * use.f_frsize
        # Refused where more has been written since.
        with contextlib.suppress(subprocess.CalledProcessError):
            _mount("-o", f"remount,size={max(used, use.f_frsize)}", str(folder))
            return
    raise SystemExit(f"{folder} cannot be filled")


def made_read_only(matrix: Matrix, stage: str, resume: tuple[str, ...]) -> Outcome | None:
    """Make the stores read-only within a stage; None if there was nothing more to write."""
    project = matrix.project
    project.clear()
    moment = matrix.timeline.draw(stage, matrix.random)
    run = project.start()
    if not moment.wait(run):
        run.wait()
        return None
    at, node = matrix.struck(run)
    with read_only(project.data):
        status = run.wait()
    return _judge(matrix, "stores made read-only", run, at, node, moment, status, resume)


def made_full(matrix: Matrix, stage: str, resume: tuple[str, ...]) -> Outcome | None:
    """Have the disk become full within a stage; None if there was nothing more to write."""
    project = matrix.project
    project.clear()
    moment = matrix.timeline.draw(stage, matrix.random)
    with small_disk(project.data, project.sample):
        run = project.start()
        if not moment.wait(run):
            run.wait()
            return None
        at, node = matrix.struck(run)
        fill(project.data)
        status = run.wait()
        full = matrix.after_crash()
        _mount("-o", "remount,size=300m", str(project.data))
        outcome = _judge(matrix, "disk full", run, at, node, moment, status, resume)
    if outcome is not None:
        outcome.faults = full + outcome.faults
    return outcome


def _judge(
    matrix: Matrix,
    case: str,
    run: Run,
    stage: str,
    node: str,
    moment: Moment,
    status: int,
    resume: tuple[str, ...],
) -> Outcome | None:
    if status == 0 and (stage == CLOSE or not _wrote_later(matrix, node)):
        return None
    outcome = Outcome(case, stage, moment.text(node), status)
    outcome.faults = matrix.after_crash() + orphans_of(run)
    outcome.faults += ["it did not fail"] if status == 0 else told_plainly(run)
    running = matrix.project.running()
    outcome.faults += [f"{len(running)} runs RUNNING at once"] * bool(running)
    outcome.faults += matrix.recover(*resume)
    return outcome


def _wrote_later(matrix: Matrix, node: str) -> bool:
    """Whether something was still to be written; only the last node may have written all it had to."""
    return node != matrix.timeline.order[-1]
