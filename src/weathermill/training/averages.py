"""Means of losses over an epoch and between logged points, such that an interruption leaves no trace in them."""

from __future__ import annotations

from typing import Any

from weathermill.training.watchdog import StepRecord


class LossAverages:
    """Running sums, added up one step after the other, whatever the pieces in which the steps arrive.

    Parameters
    ----------
    every
        Steps that one logged point stands for; points lie at its multiples and at the last step.
    total
        Steps of the whole training.
    """

    def __init__(self, every: int, total: int) -> None:
        self.every, self.total = every, total
        self._epoch, self._steps = 0.0, 0
        self._loss, self._norm, self._count = 0.0, 0.0, 0

    def add(self, record: StepRecord) -> dict[str, float] | None:
        """Take in a step; gives the metrics of a point where one is due."""
        self._epoch += record.loss
        self._steps += 1
        self._loss += record.loss
        self._norm += record.grad_norm
        self._count += 1
        if record.step % self.every and record.step != self.total:
            return None
        point = {"train/loss": self._loss / self._count, "train/grad_norm": self._norm / self._count}
        self._loss, self._norm, self._count = 0.0, 0.0, 0
        return point

    def end_epoch(self) -> float:
        """Give the mean loss of the epoch, and begin the next."""
        mean = self._epoch / max(1, self._steps)
        self._epoch, self._steps = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"epoch": [self._epoch, self._steps], "point": [self._loss, self._norm, self._count]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._epoch, self._steps = state["epoch"]
        self._loss, self._norm, self._count = state["point"]
