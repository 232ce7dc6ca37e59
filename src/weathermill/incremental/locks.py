"""Locks on stores, so that two runs at once neither write the same store nor read one that is being replaced.

A lock is the operating system's lock (``flock``) on ``<store>.lock``, which also names the holders. The system drops
it when its holder ends, however it ends, so a lock of a dead process never has to be guessed stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weathermill.errors import StoreLockedError, UnwritableOutputError

logger = logging.getLogger(__name__)

SUFFIX = ".lock"
_POLL_SECONDS = 0.2
_TELL_SECONDS = 30.0
_BUSY = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock_path(store: Path) -> Path:
    """Where the lock of a store is."""
    return store.with_name(store.name + SUFFIX)


def _me() -> dict[str, Any]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command[:200],
    }


def _in_words(holders: Iterable[Mapping[str, Any]]) -> str:
    said = [f"process {h.get('pid')} on {h.get('host')} since {h.get('since')}" for h in holders]
    return "; ".join(said) or "another process"


class StoreLock:
    """The lock of one store.

    Parameters
    ----------
    store
        The file or folder to lock; it need not exist.
    exclusive
        To write; shared otherwise, to read.
    """

    def __init__(self, store: Path, *, exclusive: bool) -> None:
        self.store = Path(store)
        self.exclusive = exclusive
        self._path = lock_path(self.store)
        self._handle: int | None = None
        self._made: list[Path] = []

    def acquire(self) -> bool:
        """Try once; say whether it is held now.

        Where a file system has no locks, a warning says so and the store counts as locked.

        Raises
        ------
        UnwritableOutputError
            If the lock is exclusive and its file cannot be made.
        """
        try:
            handle = self._open()
        except OSError as error:
            if not self.exclusive:
                # Who may not write here cannot lock here either; what is read is left to the writers' care.
                return True
            raise UnwritableOutputError(
                f"cannot write: {error.strerror}", where=str(error.filename or self.store)
            ) from error
        try:
            if self._take(handle):
                self._handle = handle
                return True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(handle)
                raise
            logger.warning(
                "%s cannot be locked here (%s): start no second run on it", self.store, error.strerror
            )
            os.close(handle)
            with contextlib.suppress(OSError):
                self._path.unlink()
            return True
        os.close(handle)
        return False

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT
        if not self.exclusive:
            return os.open(self._path, flags, 0o666)
        self._made = [folder for folder in self._path.parents if not folder.exists()]
        for _ in range(10):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                # Another run that let go may have removed a folder that it had made for its lock alone.
                return os.open(self._path, flags, 0o666)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))

    def _take(self, handle: int) -> bool:
        alone = _flock(handle, fcntl.LOCK_EX)
        if not alone and (self.exclusive or not _flock(handle, fcntl.LOCK_SH)):
            return False
        if not self._is_the_file(handle):
            # Its holder removed the file between our opening and locking it.
            return False
        if alone:
            os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_END)
        os.write(handle, (json.dumps(_me()) + "\n").encode())
        if alone and not self.exclusive:
            fcntl.flock(handle, fcntl.LOCK_SH)
        return True

    def _is_the_file(self, handle: int) -> bool:
        try:
            return os.fstat(handle).st_ino == self._path.stat().st_ino
        except OSError:
            return False

    def share(self) -> None:
        """Turn an exclusive lock into a shared one."""
        if self._handle is not None and self.exclusive:
            fcntl.flock(self._handle, fcntl.LOCK_SH)
        self.exclusive = False

    def release(self) -> None:
        """Let go; the last holder removes the file, and folders made for it that are empty."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        with contextlib.suppress(OSError):
            if _flock(handle, fcntl.LOCK_EX) and self._is_the_file(handle):
                self._path.unlink()
        os.close(handle)
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def holders(self) -> list[dict[str, Any]]:
        """Who holds it, as far as the file says."""
        try:
            return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError):
            return []


def remove_stale(store: Path) -> bool:
    """Remove the lock file that a killed run left at a store that nobody locks any more; say whether there was one.

    The system has dropped the lock itself. Nothing is done where one of the holders named may be alive.
    """
    lock = StoreLock(store, exclusive=True)
    try:
        age = time.time() - lock_path(store).stat().st_mtime
    except OSError:
        return False
    holders = lock.holders()
    # Who makes a lock file writes its name into it a moment later.
    if any(_may_live(holder) for holder in holders) or (not holders and age < _TELL_SECONDS):
        return False
    with contextlib.suppress(OSError, UnwritableOutputError):
        if lock.acquire():
            lock.release()
            return True
    return False


def _may_live(holder: Mapping[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (KeyError, TypeError, ValueError, OSError):
        return True
    return True


def _flock(handle: int, operation: int) -> bool:
    try:
        fcntl.flock(handle, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


class StoreLocks:
    """All locks of one run.

    Parameters
    ----------
    wait
        Whether to wait for a store that is in use; otherwise that is an error at once.
    timeout
        How many seconds to wait at most; None for ever.
    """

    def __init__(self, *, wait: bool = True, timeout: float | None = None) -> None:
        self.wait = wait
        self.timeout = timeout
        self._held: dict[Path, StoreLock] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def __contains__(self, store: Path) -> bool:
        return store in self._held

    def covers(self, exclusive: Collection[Path], shared: Collection[Path]) -> bool:
        """Say whether all these are held already."""
        return all(path in self._held and self._held[path].exclusive for path in exclusive) and all(
            path in self._held for path in shared
        )

    def acquire(self, exclusive: Collection[Path], shared: Collection[Path] = ()) -> bool:
        """Lock all, in the order of their paths, so that two runs never wait for each other.

        Parameters
        ----------
        exclusive
            Stores to write.
        shared
            Stores to read.

        Returns
        -------
        bool
            Whether it had to wait, so that the stores may have changed since they were looked at.

        Raises
        ------
        StoreLockedError
            If one is in use and waiting is not allowed, or took too long; names the holder.
        """
        waited = False
        wanted = {path: False for path in shared} | {path: True for path in exclusive}
        try:
            for path in sorted(wanted):
                lock = StoreLock(path, exclusive=wanted[path])
                waited |= self._acquire_one(lock)
                self._held[path] = lock
        except BaseException:
            self.release()
            raise
        return waited

    def _acquire_one(self, lock: StoreLock) -> bool:
        if lock.acquire():
            return False
        start, told = time.monotonic(), -_TELL_SECONDS
        while True:
            elapsed = time.monotonic() - start
            if not self.wait or (self.timeout is not None and elapsed >= self.timeout):
                waited = f" after waiting {elapsed:.0f} s" if self.wait else ""
                raise StoreLockedError(
                    f"is in use by {_in_words(lock.holders())}{waited}", where=str(lock.store)
                )
            if elapsed - told >= _TELL_SECONDS:
                told = elapsed
                logger.info("waiting for %s, in use by %s", lock.store, _in_words(lock.holders()))
            time.sleep(_POLL_SECONDS)
            if lock.acquire():
                return True

    def keep(self, exclusive: Collection[Path], shared: Collection[Path]) -> None:
        """Let go of all that is in neither, and share what is only read from now on."""
        for path in list(self._held):
            if path not in exclusive and path not in shared:
                self._held.pop(path).release()
            elif path not in exclusive:
                self._held[path].share()

    def release(self) -> None:
        """Let go of all."""
        while self._held:
            self._held.popitem()[1].release()
