from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch

from weathermill.errors import ParameterError, ResourceError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.training import budget as module
from weathermill.training.budget import log_ledger, make_budget
from weathermill.training.config import TrainConfig
from weathermill.training.prediction import predict_for
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig
from weathermill.training.tracker import RecordingTracker
from weathermill.training.trainer import Trainer

CUDA = torch.device("cuda", 0)


@pytest.fixture
def case(tmp_path, make_store, monkeypatch):
    store = make_store(tmp_path / "s", height=48, width=96, dtype="float16")
    forecaster = Forecaster.from_store(store, ModelConfig(base_channels=16, depth=2))

    def plan(free, **changes):
        monkeypatch.setattr(module, "available_device_memory", lambda device: int(free))
        return make_budget(forecaster, store, TrainConfig(batch_size=64, **changes), StepConfig(), CUDA)

    return plan


def test_other_devices_have_no_budget(store):
    forecaster = Forecaster.from_store(store, ModelConfig(base_channels=4, depth=1))
    assert make_budget(forecaster, store, TrainConfig(), StepConfig(), torch.device("cpu")) is None


def test_what_the_step_leaves_is_for_the_data(case):
    budget = case(8 * 2**30)
    assert budget.window_bytes == 64 * 2 * 2 * 48 * 96 * 2
    assert budget.needed > budget.ledger.reserved + 3 * budget.window_bytes
    assert budget.for_data(CUDA) == 8 * 2**30 - budget.needed
    assert case(budget.ledger.reserved).for_data(CUDA) == 0


def test_too_large_a_batch_is_refused_with_what_would_fit(case):
    needed = case(8 * 2**30).ledger.reserved
    with pytest.raises(
        ResourceError, match=r"does not fit the device\. Batch 64 needs .* What would fit: .*batch_size: \d+"
    ):
        case(0.9 * needed)


def test_auto_recomputes_only_where_needed(case):
    plenty = case(8 * 2**30, checkpointing="auto")
    assert not plenty.step.checkpointing
    tight = case(0.99 * plenty.ledger.reserved, checkpointing="auto")
    assert tight.step.checkpointing
    assert tight.ledger.total < plenty.ledger.total
    with pytest.raises(ParameterError, match="checkpointing is 'sometimes'"):
        TrainConfig(checkpointing="sometimes")


def test_the_ledger_goes_on_record(case, tmp_path):
    tracker = RecordingTracker(tmp_path / "run")
    ledger = case(8 * 2**30).ledger
    dry = replace(ledger, parts={**ledger.parts, "unexplained": 2**20}, measured=True)
    log_ledger(ledger, tracker, dry)
    recorded = {"memory/predicted_gib": ledger.total / 2**30, "memory/dry_step_gib": dry.total / 2**30}
    assert tracker.rows() == [(0, recorded)]
    folder = tmp_path / "run/artifacts/memory"
    record = json.loads((folder / "ledger.json").read_text())
    assert record["batch"] == 64 and record["dry_step"]["parts"]["unexplained"] == 2**20
    text = (folder / "ledger.txt").read_text()
    assert "optimiser" in text and "measured: batch 64" in text
    rows = list(csv.DictReader((folder / "ledger.csv").open()))
    assert {row["part"] for row in rows} > set(ledger.parts)
    sizes = [float(row["MiB"]) for row in rows]
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.1)
    assert sizes[-1] == pytest.approx(ledger.reserved / 2**20, abs=1e-3)


def test_a_fresh_training_reports_its_ledger_and_a_resumed_one_does_not(store, tmp_path, case):
    told = []
    for resume in (False, True):
        tracker = RecordingTracker(tmp_path / f"run-{resume}")
        trainer = Trainer(
            store, ModelConfig(base_channels=4, depth=1), TrainConfig(), None, tracker, torch.device("cpu")
        )
        trainer.budget = case(8 * 2**30)
        trainer.start(resume, lambda ledger, measured: told.append((ledger, measured)))
        trainer.close()
        assert (tmp_path / f"run-{resume}/artifacts/memory/ledger.csv").exists() != resume
    assert told == [(trainer.budget.ledger, None)]


def test_a_dry_step_is_taken_where_asked_for(case, monkeypatch):
    taken = []

    def dry(forecaster, batch, step, rollout, rollout_config, device, loss):
        taken.append((batch, rollout, device))
        return replace(predict_for(forecaster, batch, step, rollout, rollout_config, loss), measured=True)

    monkeypatch.setattr(module, "measure", dry)
    assert case(8 * 2**30).measured is None and not taken
    assert case(8 * 2**30, dry_step=True, rollout=(1, 2)).measured.measured
    assert taken == [(64, 2, CUDA)]


def test_room_for_noise_is_kept_beyond_the_peak(case):
    plain, noisy = case(8 * 2**30), case(8 * 2**30, rollout_loss=RolloutConfig(noise_std=0.1))
    assert noisy.ledger.total == plain.ledger.total
    assert noisy.ledger.fragmentation - plain.ledger.fragmentation == 64 * 2 * 48 * 96 * 4
