"""Trains in forked children and kills them; run as a script by test_resume.py, which judges what is left.

Everything is imported once, before forking, so that a crash costs the time of the training alone.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401 - every optimiser imports it, which takes two seconds

sys.path.insert(0, str(Path(__file__).parent))
from conftest import write_store

from weathermill.models.registry import ModelConfig
from weathermill.training import checkpoint as checkpoint_module
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import TrainConfig, train
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig
from weathermill.training.tracker import RecordingTracker

MODEL = ModelConfig(base_channels=4, depth=2, dropout=0.1)


def config(**changes):
    return TrainConfig(
        epochs=5,
        batch_size=3,
        learning_rate=3e-3,
        schedule="one_cycle",
        rollout=(1, 1, 2),
        rollout_loss=RolloutConfig(noise_std=0.05),
        step=StepConfig(ema_decay=0.9, clip_norm=1.0),
        checkpoint_every_steps=3,
        log_every_steps=2,
        watch_every_steps=4,
        deterministic=True,
        **changes,
    )


def run(store, folder, tier, pace=0.0, started=None):
    """One attempt: goes on from whatever is there, and says through a pipe when its first step is done."""
    torch.set_num_threads(1)
    told = []

    def progress(*_):
        if started is not None and not told:
            told.append(os.write(started, b"."))
        time.sleep(pace)

    result = train(
        store,
        MODEL,
        config(feed=tier),
        CheckpointManager(folder / "checkpoints"),
        RecordingTracker(folder / "run"),
        device="cpu",
        resume=True,
        progress=progress,
    )
    result.forecaster.save(folder / "model")


def slow_down_saving():
    """Stretch each save, so that a kill at any time is likely to fall into one."""
    original = checkpoint_module.fsync

    def slow(path):
        time.sleep(0.02)
        original(path)

    checkpoint_module.fsync = slow


def child(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 3
    finally:
        os._exit(code)


def main(folder, kills, seed, tier):
    folder = Path(folder)
    store = write_store(folder / "store", dtype="float16")
    (folder / "reference").mkdir()
    (folder / "crashed").mkdir()
    pid = child(lambda: run(store, folder / "reference", tier))
    assert os.waitpid(pid, 0)[1] == 0, "the undisturbed training failed"
    rng = random.Random(seed)
    killed, during_save, finished = 0, 0, False
    while killed < kills:
        saving = killed % 2 == 1

        reader, writer = os.pipe()

        def work(saving=saving, writer=writer):
            if saving:
                slow_down_saving()
            run(store, folder / "crashed", tier, pace=0.01, started=writer)

        pid = child(work)
        if killed % 5 != 4:
            # One kill in five may come before the first step.
            select.select([reader], [], [], 60)
        time.sleep(rng.uniform(0.0, 0.25))
        os.close(reader)
        os.close(writer)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, f"an attempt failed with status {status}"
            finished = True
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
        during_save += bool(list((folder / "crashed/checkpoints").glob("*.partial")))
    if not finished:
        pid = child(lambda: run(store, folder / "crashed", tier))
        assert os.waitpid(pid, 0)[1] == 0, "the last attempt failed"
    print(json.dumps({"killed": killed, "during_save": during_save}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
