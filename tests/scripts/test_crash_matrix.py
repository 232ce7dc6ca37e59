"""A part of the crash matrix; ``scripts/crash_matrix.py`` strikes every stage, many times."""

from __future__ import annotations

import importlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.crash
def test_whole_runs_survive(tmp_path):
    """Every kind of disturbance once, those that have a stage to strike in two stages."""
    cases = "kill,term,int,rename,early,dask,threads,disk,readonly,sqlite,pairs"
    words = ["--each=1", "--renames=2", "--stages=train,evaluate", f"--cases={cases}", f"--folder={tmp_path}"]
    result = subprocess.run(
        [sys.executable, str(SCRIPTS / "crash_matrix.py"), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = re.search(r"^(\d+) of (\d+) cases hold", result.stdout, re.MULTILINE)
    assert rows is not None and rows[1] == rows[2] and int(rows[1]) > 20


@pytest.fixture
def moments(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("crashes.moments")


@pytest.fixture
def timeline(moments):
    timeline = object.__new__(moments.Timeline)
    timeline.order = ["ingest", "regrid", "compute_statistics", "report_regridding"]
    timeline.pieces = [
        moments.Piece("begin", "begin", "", 1.0),
        moments.Piece("ingest", "ingest", "planned", 2.0),
        moments.Piece("regrid", "regrid", "Completed node: ingest$", 1.0),
        moments.Piece("normalise", "compute_statistics", "Completed node: regrid$", 5.0),
        moments.Piece("regrid", "report_regridding", "Completed node: compute_statistics$", 3.0),
        moments.Piece("close", "close", "Completed node: report_regridding$", 0.5),
    ]
    return timeline


def test_moments_are_drawn_uniformly_from_all_that_a_stage_does(timeline):
    chance = random.Random(1)
    drawn = [timeline.draw("regrid", chance) for _ in range(400)]
    assert timeline.length("regrid") == 4.0
    assert {moment.piece.node for moment in drawn} == {"regrid", "report_regridding"}
    assert 260 < sum(moment.piece.node == "report_regridding" for moment in drawn) < 340
    assert all(0 <= moment.seconds <= moment.piece.seconds for moment in drawn)


def test_what_was_struck_is_read_from_the_log(timeline):
    planned = "INFO weathermill.incremental.runner: ingest: to run; forced"
    done = ["INFO runner: Completed node: ingest", "INFO runner: Completed node: regrid"]
    assert timeline.struck(["INFO MLflow run all base"]).stage == "begin"
    assert timeline.struck([planned]).node == "ingest"
    assert timeline.struck([planned, *done]).stage == "normalise"
    assert timeline.struck([planned, *done, *done]).stage == "close"
