"""The training loop: feed, step, schedule, checkpoints and record, tied so that a crash changes no number."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from weathermill.errors import ParameterError, TrainingInterruptedError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.store import TensorStore
from weathermill.training.budget import MemoryReport
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.config import TrainConfig
from weathermill.training.interrupt import deferred_signals
from weathermill.training.progress import ProgressCallback, ProgressLine
from weathermill.training.tracker import Tracker
from weathermill.training.trainer import Trainer

__all__ = ["TrainConfig", "TrainResult", "choose_device", "train"]

logger = logging.getLogger(__name__)


@dataclass
class TrainResult:
    """What a training gives.

    Parameters
    ----------
    forecaster
        With the best weights (averaged ones, where an average is kept), in evaluation mode.
    history
        One dict an epoch: epoch, step, train_loss, validation_loss, learning_rate, rollout, seconds,
        samples_per_second, and the shares of the starvation meter.
    best_epoch
        Counted from one, like those of the history.
    best_loss
        Validation loss there; the training loss where there is no validation split.
    device
        Where it ran.
    samples_per_second
        Mean over the epochs of this process, validation left out.
    steps
        Optimiser steps in all.
    resumed_at
        Step of the checkpoint that this process went on from; None for a fresh training.
    advice
        The starvation meter's line for the last epoch.
    """

    forecaster: Forecaster
    history: list[dict[str, Any]]
    best_epoch: int
    best_loss: float
    device: str
    samples_per_second: float
    steps: int
    resumed_at: int | None = None
    advice: str = ""
    feed: dict[str, str] = field(default_factory=dict)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Give the device asked for, or the best there is: CUDA, then MPS, then the CPU.

    Raises
    ------
    ParameterError
        When the device asked for is not there.
    """
    if device in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    device = torch.device(device)
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(
        device.type, lambda: True
    )
    if not there():
        raise ParameterError(f"Device {str(device)!r} was asked for, but this machine or torch has none.")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


@contextlib.contextmanager
def determinism(on: bool) -> Iterator[None]:
    """Inside, torch takes only algorithms that give the same bits every time, and warns where it has none.

    For CUDA: the CPU's kernels in use here do so anyway, and asking for them imports the whole compiler.
    """
    if not on:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def train(
    store: TensorStore,
    model_config: ModelConfig,
    config: TrainConfig,
    checkpoints: CheckpointManager | None,
    tracker: Tracker,
    device: str | torch.device | None = None,
    resume: bool = False,
    progress: bool | ProgressCallback = True,
    stop_requested: Callable[[], bool] | None = None,
    report_memory: MemoryReport | None = None,
) -> TrainResult:
    """Train a network on a tensor store.

    Parameters
    ----------
    store
        With a split ``train``, and ``validation`` to choose the best epoch by.
    model_config
        The network.
    config
        How to train it.
    checkpoints
        Where to keep the state; None keeps none, and the best weights in memory.
    tracker
        Where metrics go, in batches. Deterministic ones (``train/loss``, ``train/grad_norm``,
        ``train/learning_rate``, ``train/epoch_loss``, ``validation/loss``) are equal bit for bit in a
        resumed run; ``speed/*`` and ``feed/*`` are measurements.
    device
        The best there is when None.
    resume
        Go on from the newest intact checkpoint. Without one, or without `resume`, training starts anew;
        earlier checkpoints are then moved to ``superseded``, and brought back where it fails before a step of it is
        saved. With other parameters of its course (epochs, learning rate, ...), or other code by the digests of
        `checkpoints`, what goes on is another training: see `weathermill.training.history`.
    progress
        True writes a line to standard error, False nothing; or a callback ``(done, total, text)``.
    stop_requested
        Asked after every step; when true, the state is saved and the training stops. SIGTERM, SIGINT and SIGHUP
        do the same in the main thread unless they are ignored, and are then raised again for the handlers that were
        there before.
    report_memory
        Told of the memory ledger of a fresh training on CUDA, before its first step.

    Returns
    -------
    TrainResult

    Raises
    ------
    TrainingInterruptedError
        After saving, when a stop was asked for.
    NonFiniteError
        When a loss or gradient is not finite; names the step, the batch's times and the channel.
    CheckpointError
        When `resume` finds checkpoints that are all damaged, of another training, of more epochs than asked for, or
        of a training that is complete and was made with other parameters, data or code.
    UnwritableOutputError
        When the last checkpoint of the training cannot be written; a failure before that is a warning.
    """
    device = choose_device(device)
    callback = _callback(progress)
    with determinism(config.deterministic and device.type == "cuda"), deferred_signals() as signalled:
        trainer = Trainer(store, model_config, config, checkpoints, tracker, device)
        try:
            trainer.start(resume, report_memory)
            trainer.run(callback, lambda: signalled() or (stop_requested is not None and stop_requested()))
            forecaster = trainer.best_forecaster()
            if trainer.advice:
                logger.info("Feed (%s): %s", trainer.feed.tier, trainer.advice)
                _record_feed(tracker, trainer)
        except Exception as error:
            if not isinstance(error, TrainingInterruptedError):
                trainer.undo_start()
            raise
        finally:
            trainer.close()
            getattr(callback, "close", lambda: None)()
    return TrainResult(
        forecaster=forecaster,
        history=trainer.history,
        best_epoch=trainer.best_epoch,
        best_loss=trainer.best_loss,
        device=str(device),
        samples_per_second=trainer.samples_per_second,
        steps=trainer.global_step,
        resumed_at=trainer.resumed_at,
        advice=trainer.advice,
        feed={"tier": trainer.feed.tier, "reason": trainer.feed.reason},
    )


def _record_feed(tracker: Tracker, trainer: Trainer) -> None:
    """Put the starvation meter's account of each epoch on record, with its line of advice."""
    names = ("waiting", "starting", "computing", "optimising", "copying", "host_waiting")
    lines = [
        f"Feed: {trainer.feed.tier} ({trainer.feed.reason})",
        f"Last epoch: {trainer.advice}",
        "",
        "epoch  samples/s  " + "  ".join(f"{name:>12}" for name in names),
    ]
    for row in trainer.history:
        shares = "  ".join(f"{row.get(f'{name}_share', 0.0):12.1%}" for name in names)
        lines.append(f"{row['epoch']:5d}  {row['samples_per_second']:9.1f}  {shares}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feed.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        tracker.log_artifact(path, "feed")


def _callback(progress: bool | ProgressCallback) -> ProgressCallback:
    if callable(progress):
        return progress
    return ProgressLine() if progress else (lambda done, total, text: None)
