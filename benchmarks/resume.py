"""Kill a training with signal 9 at random moments, also during saves, and compare what it ends with bit for bit.

``python benchmarks/resume.py --kills 20`` trains on the GPU, where there is one, in forked children; this process
itself never touches it. Prints how many weights, optimiser tensors and metrics differ from an undisturbed training:
none may.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from common import emit
from feed import make_store

from weathermill.models.registry import ModelConfig
from weathermill.training import checkpoint as checkpoint_module
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import TrainConfig, train
from weathermill.training.step import StepConfig
from weathermill.training.tracker import RecordingTracker

MEASURED = ("speed/", "feed/", "memory/")


def attempt(store, folder: Path, a: argparse.Namespace, started: int | None, slow_saves: bool) -> None:
    """Go on from whatever the folder holds, to the end."""
    if slow_saves:
        original = checkpoint_module._fsync

        def fsync(path: Path) -> None:
            time.sleep(0.05)
            original(path)

        checkpoint_module._fsync = fsync
    told: list[int] = []

    def progress(done: int, total: int, text: str) -> None:
        if started is not None and not told:
            told.append(os.write(started, b"."))

    result = train(
        store,
        ModelConfig(base_channels=a.base),
        TrainConfig(
            epochs=a.epochs,
            batch_size=a.batch,
            learning_rate=1e-3,
            schedule="one_cycle",
            rollout=(1, 1, 2),
            step=StepConfig(ema_decay=0.99, clip_norm=1.0, precision=a.precision),
            feed=a.tier,
            checkpoint_every_steps=5,
            log_every_steps=1,
            watch_every_steps=7,
            deterministic=True,
        ),
        CheckpointManager(folder / "checkpoints", background=True),
        RecordingTracker(folder / "run"),
        resume=True,
        progress=progress,
    )
    result.forecaster.save(folder / "model")


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def compare(reference: Path, crashed: Path) -> dict:
    """Count what differs."""
    states = [CheckpointManager(f / "checkpoints").latest()[1]["step"] for f in (reference, crashed)]
    tensors = sum(not torch.equal(states[0][key], states[1][key]) for key in states[0])
    series = []
    for folder in (reference, crashed):
        found: dict[str, list] = {}
        for step, metrics in RecordingTracker(folder / "run").rows():
            for key, value in metrics.items():
                if not key.startswith(MEASURED):
                    found.setdefault(key, []).append((step, value))
        series.append(found)
    metrics = sum(series[0][key] != series[1].get(key) for key in series[0])
    return {
        "tensors": len(states[0]),
        "tensors_different": tensors,
        "metrics": {key: len(values) for key, values in series[0].items()},
        "metrics_different": metrics,
        "steps": series[0]["train/loss"][-1][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--grid", default="91x180")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tier", default="mapped")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--most-seconds", type=float, default=1.0, help="latest kill after the first step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    a = parser.parse_args()
    if a.small:
        a.grid, a.channels, a.base, a.states, a.kills = "16x32", 4, 4, 60, 6
    rows, columns = (int(n) for n in a.grid.split("x"))
    folder = Path(tempfile.mkdtemp())
    rng = random.Random(a.seed)
    killed = saving = before = 0
    try:
        store = make_store(folder / "store", a.states, a.channels, (rows, columns))
        for name in ("reference", "crashed"):
            (folder / name).mkdir()
        began = time.perf_counter()
        pid = child(lambda: attempt(store, folder / "reference", a, None, False))
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("the undisturbed training failed")
        print(f"undisturbed training: {time.perf_counter() - began:.1f} s")
        finished = False
        while killed < a.kills and not finished:
            reader, writer = os.pipe()
            slow = killed % 2 == 1
            pid = child(lambda writer=writer, slow=slow: attempt(store, folder / "crashed", a, writer, slow))
            os.close(writer)
            if killed % 5 != 4:
                select.select([reader], [], [], 120)
            else:
                before += 1
            time.sleep(rng.uniform(0, a.most_seconds))
            os.close(reader)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                if status:
                    raise SystemExit("an attempt failed")
                finished = True
                break
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            killed += 1
            saving += bool(list((folder / "crashed/checkpoints").glob("*.partial")))
        if (
            not finished
            and os.waitpid(child(lambda: attempt(store, folder / "crashed", a, None, False)), 0)[1]
        ):
            raise SystemExit("the last attempt failed")
        result = compare(folder / "reference", folder / "crashed")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    different = result["tensors_different"] + result["metrics_different"]
    print(
        f"{killed} kills, {saving} during a save, {before} aimed before the first step, {result['steps']} steps"
    )
    print(f"tensors different: {result['tensors_different']} of {result['tensors']}")
    print(
        f"metrics different: {result['metrics_different']} of {len(result['metrics'])}: {result['metrics']}"
    )
    print("bit for bit equal" if not different else "NOT EQUAL")
    emit({"benchmark": "resume", "kills": killed, "during_save": saving, **result})
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
