"""Two runs at once, of one environment and of two."""

from __future__ import annotations

from collections.abc import Iterator

from crashes.checks import Matrix, Outcome, orphans_of


def at_once(matrix: Matrix) -> Iterator[Outcome]:
    """Start two runs together; each must come to what it would have made alone."""
    project = matrix.project
    project.configure(environment="other")
    for case, more in (("two at once", ()), ("two environments", ("--env=other",))):
        project.clear()
        runs = [project.start(), project.start(*more)]
        states = [run.wait() for run in runs]
        outcome = Outcome(case, "all", "from the beginning", "+".join(map(str, states)))
        for run in runs:
            outcome.faults += orphans_of(run)
        if any(states):
            outcome.faults.append("a run failed")
        lines = runs[0].lines()
        if not more:
            if not any("in use by process" in line for line in lines):
                outcome.faults.append("none waited for the other")
            skipped = sum("write_tensors: skipped" in line for line in lines)
            if skipped != 1:
                outcome.faults.append(f"{skipped} runs skipped what the other had made")
        else:
            theirs = {name.replace("/other/", "/sample/"): d for name, d in project.results("other").items()}
            if theirs != matrix.expected:
                outcome.faults.append("the other environment's results differ")
        outcome.faults += matrix.after_recovery(0)
        if any(state != "FINISHED" for (state,) in project.record("select status from runs")):
            outcome.faults.append("a run is not FINISHED")
        yield outcome
