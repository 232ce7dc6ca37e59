"""Looking after a training: values that are not finite, found without waiting for the device at each step."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from weathermill.errors import NonFiniteError
from weathermill.tensors.channels import ChannelTable
from weathermill.training.step import StepResult

logger = logging.getLogger(__name__)

# fp16 skips steps on purpose while its loss scale adapts; more in a row than this is no adaptation any more.
MOST_SKIPS = 50


@dataclass
class StepRecord:
    """One step, on the host."""

    step: int
    starts: np.ndarray
    loss: float
    grad_norm: float
    per_channel: np.ndarray


class Recorder:
    """Collects losses and gradient norms on the device, and brings them to the host many steps at a time.

    Parameters
    ----------
    capacity
        Steps between two transfers.
    channels
        Number of prognostic channels.
    device
        Where the steps run.
    """

    def __init__(self, capacity: int, channels: int, device: torch.device) -> None:
        self.capacity = capacity
        self._values = torch.zeros(capacity, 2 + channels, dtype=torch.float32, device=device)
        self._steps: list[tuple[int, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def full(self) -> bool:
        """Whether `take` is due."""
        return len(self._steps) >= self.capacity

    def add(self, step: int, starts: np.ndarray, result: StepResult) -> None:
        """Copy a result, which the next step may overwrite, without waiting for it."""
        row = self._values[len(self._steps)]
        row[0].copy_(result.loss)
        if result.grad_norm is not None:
            row[1].copy_(result.grad_norm)
        # The mean over forecast steps: a value that is not finite in any of them shows.
        row[2:].copy_(result.per_channel.mean(dim=0))
        self._steps.append((step, starts))

    def take(self) -> list[StepRecord]:
        """Wait for the steps so far and give them."""
        values = self._values[: len(self._steps)].cpu().numpy()
        records = [
            StepRecord(step, starts, float(row[0]), float(row[1]), row[2:].copy())
            for (step, starts), row in zip(self._steps, values, strict=True)
        ]
        self._steps.clear()
        return records


class SpikeGuard:
    """Finds the gradient norm above which a step is skipped: some multiple of the median of recent steps.

    Parameters
    ----------
    factor
        The multiple; None skips nothing.
    memory
        Steps that the median is over.
    patience
        Steps before the first limit.
    """

    def __init__(self, factor: float | None, memory: int = 200, patience: int = 20) -> None:
        self.factor, self.memory, self.patience = factor, memory, patience
        self.norms: list[float] = []
        self.limit = math.inf
        self.skipped = 0

    def observe(self, records: list[StepRecord]) -> int:
        """Take in steps made under the present limit; gives how many of them it made be skipped."""
        if self.factor is None:
            return 0
        spikes = [r for r in records if self.limit < r.grad_norm < math.inf]
        for record in spikes:
            logger.warning(
                "Step %d was skipped: its gradient norm is %.3g, and the limit %.3g.",
                record.step,
                record.grad_norm,
                self.limit,
            )
        self.norms = [*self.norms, *(r.grad_norm for r in records if math.isfinite(r.grad_norm))][
            -self.memory :
        ]
        self.skipped += len(spikes)
        return len(spikes)

    def update(self) -> float:
        """Set the limit of the next steps by those observed so far."""
        if self.factor is not None and len(self.norms) >= self.patience:
            self.limit = self.factor * float(np.median(self.norms))
        return self.limit

    def state_dict(self) -> dict[str, Any]:
        """All that later limits depend on."""
        return {"norms": self.norms, "limit": self.limit, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.norms, self.limit, self.skipped = state["norms"], state["limit"], state["skipped"]


@dataclass
class Watchdog:
    """Stops a training whose loss or gradient is not finite any more, and says where that began.

    Parameters
    ----------
    channels
        Names for the message.
    times
        int64 seconds of the store, to name the batch's times.
    calendar
        Of the times.
    scaled
        Whether a loss scale may skip steps with gradients that are not finite (fp16).
    """

    channels: ChannelTable
    times: np.ndarray
    calendar: str = "standard"
    scaled: bool = False
    skipped: int = field(default=0)

    def check(self, records: list[StepRecord]) -> None:
        """Look at steps in their order.

        Raises
        ------
        NonFiniteError
            Naming the first bad step, the times of its batch and the channels concerned.
        """
        for record in records:
            if not math.isfinite(record.loss):
                self._stop(record, "loss")
            if math.isfinite(record.grad_norm):
                self.skipped = 0
                continue
            self.skipped += 1
            if not self.scaled or self.skipped > MOST_SKIPS:
                self._stop(record, "gradient")

    def _stop(self, record: StepRecord, what: str) -> None:
        names = [self.channels.names[i] for i in self.channels.prognostic]
        bad = [
            name for name, value in zip(names, record.per_channel, strict=True) if not math.isfinite(value)
        ]
        if bad:
            where = f"the loss is not finite in {_some(bad)}"
        else:
            worst = int(np.nanargmax(record.per_channel))
            where = f"the largest loss, {record.per_channel[worst]:.3g}, is in {names[worst]}"
        raise NonFiniteError(
            f"The {what} of step {record.step} is {record.loss if what == 'loss' else record.grad_norm}; {where}. "
            f"Its batch begins at {_some([self._when(i) for i in record.starts], 8)}.",
            remedy=(
                "Look at these samples for values that are missing or out of range; else lower the learning rate or "
                "clip gradients. Earlier checkpoints are intact."
            ),
        )

    def _when(self, index: int) -> str:
        seconds = int(self.times[index])
        if self.calendar in ("standard", "gregorian", "proleptic_gregorian"):
            return str(np.datetime64(seconds, "s"))[:16]
        return f"time index {index}"


def _some(items: list[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
