"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)


class Progress:
    """Progress of one long step.

    Parameters
    ----------
    label
        What is being done.
    total
        How many units there are.
    unit
        What a unit is, in the plural.
    every
        On anything but a terminal, the least number of seconds between two lines.
    """

    def __init__(self, label: str, total: int, unit: str = "steps", every: float = 5.0) -> None:
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = 0
        self._start = self._last = time.monotonic()
        self._bar = (
            tqdm(total=total, desc=label, unit=f" {unit}", leave=False) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            seconds = time.monotonic() - self._start
            logger.info("%s: %d %s in %.1f s", self.label, self.done, self.unit, seconds)

    def update(self, n: int = 1) -> None:
        """Count ``n`` more units as done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
            return
        now = time.monotonic()
        if now - self._last >= self.every and self.done < self.total:
            self._last = now
            remaining = (now - self._start) / self.done * (self.total - self.done)
            share = 100 * self.done / self.total
            logger.info(
                "%s: %.0f %% (%d/%d %s), %.0f s left",
                self.label,
                share,
                self.done,
                self.total,
                self.unit,
                remaining,
            )
