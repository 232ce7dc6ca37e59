"""A line that says how far a training is, without any library: in place on a terminal, now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[int, int, str], None]


class ProgressLine:
    """The default progress callback.

    Parameters
    ----------
    stream
        Where to write; standard error by default.
    every
        Least seconds between two writings: on a terminal a tenth of it.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 5.0) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.every = every / 50 if self.terminal else every
        self._start = self._last = time.monotonic()
        self._first: int | None = None
        self._width = 0

    def __call__(self, done: int, total: int, text: str) -> None:
        """Say that `done` of `total` steps are done; `text` holds the latest numbers."""
        if self._first is None:
            # Steps of an earlier process, before a resume, took none of this one's time.
            self._first, self._start = done, time.monotonic()
        now = time.monotonic()
        if now - self._last < self.every and done < total:
            return
        self._last = now
        rate = (done - self._first) / max(1e-9, now - self._start)
        left = f", {_clock((total - done) / rate)} left" if rate > 0 and done < total else ""
        line = f"train: {100 * done / max(1, total):3.0f} % ({done}/{total} steps{left}) {text}"
        if not self.terminal:
            logger.info(line)
            return
        self.stream.write("\r" + line.ljust(self._width))
        self.stream.flush()
        self._width = len(line)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leave the line standing and begin a new one."""
        if self.terminal and self._width:
            self.stream.write("\n")
            self._width = 0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:d}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:d}:{seconds:02d}"
