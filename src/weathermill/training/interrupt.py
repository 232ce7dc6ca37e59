"""Stopping a training between two steps, so that its state is saved before the process goes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

#: Signals that ask a training to save its state and stop; Windows has no SIGHUP.
STOP_SIGNALS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)


class StopRequest:
    """Whether, and by which signal, a training was asked to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Say whether a stop was asked for."""
        return self._event.is_set()

    def set(self, number: int | None = None) -> None:
        """Ask for the stop."""
        self.signal = number
        self._event.set()


@contextlib.contextmanager
def deferred_signals(numbers: tuple[int, ...] = STOP_SIGNALS) -> Iterator[StopRequest]:
    """Inside, turn these signals into a stop request; a second one of the same kind acts at once.

    When the block ends, the handlers that were there before are back, and a signal that came is raised
    again for them: whoever owns the process decides what it means. A signal that the process ignores, such as
    SIGHUP under ``nohup``, stays ignored. Only the main thread can set handlers; elsewhere the request is never set.

    Yields
    ------
    StopRequest
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in numbers}
    previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def handle(number: int, frame: object) -> None:
        request.set(number)
        signal.signal(number, previous[number] or signal.SIG_DFL)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if request.signal is not None:
            signal.raise_signal(request.signal)
