"""Ending a run on request: SIGTERM and SIGHUP leave it by the same way as an error, so that it is tidied up after."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from kedro.framework.hooks import hook_impl

#: Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class TerminationHook:
    """Has these signals raise `SystemExit`: before all other hooks, and until after them.

    A signal that the process ignores, as SIGHUP under ``nohup``, stays ignored.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        """Set the handlers; only the main thread can."""
        self._restore()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN:
                    self._previous[number] = handler
                    signal.signal(number, self._terminated)

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Put back those that were there."""
        self._restore()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Put back those that were there."""
        self._restore()

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._previous = {}
