from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from weathermill.errors import CheckpointError, ParameterError
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.config import TrainConfig
from weathermill.training.engine import train
from weathermill.training.objective import make_loss
from weathermill.training.resuming import check_identity, identity
from weathermill.training.tracker import NullTracker, RecordingTracker
from weathermill.training.weighting import LossWeights

TABLE = ChannelTable(
    [
        Channel("geopotential_500", "geopotential", 500.0),
        Channel("geopotential_850", "geopotential", 850.0),
        Channel("temperature_850", "temperature", 850.0),
        Channel("2m_temperature", "2m_temperature"),
        Channel("insolation", "insolation", role="forcing"),
    ]
)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (LossWeights(), [1, 1, 1, 1]),
        (LossWeights({"geopotential": 3, "2m_temperature": 0}), [3, 3, 1, 0]),
        (LossWeights({"geopotential": 3, "geopotential_850": 5}), [3, 5, 1, 1]),
        (LossWeights(levels="pressure", surface=0.1), [0.5, 0.85, 0.85, 0.1]),
        (LossWeights(levels={850: 4}), [1, 4, 4, 1]),
        (LossWeights({"temperature": 2}, {500: 0.5}, 3), [0.5, 1, 2, 3]),
    ],
)
def test_weights_are_the_product_of_variable_and_level_with_mean_one(weights, expected):
    expected = np.array(expected, dtype=float)
    np.testing.assert_allclose(weights.resolve(TABLE), expected / expected.mean(), rtol=1e-14)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"variables": {"geopotentail": 2}},
            r"'geopotentail'.*did you mean 'geopotential'(?s:.*)Choose among 2m",
        ),
        ({"variables": {"insolation": 2}}, "'insolation', which is no predicted"),
        ({"levels": {700: 2}}, r"level 700 hPa(?s:.*)Choose among 500, 850 hPa"),
        ({"levels": "presure"}, "'presure'; they are 'pressure'"),
        ({"variables": {"temperature": -1}}, "weight of temperature in the loss is -1"),
        ({"surface": float("nan")}, "weight of surface"),
        ({"variables": {"geopotential": 0, "temperature": 0}, "surface": 0}, "weigh nothing"),
    ],
)
def test_wrong_weights_are_refused_by_name(weights, message):
    with pytest.raises(ParameterError, match=message):
        LossWeights(**weights).resolve(TABLE)


def run(store, tracker=None, **changes):
    config = TrainConfig(**{"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, **changes})
    model = ModelConfig(base_channels=4, depth=1)
    return train(store, model, config, None, tracker or NullTracker(), progress=False)


def test_a_training_uses_them_and_puts_them_on_record(store, tmp_path):
    tracker = RecordingTracker(tmp_path / "run")
    changes = {"loss_weights": LossWeights(levels={500: 3.0}), "loss": "huber", "huber_delta": 0.5}
    weighted = run(store, tracker, **changes, spectral_weight=0.2, spectral_variables=["geopotential_850"])
    table = list(csv.DictReader(io.StringIO(next(tmp_path.rglob("loss_weights.csv")).read_text())))
    assert [row["channel"] for row in table] == ["geopotential_500", "geopotential_850"]
    assert [float(row["weight"]) for row in table] == [1.5, 0.5]
    assert [float(row["spectral_weight"]) for row in table] == [0.0, 0.2]
    # What counts as an error of one: the standard deviation of the tendency, in physical units.
    np.testing.assert_allclose([float(r["error_unit"]) for r in table], store.tendency_std[:2], rtol=1e-5)
    assert weighted.history[-1]["train_loss"] != run(store, **changes).history[-1]["train_loss"]
    loss = make_loss(TrainConfig(**changes), store)
    assert (loss.kind, loss.delta) == ("huber", 0.5)
    np.testing.assert_allclose(loss.channel_weights, [1.5, 0.5])


@pytest.mark.parametrize("target", ["tendency", "state"])
def test_errors_are_counted_in_the_unit_asked_for(store, target):
    config = TrainConfig(epochs=1, batch_size=4)
    results = {}
    for unit in (None, "tendency", "state"):
        tracker = NullTracker()
        model = ModelConfig(base_channels=4, depth=1, target=target)
        changes = TrainConfig(epochs=1, batch_size=4, error_unit=unit, learning_rate=1e-12)
        results[unit] = train(store, model, changes, None, tracker, progress=False).history[0]["train_loss"]
    assert results[None] == pytest.approx(results[target], rel=1e-5)
    ratio = (store.std / store.tendency_std)[:2] ** 2
    assert ratio.min() < results["tendency"] / results["state"] < ratio.max()
    assert config.error_unit is None


def test_a_resumed_training_must_have_the_same_loss():
    model = ModelConfig()
    plain = identity("s", model, TrainConfig())
    assert not {"loss_weights", "huber_delta", "error_unit", "spectral_weight"} & set(plain)
    for changes in (
        {"loss_weights": LossWeights({"a": 2})},
        {"huber_delta": 2.0},
        {"error_unit": "state"},
        {"spectral_weight": 0.5},
    ):
        other = identity("s", model, TrainConfig(**changes))
        for saved, now in ((plain, other), (other, plain)):
            with pytest.raises(CheckpointError, match=next(iter(changes))):
                check_identity(saved, now)
    assert check_identity(plain, plain) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_weights": [1.0], "loss_weights": LossWeights({"a": 2})}, "both given"),
        ({"error_unit": "kelvin"}, "'kelvin'; it is one of tendency, state"),
        ({"huber_delta": 0.0}, "huber_delta must be positive"),
        ({"spectral_weight": -1.0}, "spectral_weight not negative"),
    ],
)
def test_faults_of_the_configuration(changes, message):
    with pytest.raises(ParameterError, match=message):
        TrainConfig(**changes)


def test_an_unknown_spectral_variable_is_refused(store):
    with pytest.raises(ParameterError, match=r"train\.spectral_variables names 'temperature'"):
        run(store, spectral_weight=1.0, spectral_variables=["temperature"])
