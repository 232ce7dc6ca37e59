"""A training that is killed again and again ends with the same bits as one that is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.tracker import RecordingTracker

MEASURED = ("speed/", "feed/")


def crash(folder, kills, seed, tier):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("crash_harness.py")),
            folder,
            str(kills),
            str(seed),
            tier,
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def series(folder):
    """Each metric's (step, value) pairs in the order of recording."""
    found = defaultdict(list)
    for step, metrics in RecordingTracker(folder / "run").rows():
        for key, value in metrics.items():
            if not key.startswith(MEASURED):
                found[key].append((step, value))
    return dict(found)


def judge(folder):
    reference, crashed = folder / "reference", folder / "crashed"
    assert series(crashed) == series(reference)
    assert len(series(reference)["train/loss"]) > 10
    weights = [load_file(f / "model/model.safetensors") for f in (reference, crashed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    states = [CheckpointManager(f / "checkpoints").latest()[1] for f in (reference, crashed)]
    for key, tensor in states[0]["step"].items():
        assert torch.equal(tensor, states[1]["step"][key]), key
    assert torch.equal(states[0]["random"]["torch"], states[1]["random"]["torch"])
    assert torch.equal(states[0]["noise"], states[1]["noise"])
    drop = ("seconds", "samples_per_second")
    histories = [
        [{k: v for k, v in row.items() if k not in drop and not k.endswith("_share")} for row in s["history"]]
        for s in states
    ]
    assert histories[0] == histories[1]
    assert not list((crashed / "checkpoints").glob("*.partial"))


@pytest.mark.parametrize(("tier", "seed"), [("pinned", 1), ("mapped", 2)])
def test_kill_9_changes_nothing(tmp_path, tier, seed):
    counts = crash(str(tmp_path), 6, seed, tier)
    assert counts["killed"] >= 4
    judge(tmp_path)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    counts = crash(str(tmp_path), 20, 3, "mapped")
    assert counts["killed"] >= 10
    assert counts["during_save"] >= 1
    judge(tmp_path)
