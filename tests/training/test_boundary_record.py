"""A training says what it takes to lie beyond the edges of the grid."""

from __future__ import annotations

import json
import logging

import pytest

from weathermill.errors import ModelError
from weathermill.models.registry import ModelConfig
from weathermill.training.config import TrainConfig
from weathermill.training.engine import train
from weathermill.training.tracker import RecordingTracker


def test_the_boundary_in_force_is_logged_and_on_record(store, tmp_path, caplog):
    model = ModelConfig(base_channels=8, depth=1)
    with caplog.at_level(logging.INFO):
        result = train(
            store,
            model,
            TrainConfig(epochs=1, batch_size=8),
            None,
            RecordingTracker(tmp_path / "run"),
            progress=False,
        )
    assert "Boundary of the grid: auto: sphere, periodic in longitude" in caplog.text
    assert json.loads((tmp_path / "run" / "params.json").read_text())["edges"] == "sphere"
    assert result.forecaster.config.edges.is_sphere


def test_a_sphere_on_a_hemisphere_is_refused_before_a_step(store, tmp_path):
    store.latitude = (store.latitude + 90.0) / 2
    config = ModelConfig(base_channels=8, depth=1, boundary="sphere")
    tracker = RecordingTracker(tmp_path / "run")
    with pytest.raises(ModelError, match="latitudes from 90 to 0 degrees do not reach both poles"):
        train(store, config, TrainConfig(epochs=1, batch_size=8), None, tracker, progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
