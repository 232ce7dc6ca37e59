from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import threading

import numpy as np
import pytest
import torch

from weathermill.errors import (
    CheckpointError,
    NonFiniteError,
    ParameterError,
    SplitError,
    TrainingInterruptedError,
    UnwritableOutputError,
)
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.training import checkpoint as checkpoint_module
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import TrainConfig, choose_device, train
from weathermill.training.interrupt import deferred_signals
from weathermill.training.progress import ProgressLine
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig
from weathermill.training.tracker import NullTracker, RecordingTracker
from weathermill.training.trainer import Trainer

MODEL = ModelConfig(base_channels=4, depth=1)


def config(**changes):
    return TrainConfig(**{"epochs": 3, "batch_size": 4, "learning_rate": 3e-3, **changes})


def run(store, folder=None, tracker=None, **changes):
    options = {k: changes.pop(k) for k in ("resume", "progress", "stop_requested", "device") if k in changes}
    checkpoints = CheckpointManager(folder) if folder else None
    return train(
        store,
        MODEL,
        config(**changes),
        checkpoints,
        tracker or NullTracker(),
        **{"progress": False, **options},
    )


def test_training_learns_and_gives_the_best_weights(store, tmp_path):
    result = run(store, tmp_path / "c", epochs=8, learning_rate=1e-2)
    losses = [row["validation_loss"] for row in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert result.best_loss == min(losses)
    assert result.history[result.best_epoch - 1]["validation_loss"] == result.best_loss
    assert not result.forecaster.training
    assert [row["epoch"] for row in result.history] == list(range(1, 9))
    assert result.steps == result.history[-1]["step"] == 8 * 6
    assert result.samples_per_second > 0
    assert 0.99 < sum(result.history[-1][f"{k}_share"] for k in ("waiting", "computing", "optimising")) < 1.01
    trainer = Trainer(store, MODEL, config(epochs=8), None, NullTracker(), torch.device("cpu"))
    trainer.forecaster.load_state_dict(result.forecaster.state_dict())
    assert trainer.validate() == pytest.approx(result.best_loss, rel=1e-6)
    trainer.close()


def test_same_seed_same_bits_other_seed_others(store):
    first, second, third = run(store), run(store), run(store, seed=1)
    a, b, c = (r.forecaster.state_dict() for r in (first, second, third))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_without_checkpoints_the_best_is_the_same(store, tmp_path):
    kept, memory = run(store, tmp_path / "c"), run(store)
    a, b = kept.forecaster.state_dict(), memory.forecaster.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_metrics_reach_the_tracker(store, tmp_path):
    tracker = RecordingTracker(tmp_path / "run")
    result = run(store, tracker=tracker, log_every_steps=1, schedule="cosine", watch_every_steps=4)
    rows = tracker.rows()

    def series(key):
        return [(step, m[key]) for step, m in rows if key in m]

    assert [step for step, _ in series("train/loss")] == list(range(1, 19))
    assert [v for _, v in series("validation/loss")] == [row["validation_loss"] for row in result.history]
    for row in result.history:
        steps = [v for step, v in series("train/loss") if row["step"] - 6 < step <= row["step"]]
        assert row["train_loss"] == pytest.approx(np.mean(steps))
    assert series("train/learning_rate")[-1][1] < series("train/learning_rate")[5][1]
    account = (tmp_path / "run/artifacts/feed/feed.txt").read_text().splitlines()
    assert account[0].startswith("Feed: pinned (")
    assert "waiting" in account[1]
    assert len(account) == 4 + len(result.history)
    assert {"feed/waiting_share", "feed/copying_share", "speed/samples_per_second", "train/grad_norm"} <= {
        key for _, m in rows for key in m
    }


def test_logged_points_average_over_steps(store, tmp_path):
    every, thinned = RecordingTracker(tmp_path / "a"), RecordingTracker(tmp_path / "b")
    run(store, tracker=every, log_every_steps=1)
    run(store, tracker=thinned, log_every_steps=6, watch_every_steps=5)
    losses = [m["train/loss"] for _, m in every.rows() if "train/loss" in m]
    points = [(s, m["train/loss"]) for s, m in thinned.rows() if "train/loss" in m]
    assert [s for s, _ in points] == [6, 12, 18]
    assert [v for _, v in points] == pytest.approx(np.reshape(losses, (3, 6)).mean(axis=1).tolist())


def test_validation_changes_neither_random_streams_nor_statistics(store):
    trainer = Trainer(store, MODEL, config(), None, NullTracker(), torch.device("cpu"))
    before = {k: v.clone() for k, v in trainer.step.state_dict().items()}
    stream = torch.get_rng_state()
    assert trainer.validate() == trainer.validate()
    assert torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in trainer.step.state_dict().items())
    trainer.close()


def test_averaged_weights_are_validated_and_returned(store, tmp_path):
    step = StepConfig(ema_decay=0.5)
    result = run(store, tmp_path / "c", step=step)
    state = CheckpointManager(tmp_path / "c").best()[1]["step"]
    weights = result.forecaster.state_dict()
    for name in (k.removeprefix("ema.") for k in state if k.startswith("ema.")):
        assert torch.equal(weights[name], state[f"ema.{name}"])
        if state[f"model.{name}"].abs().sum() > 0:
            assert not torch.equal(weights[name], state[f"model.{name}"])


def test_rollout_curriculum(store, tmp_path):
    result = run(store, epochs=4, rollout=(1, 2, 3))
    assert [row["rollout"] for row in result.history] == [1, 2, 3, 3]
    assert result.steps == 6 + 6 + 6 + 6


def test_forcings_and_float16_stores(tmp_path, make_store):
    store = make_store(tmp_path / "s", forcing=True, dtype="float16")
    result = run(store, rollout=(2,), feed="mapped")
    assert math.isfinite(result.best_loss)
    assert result.feed["tier"] == "mapped"


def test_patience_stops_early(store):
    result = run(store, epochs=30, learning_rate=1e-9, patience=2, seed=3)
    assert len(result.history) < 30
    assert len(result.history) == result.best_epoch + 2


def test_resume_after_a_stop_equals_an_undisturbed_run(store, tmp_path):
    reference = run(store, tmp_path / "a", RecordingTracker(tmp_path / "ra"))
    done = [0]

    def count(step, total, text):
        done[0] = step

    with pytest.raises(TrainingInterruptedError, match=r"at step 8 of 18; its state is saved"):
        run(
            store,
            tmp_path / "b",
            RecordingTracker(tmp_path / "rb"),
            progress=count,
            stop_requested=lambda: done[0] == 8,
        )
    resumed = run(store, tmp_path / "b", RecordingTracker(tmp_path / "rb"), resume=True)
    assert resumed.resumed_at == 8
    a, b = reference.forecaster.state_dict(), resumed.forecaster.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    again = run(store, tmp_path / "b", RecordingTracker(tmp_path / "rb"), resume=True)
    assert again.resumed_at == 18
    assert again.best_loss == reference.best_loss


def test_resume_without_checkpoints_starts_anew(store, tmp_path):
    assert run(store, tmp_path / "c", resume=True, epochs=1).resumed_at is None


def test_resume_refuses_another_training(store, tmp_path, make_store, caplog):
    run(store, tmp_path / "c", epochs=1)
    with pytest.raises(CheckpointError, match=r"another training \(batch_size: 4 then, 5 now\)"):
        run(store, tmp_path / "c", resume=True, batch_size=5)
    other = make_store(tmp_path / "other", n_times=41)
    with pytest.raises(CheckpointError, match=r"another training .*store"):
        run(other, tmp_path / "c", resume=True)
    with caplog.at_level(logging.WARNING):
        result = run(store, tmp_path / "c", resume=True, epochs=2)
    assert "From step 7 on this is another training: epochs: 1 then, 2 now" in caplog.text
    assert len(result.history) == 2


def test_fresh_training_keeps_the_earlier_one_aside(store, tmp_path):
    run(store, tmp_path / "c", epochs=1)
    run(store, tmp_path / "c", epochs=1, seed=1)
    assert CheckpointManager(tmp_path / "c/superseded").latest() is not None


def test_damaged_last_checkpoint_falls_back(store, tmp_path, caplog):
    reference = run(store, tmp_path / "c")
    path = CheckpointManager(tmp_path / "c").all()[-1].path / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        result = run(store, tmp_path / "c", resume=True)
    assert "Using the checkpoint before a damaged one" in caplog.text
    assert result.resumed_at == 12
    assert result.best_loss == reference.best_loss


def test_not_finite_loss_stops_with_its_cause(tmp_path, make_store):
    from weathermill.tensors import writer

    store = make_store(tmp_path / "s", dtype="float32")
    shard = store.path / "shards/00001.safetensors"
    values = np.memmap(shard, np.float32, "r+", 4096, (7, 2, 8, 16))
    values[2, 1, 3, 3] = np.nan
    values.flush()
    assert writer is not None
    with pytest.raises(NonFiniteError, match=r"step [1-6] is nan; the loss is not finite in .*geopotential"):
        run(store, tmp_path / "c")
    assert CheckpointManager(tmp_path / "c").latest()[0].step == 0


def test_best_epoch_without_its_checkpoint_gives_way_to_the_next(store, tmp_path, monkeypatch, caplog):
    original = CheckpointManager.save

    def save(self, state, *, epoch, **options):
        if 0 < epoch < 3:
            raise UnwritableOutputError("The disk is full.")
        original(self, state, epoch=epoch, **options)

    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(CheckpointManager, "save", save)
    monkeypatch.setattr(Trainer, "validate", lambda self: next(losses))
    with caplog.at_level(logging.WARNING):
        result = run(store, tmp_path / "c")
    assert "Training goes on without this checkpoint" in caplog.text
    assert "The checkpoint of the best epoch, 1, is not there; using that of epoch 3" in caplog.text
    assert (result.best_epoch, result.best_loss) == (3, 3.0)


def test_full_disk_under_way_is_a_warning_but_at_the_end_an_error(store, tmp_path, monkeypatch, caplog):
    original = checkpoint_module.save_file
    fail = {"from": 2, "to": 3, "calls": 0}

    def sometimes(tensors, path):
        fail["calls"] += 1
        if fail["from"] <= fail["calls"] < fail["to"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(tensors, path)

    monkeypatch.setattr(checkpoint_module, "save_file", sometimes)
    with caplog.at_level(logging.WARNING):
        result = run(store, tmp_path / "c")
    assert "was not written" in caplog.text
    assert len(result.history) == 3
    fail.update({"from": 4, "to": 5, "calls": 0})
    with pytest.raises(UnwritableOutputError, match="disk is full"):
        run(store, tmp_path / "c")
    assert CheckpointManager(tmp_path / "c").latest()[0].step == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_saves_and_then_reaches_the_handler_before(store, tmp_path, number):
    seen = []
    previous = signal.signal(number, lambda *_: seen.append(number))

    def progress(done, total, text):
        if done == 5:
            os.kill(os.getpid(), number)

    try:
        with pytest.raises(TrainingInterruptedError, match="at step 5"):
            run(store, tmp_path / "c", progress=progress)
        assert seen == [number]
        assert signal.getsignal(number) is not None
    finally:
        signal.signal(number, previous)
    assert CheckpointManager(tmp_path / "c").latest()[0].step == 5


def test_signals_in_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with deferred_signals() as request:
            seen.append((request(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_the_process_ignores_does_not_stop_a_training(store, tmp_path, number):
    previous = signal.signal(number, signal.SIG_IGN)

    def progress(done, total, text):
        if done == 2:
            os.kill(os.getpid(), number)

    try:
        assert run(store, tmp_path / "c", epochs=1, progress=progress).steps == 6
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, previous)


def test_progress_is_called_and_written(store, caplog):
    calls = []
    run(store, epochs=1, progress=lambda *args: calls.append(args))
    assert [c[0] for c in calls] == list(range(1, 7))
    assert calls[-1][1] == 6
    with caplog.at_level(logging.INFO):
        line = ProgressLine(every=0.0)
        line(1, 4, "epoch 1/1")
        line(4, 4, "epoch 1/1, loss 0.5")
    assert "train: 100 % (4/4 steps) epoch 1/1, loss 0.5" in caplog.text


def test_devices(store):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ParameterError, match="'cuda' was asked for"):
            choose_device("cuda")


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"rollout": ()},
        {"rollout": (0,)},
        {"loss": "crps"},
        {"feed": "tape"},
        {"checkpoint_every_steps": 0},
        {"schedule": "linear"},
    ],
)
def test_bad_configurations_are_refused(bad):
    with pytest.raises(ParameterError):
        TrainConfig(**bad)


def test_too_small_a_split_is_told_before_training(tmp_path, make_store):
    store = make_store(tmp_path / "s", splits={"train": [(0, 3)], "validation": [(3, 40)]})
    with pytest.raises(SplitError, match="No window of 5"):
        run(store, rollout=(4,))


def test_store_without_validation_uses_the_training_loss(tmp_path, make_store):
    store = make_store(tmp_path / "s", splits={"train": [(0, 40)]})
    result = run(store)
    assert all(row["train_loss"] == row["validation_loss"] for row in result.history)


def test_trained_forecaster_survives_saving(store, tmp_path):
    result = run(store, epochs=1)
    result.forecaster.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", "cpu")
    state = torch.from_numpy(store.decoded(0, 1))
    with torch.no_grad():
        assert torch.equal(loaded(state), result.forecaster(state))


def test_history_is_json(store):
    json.dumps(run(store, epochs=1).history)


@pytest.mark.gpu
def test_training_on_cuda_agrees_with_the_cpu(store):
    step = StepConfig(precision="fp32", cuda_graph=True)
    cuda, cpu = run(store, device="cuda", step=step), run(store, device="cpu")
    for a, b in zip(cuda.history, cpu.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=2e-3)


def test_spikes_are_skipped_and_resuming_skips_the_same(tmp_path, make_store, caplog):
    store = make_store(tmp_path / "s", dtype="float32", n_times=60)
    values = np.memmap(store.path / "shards/00002.safetensors", np.float32, "r+", 4096, (7, 2, 8, 16))
    values[3] *= 1e3
    values.flush()
    options = {"epochs": 4, "watch_every_steps": 5, "checkpoint_every_steps": 7}
    with caplog.at_level(logging.WARNING):
        guarded = run(store, tmp_path / "a", RecordingTracker(tmp_path / "ra"), skip_spikes=20.0, **options)
    assert "was skipped: its gradient norm" in caplog.text
    done = [0]
    with pytest.raises(TrainingInterruptedError):
        run(
            store,
            tmp_path / "b",
            RecordingTracker(tmp_path / "rb"),
            skip_spikes=20.0,
            progress=lambda step, *_: done.__setitem__(0, step),
            stop_requested=lambda: done[0] == 33,
            **options,
        )
    resumed = run(
        store, tmp_path / "b", RecordingTracker(tmp_path / "rb"), skip_spikes=20.0, resume=True, **options
    )
    a, b = guarded.forecaster.state_dict(), resumed.forecaster.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_step_above_the_largest_norm_leaves_weights_and_moments_alone(store):
    trainer = Trainer(store, MODEL, config(), None, NullTracker(), torch.device("cpu"))
    window = next(iter(trainer.feed.epoch(0))).window.clone()

    def trained():
        state = trainer.step.state_dict()
        names = dict(trainer.forecaster.named_parameters())
        return {
            k: v.clone() for k, v in state.items() if k.startswith("opt") or k.removeprefix("model.") in names
        }

    before = trained()
    trainer.step.largest_norm.fill_(1e-6)
    assert trainer.step(window).grad_norm > 1e-6
    after = trained()
    assert all(torch.equal(before[k], after[k]) for k in before)
    trainer.step.largest_norm.fill_(float("inf"))
    trainer.step(window)
    assert not all(torch.equal(before[k], v) for k, v in trained().items() if k.endswith("exp_avg_sq"))
    trainer.close()


@pytest.mark.gpu
def test_tiers_give_the_same_bits_on_cuda(tmp_path, make_store):
    store = make_store(tmp_path / "s", n_times=90, height=31, width=64, dtype="float16")
    options = {"device": "cuda", "deterministic": True, "batch_size": 8, "rollout": (1, 2)}
    results = [run(store, feed=tier, **options) for tier in ("device", "pinned", "mapped")]
    assert [r.feed["tier"] for r in results] == ["device", "pinned", "mapped"]
    states = [r.forecaster.state_dict() for r in results]
    for other in states[1:]:
        assert all(torch.equal(states[0][k], other[k]) for k in other)


@pytest.mark.gpu
def test_resume_on_cuda_equals_an_undisturbed_run(tmp_path, make_store):
    store = make_store(tmp_path / "s", n_times=90, height=31, width=64, dtype="float16")
    options = {"device": "cuda", "deterministic": True, "step": StepConfig(ema_decay=0.9, clip_norm=1.0)}
    reference = run(store, tmp_path / "a", RecordingTracker(tmp_path / "ra"), **options)
    done = [0]
    with pytest.raises(TrainingInterruptedError):
        run(
            store,
            tmp_path / "b",
            RecordingTracker(tmp_path / "rb"),
            progress=lambda step, *_: done.__setitem__(0, step),
            stop_requested=lambda: done[0] == 27,
            **options,
        )
    resumed = run(store, tmp_path / "b", RecordingTracker(tmp_path / "rb"), resume=True, **options)
    assert resumed.resumed_at == 27
    a, b = reference.forecaster.state_dict(), resumed.forecaster.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [r["validation_loss"] for r in reference.history] == [
        r["validation_loss"] for r in resumed.history
    ]


@pytest.mark.gpu
def test_not_finite_loss_on_cuda_leaves_a_good_checkpoint(tmp_path, make_store):
    store = make_store(tmp_path / "s", dtype="float32")
    values = np.memmap(store.path / "shards/00001.safetensors", np.float32, "r+", 4096, (7, 2, 8, 16))
    values[2, 1, 3, 3] = np.nan
    values.flush()
    with pytest.raises(NonFiniteError, match=r"the loss is not finite in .*geopotential"):
        run(store, tmp_path / "c", device="cuda")
    state = CheckpointManager(tmp_path / "c").latest()[1]["step"]
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())


@pytest.mark.gpu
def test_meter_on_cuda_divides_the_step(store):
    row = run(store, device="cuda", epochs=3, watch_every_steps=2).history[-1]
    assert 0.98 < sum(row[f"{k}_share"] for k in ("waiting", "computing", "optimising")) < 1.02
    assert 0 < row["optimising_share"] < 0.9


def test_corrections_of_hard_constraints_are_on_record(store, tmp_path):
    tracker = RecordingTracker(tmp_path / "run")
    model = ModelConfig(
        base_channels=4, depth=1, conserve_mean=("geopotential",), non_negative=["geopotential_850"]
    )
    train(store, model, config(epochs=2), None, tracker, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row.get("metrics", row) if str(name).startswith("constraints/")}
    assert names == {
        "constraints/conserve_mean/geopotential_500",
        "constraints/conserve_mean/geopotential_850",
        "constraints/non_negative/geopotential_850",
    }


def test_corrections_are_on_record_without_a_validation_split_too(make_store, tmp_path):
    store = make_store(tmp_path / "s", splits={"train": [(0, 40)]})
    tracker = RecordingTracker(tmp_path / "run")
    model = ModelConfig(base_channels=4, depth=1, zonal_filter=8)
    train(store, model, config(epochs=1), None, tracker, progress=False)
    recorded = [key for _, metrics in tracker.rows() for key in metrics if key.startswith("constraints/")]
    assert recorded == [f"constraints/zonal_filter/geopotential_{p}" for p in (500, 850)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_constrained_forecasts_train_with_noise_and_long_rollouts(device, store):
    model = ModelConfig(
        base_channels=4,
        depth=1,
        residual="damped_persistence",
        damping=2.0,
        zonal_filter=8,
        pin_mean=("geopotential_850",),
    )
    options = {
        "rollout": (1, 2, 8),
        "rollout_loss": RolloutConfig(noise_std=0.06),
        "step": StepConfig(ema_decay=0.9, clip_norm=1.0),
    }
    result = train(
        store, model, config(epochs=6, **options), None, NullTracker(), device=device, progress=False
    )
    assert result.history[-1]["validation_loss"] < result.history[0]["validation_loss"]
