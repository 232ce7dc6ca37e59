"""Runs ``prepare`` alone, then twice at once, then at once in two environments. Prints what came of it, as JSON.

A program of its own, that forks runs which need not import anything any more.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from crashes.project import Project, import_everything


def main(folder: Path) -> None:
    import_everything()
    for name in ("weathermill.pipeline_registry", "weathermill.incremental.runner", "xesmf"):
        importlib.import_module(name)
    project = Project(folder, steps=24)
    project.configure(environment="other")
    for words in ([[]], [[], []], [[], ["--env=other"]]):
        project.clear()
        runs = [project.start("--pipelines=prepare", "--to-nodes=write_tensors", *more) for more in words]
        outcome = {
            "states": [run.wait(150) for run in runs],
            "lines": runs[0].lines(),
            "results": {case: project.results(case) for case in ("sample", "other")},
            "left": project.left_overs(),
            "runs": [state for (state,) in project.record("select status from runs")],
        }
        sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
