"""A few cases of the crash matrix; ``scripts/crash_matrix.py`` runs all of them, many times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "crash_matrix.py"


def crash(*words, timeout=600):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "true"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.crash
def test_preparing_survives_kills_at_random_and_at_the_worst_moments(tmp_path):
    result = crash(
        "--pipelines=prepare", "--random=1", "--cases=kill,rename", f"--folder={tmp_path}", timeout=250
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("SIGKILL ") == 2 and "cases hold" in result.stdout


@pytest.mark.crash
@pytest.mark.parametrize("case", ["term,int", "disk,readonly", "sqlite", "server-down", "server-dies"])
def test_whole_runs_survive(tmp_path, case):
    result = crash("--random=2", f"--cases={case}", f"--folder={tmp_path}")
    assert result.returncode == 0, result.stdout + result.stderr
