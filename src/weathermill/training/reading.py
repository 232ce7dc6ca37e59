"""Threads that read a store, and what becomes of a training when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from weathermill.errors import StoreError, WeathermillError
from weathermill.tensors.store import TensorStore

#: How often one who waits looks whether those he waits for are still there.
LOOK_SECONDS = 1.0


class ReadingThreads:
    """Threads that read a store, of which one that fails or dies ends the training and does not hang it.

    Parameters
    ----------
    store
        What they read; for messages.
    number
        How many there are.
    """

    def __init__(self, store: TensorStore, number: int) -> None:
        self.store = store
        self._there: list[threading.Thread] = []
        self.pool = ThreadPoolExecutor(
            number,
            thread_name_prefix="weathermill-read",
            initializer=lambda: self._there.append(threading.current_thread()),
        )

    def finish(self, futures: Sequence[Future]) -> None:
        """Wait until all is read.

        Raises
        ------
        StoreError
            If a thread raised something that is no error of ours, or died.
        """
        for future in futures:
            error = self._outcome(future)
            if error is not None:
                raise error if isinstance(error, WeathermillError) else self.failure(repr(error)) from error

    def _outcome(self, future: Future) -> BaseException | None:
        while True:
            try:
                return future.exception(timeout=LOOK_SECONDS)
            except TimeoutError:
                if not all(thread.is_alive() for thread in self._there):
                    raise self.failure("a thread that reads it is gone") from None

    def failure(self, why: str) -> StoreError:
        """Make the error that says so."""
        return StoreError(
            f"reading training data failed: {why}",
            where=str(self.store.path),
            remedy="Look after the disk, then go on with `--params train.resume=true`.",
        )

    def abandon(self, futures: Sequence[Future]) -> None:
        """Have what has not begun never begin, and wait for the rest."""
        # Those cancelled are not waited for: a thread would have to come by to settle them.
        wait([future for future in futures if not future.cancel()])

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)
