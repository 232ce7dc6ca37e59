"""What must hold after a crash, and after the run that follows it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from crashes.moments import Timeline
from crashes.project import MODULES, SMALL, Project, Run, import_everything, write_modules

#: For the run after a crash, which then goes on with a training that was interrupted.
RESUME = ("--params", "train.resume=true")


@dataclass
class Outcome:
    """What came of one case.

    Parameters
    ----------
    case
        Its name.
    stage
        The stage that was struck.
    where
        When it struck.
    status
        Exit status of the disturbed run.
    faults
        What did not hold; empty is good.
    """

    case: str
    stage: str
    where: str
    status: int | str
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One line of the table."""
        verdict = "ok" if not self.faults else "; ".join(self.faults)
        return f"{self.case:<24} {self.stage:<10} {self.where:<46} {self.status!s:>6}  {verdict}"


HEADINGS = f"{'case':<24} {'stage':<10} {'when':<46} {'status':>6}  verdict"


class Matrix:
    """A project, what an undisturbed run of it took and gave, and what to compare after each case.

    Parameters
    ----------
    project
        The project.
    seed
        Of the random moments.
    """

    def __init__(self, project: Project, seed: int = 0) -> None:
        self.project = project
        self.random = random.Random(seed)
        project.clear()
        first = project.start(sabotage=write_modules(project.path))
        if first.wait() != 0:
            raise SystemExit(f"the undisturbed run failed; see {project.log}")
        import_everything((project.path / MODULES).read_text(encoding="utf-8").split())
        project.keep_record()
        #: Epochs in the record that every run finds.
        self.told = project.record("select count(*) from metrics where key = 'validation/loss'")[0][0]
        # Again, now that nothing has to be compiled, imported or made for the first time.
        project.clear()
        self.timeline = Timeline(project.start())
        self.expected = project.results()

    def struck(self, run: Run) -> tuple[str, str]:
        """The stage that a run was at when it ended, and the node."""
        piece = self.timeline.struck(run.lines())
        return piece.stage, piece.node

    def after_crash(self) -> list[str]:
        """What does not hold right after a crash: whatever has its final name must be whole."""
        now = self.project.results()
        faults = []
        for store in sorted({_store_of(name) for name in now}):
            files = {name: digest for name, digest in now.items() if _store_of(name) == store}
            if files != {name: d for name, d in self.expected.items() if _store_of(name) == store}:
                faults.append(f"{store} is not whole")
        return faults

    def after_recovery(self, status: int, database: str = "mlflow.db") -> list[str]:
        """What does not hold after the next run."""
        faults = [] if status == 0 else [f"the next run ended with {status}"]
        now = self.project.results()
        if now != self.expected:
            different = sorted(k for k in {*now, *self.expected} if now.get(k) != self.expected.get(k))
            faults.append(f"{len(different)} results differ, such as {different[0]}")
        if running := self.project.running(database):
            faults.append(f"{len(running)} runs stay RUNNING")
        if left := self.project.left_overs():
            faults.append(f"left over: {left[0]}" + (f" and {len(left) - 1} more" if len(left) > 1 else ""))
        return faults + self.doubles(database)

    def doubles(self, database: str = "mlflow.db") -> list[str]:
        """Whether MLflow was told something twice, or a finished training lacks epochs."""
        faults = []
        repeated = self.project.record(
            "select key, step, count(*) from metrics where key like 'train/%' or key like 'validation/%' "
            "group by run_uuid, key, step having count(*) > 1",
            database,
        )
        if repeated:
            faults.append(f"{repeated[0][0]} of step {repeated[0][1]} was told {repeated[0][2]} times")
        epochs = self.project.record(
            "select r.name, count(*) from runs r join metrics m on m.run_uuid = r.run_uuid "
            "where m.key = 'validation/loss' and r.status = 'FINISHED' group by r.run_uuid",
            database,
        )
        faults += [
            f"a finished run has {number} epochs, not {SMALL['train']['epochs']}"
            for _, number in epochs
            if number != SMALL["train"]["epochs"]
        ]
        return faults

    def recover(self, *arguments: str, database: str = "mlflow.db") -> list[str]:
        """Run again, and see what does not hold then."""
        return self.after_recovery(self.project.run(*arguments), database)


def orphans_of(run: Run) -> list[str]:
    """Processes that outlived a run, as faults."""
    left = run.orphans()
    return [f"{len(left)} orphans"] if left else []


def told_plainly(run: Run) -> list[str]:
    """Whether a run that failed said why with an error of ours, as faults."""
    if any(re.search(r"Error: WM\d{3} |: WM\d{3} ", line) for line in run.lines()):
        return []
    return ["no plain error was told"]


def _store_of(name: str) -> str:
    return "/".join(Path(name).parts[:3])
