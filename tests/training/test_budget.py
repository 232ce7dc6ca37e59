from __future__ import annotations

import json

import pytest
import torch

from weathermill.errors import ParameterError, ResourceError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.training import budget as module
from weathermill.training.budget import make_budget
from weathermill.training.config import TrainConfig
from weathermill.training.step import StepConfig
from weathermill.training.tracker import RecordingTracker

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
    budget = case(8 * 2**30)
    budget.log(tracker)
    assert tracker.rows() == [(0, {"memory/predicted_gib": budget.ledger.total / 2**30})]
    folder = tmp_path / "run/artifacts/memory"
    assert json.loads((folder / "ledger.json").read_text())["batch"] == 64
    assert "optimiser" in (folder / "ledger.txt").read_text()
