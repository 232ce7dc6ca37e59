from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_one_command_measures_prints_tables_and_writes_json(tmp_path):
    output = tmp_path / "results.json"
    arguments = ["--device", "cpu-size", "--only", "step,checkpoint", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(output.read_text())
    assert not [r for r in records if "failed" in r]
    steps = {r["case"]: r for r in records if r["benchmark"] == "step"}
    assert {"baseline", "ours", "ours-zeros", "ours-recomputed"} <= set(steps)
    assert steps["baseline"]["speedup"] == 1.0 and steps["ours"]["samples_per_second"] > 0
    assert "samples_per_second" in done.stdout and "loop_waits_ms" in done.stdout


def test_a_case_that_fails_is_a_record_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import run

    (record,) = run.run_one("step", ["no-such-case:4"], timeout=60)
    assert record["failed"]
    (late,) = run.run_one("step", ["ours:4"], timeout=0.01)
    assert "stopped after" in late["failed"]
    assert "failed" in run.table([record, late], ("case", "batch"))


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_with_the_same_bits():
    arguments = ["--small", "--kills", "4", "--seconds", "100"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "resume.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill  4 of 4: at step" in done.stdout and "bit for bit equal" in done.stdout
    record = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert record["kills"] == 4 and record["tensors_different"] == record["kernels_compiled_again"] == 0


def test_kills_are_drawn_over_the_training_after_its_first_checkpoint(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import resume

    steps = resume.draw_steps(200, 35, random.Random(0))
    assert steps == sorted(steps) and len(steps) == 200
    assert set(steps) <= set(range(resume.SAVE_EVERY, 35)) and len(set(steps)) > 20
    assert sum(step % resume.SAVE_EVERY == 0 for step in steps) >= 100
