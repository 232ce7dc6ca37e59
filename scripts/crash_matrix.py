"""Crash a run in every way that is known, run again, and see whether anything was lost.

    python scripts/crash_matrix.py                      # every case; about half an hour
    python scripts/crash_matrix.py --each 1 --cases kill,term --stages train,tensors

A small project is made in a temporary folder, with a cut of the embedded sample. Each case starts ``kedro run`` there
(in a forked child that has imported everything already), disturbs it, and looks at what is left; then a plain
``kedro run`` must complete, every other time with ``train.resume=true``. Its results must have the bits of an
undisturbed run.

Signals come at moments drawn uniformly from the time that each stage took in the undisturbed run. Disk-full and
read-only cases mount file systems, for which one must be root; elsewhere they are skipped.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from crashes import pairs, signals, storage, tracking, workers
from crashes.checks import HEADINGS, Matrix, Outcome
from crashes.moments import STAGES
from crashes.project import Project, import_everything

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
CASES = (
    *SIGNALS,
    "rename",
    "early",
    "dask",
    "threads",
    "disk",
    "readonly",
    "sqlite",
    "pairs",
    "server-down",
    "server-dies",
    "server-mute",
    "process",
)


def outcomes(
    matrix: Matrix, cases: list[str], each: int, renames: int, stages: tuple[str, ...]
) -> Iterator[Outcome]:
    """Run the cases; each yields as it is done."""
    for name, number in SIGNALS.items():
        if name in cases:
            yield from signals.spread(matrix, signals.sending(number), stages, each)
    if "rename" in cases:
        yield from signals.at_renames(matrix, renames)
    if "early" in cases:
        yield from signals.early(matrix)
    if "dask" in cases:
        yield from workers.dask_workers(matrix, each)
    if "threads" in cases:
        yield from workers.data_threads(matrix)
    within = tuple(stage for stage in stages if stage in STAGES)
    if "disk" in cases and storage.may_mount():
        yield from signals.spread(matrix, storage.made_full, within)
    if "readonly" in cases and storage.may_mount():
        yield from signals.spread(matrix, storage.made_read_only, within)
    if "sqlite" in cases:
        yield from tracking.locked(matrix)
    if "pairs" in cases:
        yield from pairs.at_once(matrix)
    for kind in ("down", "dies", "mute"):
        if f"server-{kind}" in cases:
            yield tracking.server(matrix, kind)
    if "process" in cases:
        yield in_a_process_of_its_own(matrix)


def in_a_process_of_its_own(matrix: Matrix) -> Outcome:
    """Run as users do, without any fork: the same bits must come out."""
    project = matrix.project
    project.clear()
    (project.path / "tmp").mkdir()
    command = [sys.executable, "-m", "kedro", "run"]
    environment = {**os.environ, "TMPDIR": str(project.path / "tmp")}
    began = time.monotonic()
    result = subprocess.run(command, cwd=project.path, env=environment, capture_output=True)
    where = f"undisturbed ({time.monotonic() - began:.0f} s)"
    return Outcome(
        "a process of its own", "all", where, result.returncode, matrix.after_recovery(result.returncode)
    )


def count(rows: list[Outcome]) -> str:
    """How many rows struck each stage, by case."""
    stages = sorted({row.stage for row in rows}, key=lambda stage: (*signals.ALL, "all").index(stage))
    counts = Counter((row.case, row.stage) for row in rows)
    lines = [f"{'':<24}" + "".join(f"{stage:>11}" for stage in (*stages, "sum"))]
    for case in dict.fromkeys(row.case for row in rows):
        numbers = [counts[case, stage] for stage in stages]
        lines.append(f"{case:<24}" + "".join(f"{n or '-':>11}" for n in (*numbers, sum(numbers))))
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=3, help="times that each signal strikes each stage")
    parser.add_argument("--renames", type=int, default=16, help="kills at moments of renaming")
    parser.add_argument("--cases", default=",".join(CASES), help=f"with commas between: {', '.join(CASES)}")
    parser.add_argument("--stages", default=",".join(signals.ALL), help="with commas between; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="keep the project here")
    arguments = parser.parse_args()
    began = time.monotonic()
    import_everything()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="crash-matrix-"))
    matrix = Matrix(Project(folder / "project"), arguments.seed)
    lengths = "  ".join(f"{stage} {matrix.timeline.length(stage):.2f}" for stage in signals.ALL)
    print(
        f"undisturbed run: {matrix.timeline.seconds:.1f} s ({lengths}), {len(matrix.expected)} result files"
    )
    print(HEADINGS, flush=True)
    rows = []
    stages = tuple(name for name in arguments.stages.split(",") if name)
    for outcome in outcomes(matrix, arguments.cases.split(","), arguments.each, arguments.renames, stages):
        print(outcome.line(), flush=True)
        rows.append(outcome)
    good = sum(not row.faults for row in rows)
    print(f"\n{count(rows)}\n")
    print(f"{good} of {len(rows)} cases hold; {(time.monotonic() - began) / 60:.1f} min")
    if arguments.folder is None and good == len(rows):
        shutil.rmtree(folder)
    sys.exit(good < len(rows))


if __name__ == "__main__":
    main()
