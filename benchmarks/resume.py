"""Kill a training with signal 9 at random moments, also during saves, and compare what it ends with bit for bit.

``python benchmarks/resume.py --kills 20`` trains on the GPU, where there is one, in forked children. This process itself
never touches it, nor starts threads, so that a fork has no lock to inherit. An undisturbed training is timed first and
leaves its kernels compiled for all children. The moments are drawn over the steps of the training after its first
checkpoint, every second one at a step that saves, and a random time within it. After ``--seconds`` it kills no more, ends the training, and
says how many kills there were. Prints how many weights, optimiser tensors and metrics differ from the undisturbed
training: none may.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
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

# NumPy's BLAS starts its threads when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
from common import emit
from feed import make_store

from weathermill.models.registry import ModelConfig
from weathermill.tensors.store import TensorStore
from weathermill.training import checkpoint as checkpoint_module
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import TrainConfig, train
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig
from weathermill.training.tracker import RecordingTracker

MEASURED = ("speed/", "feed/", "memory/")
SAVE_EVERY = 5
# What the plain case lacks: constraints, the spectral term, noise from a stream of its own, and a damped residual.
GENERAL_MODEL = {
    "residual": "damped_persistence",
    "zonal_filter": 8,
    "conserve_mean": ("field_0",),
    "non_negative": ("field_1",),
}
GENERAL_TRAINING = {
    "spectral_weight": 0.5,
    "error_unit": "state",
    "rollout_loss": RolloutConfig(noise_std=0.05, checkpoint_steps=True),
}
# A child that tells of no step for so long hangs; the first one on a machine may compile for a minute.
PATIENCE = 180.0


def import_ahead() -> None:
    """Import here, once, what every child would else import for seconds: it starts no thread and asks for no device."""
    # The optimiser's first step imports it.
    importlib.import_module("torch._dynamo")
    for name in ("weathermill.models.kernels_triton", "weathermill.training.advance_triton"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.exists() else 1
    if threads > 1 or torch.cuda.is_initialized():
        raise SystemExit(
            f"a fork is not safe here: {threads} threads, CUDA in use: {torch.cuda.is_initialized()}"
        )


def attempt(path: Path, folder: Path, a: argparse.Namespace, tell: int, slow_saves: bool) -> None:
    """Go on from whatever the folder holds, to the end, and tell of each step through the pipe `tell`."""
    if slow_saves:
        original = checkpoint_module.fsync

        def fsync(path: Path) -> None:
            time.sleep(0.05)
            original(path)

        checkpoint_module.fsync = fsync

    def progress(done: int, total: int, text: str) -> None:
        os.write(tell, f"{done}/{total}\n".encode())

    result = train(
        TensorStore(path),
        ModelConfig(base_channels=a.base, **(GENERAL_MODEL if a.general else {})),
        TrainConfig(
            **(GENERAL_TRAINING if a.general else {}),
            epochs=a.epochs,
            batch_size=a.batch,
            learning_rate=1e-3,
            schedule="one_cycle",
            rollout=(1, 1, 2),
            step=StepConfig(ema_decay=0.99, clip_norm=1.0, precision=a.precision),
            feed=a.tier,
            checkpoint_every_steps=SAVE_EVERY,
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


class Child:
    """A forked process that does some work, and what it tells through a pipe."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self.began = time.monotonic()
        self.first_step: float | None = None
        self.step = self.total = 0
        self._text = b""
        self._heard = self.began
        reader, writer = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(reader)
            code = 1
            try:
                work(writer)
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        os.close(writer)
        self.pipe = reader

    def listen(self, until_step: float, deadline: float) -> str:
        """Wait for a step, the end of the child or the deadline: "step", "end" or "late"."""
        while self.step < until_step:
            now = time.monotonic()
            if now > deadline:
                return "late"
            if now - self._heard > PATIENCE:
                self.kill()
                raise SystemExit(f"a training hangs: no step for {PATIENCE:g} s after step {self.step}")
            if not select.select([self.pipe], [], [], min(1.0, deadline - now + 0.01))[0]:
                continue
            told = os.read(self.pipe, 65536)
            if not told:
                return "end"
            self._heard = time.monotonic()
            self.first_step = self.first_step or self._heard - self.began
            *lines, self._text = (self._text + told).split(b"\n")
            if lines:
                self.step, self.total = (int(n) for n in lines[-1].split(b"/"))
        return "step"

    def wait(self) -> None:
        """Wait for the end of a child that has closed its pipe; a failure ends this program."""
        os.close(self.pipe)
        if os.waitpid(self.pid, 0)[1]:
            raise SystemExit("a training failed")

    def kill(self) -> bool:
        """Kill the child; false if it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.pipe)
        return os.WIFSIGNALED(status)


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


def kernel_cache(folder: Path) -> Path:
    """Where all children keep compiled kernels: Triton's own place, or one here where that cannot be written."""
    chosen = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        (chosen / ".weathermill").write_bytes(b"")
    except OSError:
        chosen = folder / "triton"
    os.environ["TRITON_CACHE_DIR"] = str(chosen)
    return chosen


def compiled(cache: Path) -> int:
    return sum(path.suffix in (".cubin", ".hsaco") for path in cache.rglob("*")) if cache.exists() else 0


def draw_steps(kills: int, total: int, rng: random.Random) -> list[int]:
    """Steps to kill at, in order: after the first checkpoint, every second one where a checkpoint is being saved."""
    every = range(SAVE_EVERY, total)
    saves = [s for s in every if s % SAVE_EVERY == 0]
    chosen = [rng.choice(saves if k % 2 else list(every)) for k in range(kills)]
    return sorted(chosen)


class Campaign:
    """Kills one training again and again, until it is at its end or time is over."""

    def __init__(self, store: Path, folder: Path, a: argparse.Namespace, deadline: float) -> None:
        self.store, self.folder, self.a, self.deadline = store, folder, a, deadline
        self.killed = self.saving = 0
        self.startup = self.training = 0.0

    def reference(self) -> int:
        """Train undisturbed, and time it; gives the number of steps."""
        began = time.monotonic()
        child = self._child("reference", False)
        if child.listen(float("inf"), self.deadline) == "late":
            child.kill()
            raise SystemExit("0 kills: the undisturbed training did not end in time; give it more --seconds")
        child.wait()
        whole = time.monotonic() - began
        self.startup = child.first_step or 0.0
        self.training = whole - self.startup
        print(f"undisturbed training: {whole:.1f} s, of which {child.first_step:.1f} s before the first step")
        return child.total

    def _child(self, name: str, slow: bool) -> Child:
        return Child(lambda tell: attempt(self.store, self.folder / name, self.a, tell, slow))

    def strike(self, steps: list[int], total: int, rng: random.Random) -> bool:
        """Kill at each of the steps; false if time was over before."""
        pace = self.training / total
        for number, step in enumerate(steps, start=1):
            # What the end will take from here, with a half more for what else the machine does.
            rest = 1.5 * (self.startup + self.training * (1 - (step - SAVE_EVERY) / total)) + 1.0
            began = time.monotonic()
            if began + 1.5 * self.startup + rest > self.deadline:
                return False
            slow = step % SAVE_EVERY == 0
            child = self._child("crashed", slow)
            heard = child.listen(step, self.deadline - rest)
            time.sleep(rng.uniform(0, max(pace, 0.4 if slow else 0.0)))
            if heard == "end" or not child.kill():
                if heard == "end":
                    child.wait()
                return True
            self.startup = max(self.startup, child.first_step or 0.0)
            partial = bool(list((self.folder / "crashed/checkpoints").glob("*.partial")))
            self.killed += 1
            self.saving += partial
            print(
                f"kill {number:2d} of {len(steps)}: at step {child.step} of {total}{', during a save' if partial else ''}, "
                f"{time.monotonic() - began:.1f} s, {child.first_step or 0.0:.1f} s of it before the first step",
                flush=True,
            )
            if heard == "late":
                return False
        return True

    def end(self) -> bool:
        """Let the training come to its end; false if it did not in time."""
        child = self._child("crashed", False)
        if child.listen(float("inf"), self.deadline) == "late":
            child.kill()
            return False
        child.wait()
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, help="20; with --small, 6")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="the time for all of it, from when modules are imported"
    )
    parser.add_argument("--grid", default="91x180")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tier", default="mapped")
    parser.add_argument("--precision", default=None)
    parser.add_argument(
        "--general", action="store_true", help="with constraints, a spectral loss, noise and recomputed steps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    a = parser.parse_args()
    if a.small:
        a.grid, a.channels, a.base, a.states = "16x32", 4, 4, 60
    a.kills = a.kills or (6 if a.small else 20)
    rows, columns = (int(n) for n in a.grid.split("x"))
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp())
    try:
        cache = kernel_cache(folder)
        import_ahead()
        rng = random.Random(a.seed)
        for name in ("reference", "crashed"):
            (folder / name).mkdir()
        # In a child, for its threads: none may be in this process when it forks.
        writer = Child(lambda _: make_store(folder / "store", a.states, a.channels, (rows, columns)).close())
        writer.listen(1, float("inf"))
        writer.wait()
        campaign = Campaign(folder / "store", folder, a, began + a.seconds)
        total = campaign.reference()
        kernels = compiled(cache)
        in_time = campaign.strike(draw_steps(a.kills, total, rng), total, rng)
        ended = campaign.end()
        more = compiled(cache) - kernels
        result = compare(folder / "reference", folder / "crashed") if ended else {}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    print(
        f"{campaign.killed} kills of {a.kills}{'' if in_time else ': time was over'}, {campaign.saving} during a save, "
        f"in {seconds:.0f} s; kernels compiled by killed trainings: {more}"
    )
    if not ended:
        print(f"NOT COMPARED: the training did not end within {a.seconds:g} s")
        raise SystemExit(1)
    different = result["tensors_different"] + result["metrics_different"]
    print(f"tensors different: {result['tensors_different']} of {result['tensors']}")
    print(
        f"metrics different: {result['metrics_different']} of {len(result['metrics'])}: {result['metrics']}"
    )
    print("bit for bit equal" if not different else "NOT EQUAL")
    emit(
        {
            "benchmark": "resume",
            "case": "general" if a.general else "plain",
            "kills": campaign.killed,
            "during_save": campaign.saving,
            "seconds": round(seconds, 1),
            "kernels_compiled_again": more,
            **result,
        }
    )
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
