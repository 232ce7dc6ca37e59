"""What a network was trained with follows it, and nothing is trained or called trained that was not."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from weathermill.errors import CheckpointError, NonFiniteError, TrainingInterruptedError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.files import sealed_json, unseal_json
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import TrainConfig, train
from weathermill.training.history import Phase, changed, describe, go_on, history_digest
from weathermill.training.tracker import NullTracker

MODEL = ModelConfig(base_channels=4, depth=1)
# The store's training split gives six batches of four.
STEPS = 6


def run(store, folder, *, digests=None, resume=False, stop_at=None, **changes):
    done = [0]

    def progress(step, total, text):
        done[0] = step

    return train(
        store,
        MODEL,
        TrainConfig(**{"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, **changes}),
        CheckpointManager(folder, digests=digests),
        NullTracker(),
        device="cpu",
        resume=resume,
        progress=progress,
        stop_requested=lambda: stop_at is not None and done[0] == stop_at,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def phases(result):
    return [
        (p["first_epoch"], p["first_step"], p["parameters"]["learning_rate"])
        for p in result.forecaster.trained_with["phases"]
    ]


def test_an_uninterrupted_training_has_one_phase_in_checkpoint_model_and_file(store, tmp_path):
    result = run(store, tmp_path / "c", digests={"code": "a"})
    assert phases(result) == [(1, 0, 3e-3)]
    (phase,) = CheckpointManager(tmp_path / "c").newest().phases
    assert phase.digests == {"code": "a"}
    assert phase.parameters["batch_size"] == 4
    result.forecaster.save(tmp_path / "model")
    read = Forecaster.load(tmp_path / "model").trained_with
    assert read == json.loads(json.dumps(result.forecaster.trained_with))
    assert (read["epochs"], read["steps"], read["best_epoch"]) == (2, 2 * STEPS, result.best_epoch)


def test_the_same_training_resumed_has_the_file_of_one_that_was_not_interrupted(store, tmp_path):
    run(store, tmp_path / "a", digests={"code": "a"}).forecaster.save(tmp_path / "whole")
    with pytest.raises(TrainingInterruptedError):
        run(store, tmp_path / "b", digests={"code": "a"}, stop_at=4)
    run(store, tmp_path / "b", digests={"code": "a"}, resume=True).forecaster.save(tmp_path / "resumed")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


@pytest.mark.parametrize("change", [{"learning_rate": 1e-3}, {"weight_decay": 0.1}, {"schedule": "cosine"}])
def test_a_complete_training_is_not_called_one_with_other_parameters(store, tmp_path, change):
    run(store, tmp_path / "c", epochs=1)
    before = names(tmp_path / "c")
    with pytest.raises(CheckpointError) as caught:
        run(store, tmp_path / "c", epochs=1, resume=True, **change)
    assert (
        f"The training is complete (it has all 1 epochs): nothing would be trained with what changed since ({next(iter(change))}: "
        in str(caught.value)
    )
    assert "train.resume=false" in str(caught.value)
    assert names(tmp_path / "c") == before


def test_fewer_epochs_than_there_are_is_refused(store, tmp_path):
    run(store, tmp_path / "c", epochs=2)
    with pytest.raises(
        CheckpointError, match=r"has 2 complete epochs \(12 steps\), and train\.epochs asks for 1"
    ):
        run(store, tmp_path / "c", epochs=1, resume=True)


def test_a_stopped_training_is_not_shortened_to_less_than_it_has(store, tmp_path):
    with pytest.raises(TrainingInterruptedError):
        run(store, tmp_path / "c", epochs=3, stop_at=STEPS + 2)
    with pytest.raises(
        CheckpointError, match=r"has 1 complete epochs \(8 steps\), and train\.epochs asks for 1"
    ):
        run(store, tmp_path / "c", epochs=1, resume=True)


def test_more_epochs_with_another_rate_are_a_second_phase(store, tmp_path, caplog):
    run(store, tmp_path / "c", epochs=1)
    with caplog.at_level(logging.WARNING):
        result = run(store, tmp_path / "c", epochs=2, learning_rate=1e-3, resume=True)
    assert "From step 7 on this is another training: learning_rate: 0.003 then, 0.001 now" in caplog.text
    assert phases(result) == [(1, 0, 3e-3), (2, STEPS, 1e-3)]
    assert [row["learning_rate"] for row in result.history] == [3e-3, 1e-3]
    told = [Phase.from_dict(p) for p in result.forecaster.trained_with["phases"]]
    assert describe(told, result.steps) == [
        "from epoch 1 (steps 1 to 6): epochs 1, learning_rate 0.003, schedule constant, weight_decay 1e-05, batch_size 4",
        "from epoch 2 (steps 7 to 12): epochs 2 (before: 1), learning_rate 0.001 (before: 0.003)",
    ]
    # The history goes on with the next resumption, and has no third phase without a change.
    assert len(phases(run(store, tmp_path / "c", epochs=2, learning_rate=1e-3, resume=True))) == 2


def test_other_code_is_a_phase_of_its_own_and_refused_where_nothing_is_left_to_train(store, tmp_path):
    run(store, tmp_path / "c", epochs=1, digests={"code": "a", "params:train": "1"})
    result = run(store, tmp_path / "c", resume=True, digests={"code": "b", "params:train": "2"})
    assert len(phases(result)) == 2
    (_, second) = (Phase.from_dict(p) for p in result.forecaster.trained_with["phases"])
    assert describe([_, second], 12)[1].endswith("epochs 2 (before: 1), other code")
    with pytest.raises(CheckpointError, match=r"what changed since \(other code\)"):
        run(store, tmp_path / "c", resume=True, digests={"code": "c", "params:train": "2"})


def test_a_training_that_patience_ended_is_complete(store, tmp_path):
    options = {"epochs": 8, "learning_rate": 0.3, "patience": 1}
    result = run(store, tmp_path / "c", **options)
    assert len(result.history) < 8
    with pytest.raises(CheckpointError, match=r"train\.patience ends it"):
        run(store, tmp_path / "c", resume=True, **{**options, "learning_rate": 0.1})


def test_losses_of_other_validation_windows_are_not_compared(store, tmp_path):
    options = {"rollout": (1, 1, 2)}
    run(store, tmp_path / "c", epochs=2, **options)
    with pytest.raises(CheckpointError, match=r"validation_steps: 1 then, 2 now") as caught:
        run(store, tmp_path / "c", epochs=3, resume=True, **options)
    assert "train.validation_rollout=1" in str(caught.value)
    assert (
        run(store, tmp_path / "c", epochs=3, resume=True, validation_rollout=1, **options).steps == 3 * STEPS
    )


def test_a_checkpoint_of_an_older_version_has_an_unknown_history(store, tmp_path):
    run(store, tmp_path / "c", epochs=1, digests={"code": "a"})
    for path in (tmp_path / "c").glob("*/manifest.json"):
        manifest = unseal_json(path.read_bytes())
        del manifest["phases"]
        path.write_bytes(sealed_json(manifest))
    with pytest.raises(CheckpointError, match=r"what changed since \(other history\)"):
        run(store, tmp_path / "c", epochs=1, resume=True, digests={"code": "a"})
    result = run(store, tmp_path / "c", epochs=2, resume=True, digests={"code": "a"})
    told = describe([Phase.from_dict(p) for p in result.forecaster.trained_with["phases"]], result.steps)
    assert told[0] == "from epoch 1 (steps 1 to 6): unknown (from a checkpoint of an older version)"


def test_a_phase_without_a_step_leaves_no_trace():
    first, second = {"learning_rate": 1.0}, {"learning_rate": 2.0}
    history = go_on((), 0, 0, first, {})
    history = go_on(history, 3, 30, second, {})
    assert [p.first_step for p in history] == [0, 30]
    # Nothing was trained since step 30: the first parameters again are no third phase.
    assert go_on(history, 3, 30, first, {}) == history[:1]
    assert go_on(history, 3, 30, {"learning_rate": 3.0}, {})[-1] == Phase(4, 30, {"learning_rate": 3.0}, {})


def test_histories_differ_by_what_was_trained_with_what_and_when():
    a, b = {"code": "a"}, {"code": "b"}
    histories = [
        go_on((), 0, 0, {}, a),
        go_on((), 0, 0, {}, b),
        go_on(go_on((), 0, 0, {}, a), 1, 10, {}, b),
        go_on(go_on((), 0, 0, {}, b), 1, 10, {}, a),
        go_on(go_on((), 0, 0, {}, a), 2, 20, {}, b),
    ]
    assert len({history_digest(history) for history in histories}) == 5
    assert go_on(histories[0], 1, 10, {"told": "otherwise"}, a) == histories[0]
    assert changed(histories[2][0], histories[2][1]) == ["code"]


def test_a_training_that_fails_at_once_leaves_the_checkpoints_of_the_one_before(store, tmp_path, monkeypatch):
    run(store, tmp_path / "c", epochs=1)
    before = names(tmp_path / "c")
    original = Forecaster.from_store

    def broken(*args, **options):
        forecaster = original(*args, **options)
        with torch.no_grad():
            next(forecaster.parameters()).fill_(float("nan"))
        return forecaster

    with monkeypatch.context() as patch:
        patch.setattr(Forecaster, "from_store", broken)
        for _ in range(2):
            with pytest.raises(NonFiniteError):
                run(store, tmp_path / "c", epochs=1, seed=1)
    assert names(tmp_path / "c") == before
    assert run(store, tmp_path / "c", epochs=2, resume=True).resumed_at == STEPS


def test_a_training_killed_before_its_first_step_does_not_drive_out_the_one_before(store, tmp_path):
    run(store, tmp_path / "c", epochs=1)
    for seed in (1, 2):
        manager = CheckpointManager(tmp_path / "c")
        manager.set_aside()
        manager.save({"seed": seed}, epoch=0, step=0)
    superseded = CheckpointManager(tmp_path / "c" / "superseded").newest()
    assert superseded.step == STEPS


def test_a_model_whose_best_epoch_lies_before_the_change_says_so(store, tmp_path, caplog):
    run(store, tmp_path / "c", epochs=1)
    with caplog.at_level(logging.WARNING):
        result = run(store, tmp_path / "c", epochs=2, learning_rate=5.0, resume=True)
    assert result.best_epoch == 1
    assert "No epoch since the change at step 6 was better than epoch 1" in caplog.text
