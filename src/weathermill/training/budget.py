"""Whether a training fits its device, found out before it begins, and how much is left for the data."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from weathermill.errors import ResourceError
from weathermill.models.forecaster import Forecaster
from weathermill.tensors.store import TensorStore
from weathermill.training.config import TrainConfig
from weathermill.training.ledger import Ledger, advise, measure, predict_for
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.memory import available_device_memory
from weathermill.training.step import StepConfig
from weathermill.training.tracker import Tracker

logger = logging.getLogger(__name__)

# Left free beyond the prediction, as a share of it: the ledger is good to some percent.
_MARGIN = 0.1
# Batches that the feed holds on the device at any time, see `prefetch` and `resident`.
_FEED_BATCHES = 3

#: Takes the ledger that is predicted, and a dry step's where there was one.
MemoryReport = Callable[[Ledger, Ledger | None], None]


@dataclass(frozen=True)
class Budget:
    """Device memory of a training.

    Parameters
    ----------
    ledger
        What the step needs.
    step
        The step's configuration, with recomputation switched on where that was left to the ledger.
    window_bytes
        Size of one batch as stored.
    measured
        A dry step's ledger, where one was asked for.
    """

    ledger: Ledger
    step: StepConfig
    window_bytes: int
    measured: Ledger | None = None

    @property
    def needed(self) -> int:
        """Bytes that the step and the feed's own buffers will take."""
        return int(self.ledger.reserved * (1 + _MARGIN)) + _FEED_BATCHES * self.window_bytes

    def for_data(self, device: torch.device) -> int:
        """Bytes that a resident split may take, of what is free now, while the step's are not taken yet."""
        return max(0, available_device_memory(device) - self.needed)


def log_ledger(ledger: Ledger, tracker: Tracker, measured: Ledger | None = None) -> None:
    """Put a ledger on record: its total as a metric, its parts as a table, as text and as JSON.

    Parameters
    ----------
    ledger
        What is predicted.
    tracker
        Where to.
    measured
        A dry step's, where there was one.
    """
    totals = {"memory/predicted_gib": ledger.total / 2**30}
    text, record = ledger.table(), ledger.to_dict()
    if measured is not None:
        totals["memory/dry_step_gib"] = measured.total / 2**30
        text += f"\n\n{measured.table(detail=False)}"
        record["dry_step"] = measured.to_dict()
    tracker.log_metrics(totals, 0)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "ledger.txt": text + "\n",
            "ledger.json": json.dumps(record, indent=1),
            "ledger.csv": ledger.csv(),
        }
        for name, content in files.items():
            path = Path(folder) / name
            path.write_text(content, encoding="utf-8")
            tracker.log_artifact(path, "memory")


def make_budget(
    forecaster: Forecaster,
    store: TensorStore,
    config: TrainConfig,
    step: StepConfig,
    device: torch.device,
    loss: AreaWeightedLoss | None = None,
) -> Budget | None:
    """Predict what a training needs on a CUDA device, and see that it is there; None for other devices.

    Parameters
    ----------
    forecaster
        What will be trained; left alone.
    store
        Its data.
    config
        Batch and rollout; with ``checkpointing="auto"`` activations are recomputed only if they do not fit else. With
        `dry_step` the prediction is compared with what a step takes.
    step
        How a step is computed.
    device
        Where.
    loss
        What is minimised; the mean square error when None.

    Raises
    ------
    ResourceError
        When the step does not fit; says what would.
    """
    if device.type != "cuda":
        return None
    window_bytes = config.batch_size * (config.most_steps + 1) * store.state_nbytes
    free = available_device_memory(device)

    def predicted(step: StepConfig) -> Budget:
        ledger = predict_for(
            forecaster, config.batch_size, step, config.most_steps, config.rollout_loss, loss
        )
        return Budget(ledger, step, window_bytes)

    budget = predicted(step)
    if config.checkpointing == "auto" and not step.checkpointing and budget.needed > free:
        budget = predicted(replace(step, checkpointing=True))
    # The margin is no reason to refuse: it is what the prediction may err by.
    if budget.ledger.reserved > free:
        advice = advise(
            forecaster, config.batch_size, free, step, config.most_steps, config.rollout_loss, loss
        )
        raise ResourceError(
            f"The training does not fit the device. {advice.text}",
            where=str(device),
            remedy="Change these parameters (train.step.*, train.rollout_loss.*, train.batch_size).",
        )
    if config.dry_step:
        measured = measure(
            forecaster, config.batch_size, budget.step, config.most_steps, config.rollout_loss, device, loss
        )
        logger.info(
            "A dry step took %.2f GiB of device memory; %.2f GiB were predicted.",
            measured.total / 2**30,
            budget.ledger.total / 2**30,
        )
        budget = replace(budget, measured=measured)
    return budget
