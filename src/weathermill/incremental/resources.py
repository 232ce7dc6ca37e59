"""What a stage takes: its peak of host memory, measured; and the disk space that a run needs, estimated."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

from weathermill.errors import ResourceError

_SAMPLE_SECONDS = 0.1
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most memory (resident set) that this process has held since :meth:`start`.

    Linux keeps that mark itself and lets it be reset, which costs nothing; elsewhere a thread looks ten times a
    second. Child processes, such as the workers of a Dask cluster, are not counted.
    """

    def __init__(self) -> None:
        self._stop: threading.Event | None = None
        self._peak = 0

    def start(self) -> None:
        """Begin anew, once what earlier stages have freed is given back to the system."""
        self.close()
        give_back_freed()
        self._peak = psutil.Process().memory_info().rss
        if not _reset_mark():
            self._stop = threading.Event()
            threading.Thread(
                target=self._watch, args=(self._stop,), name="weathermill-memory", daemon=True
            ).start()

    def _watch(self, stop: threading.Event) -> None:
        process = psutil.Process()
        while not stop.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, process.memory_info().rss)

    def bytes(self) -> int:
        """The peak so far."""
        return max(self._peak, psutil.Process().memory_info().rss, 0 if self._stop else _mark())

    def close(self) -> None:
        """Stop looking."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None


def give_back_freed() -> None:
    """Have the C library return freed memory, which it otherwise keeps for later, to the system, where it can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_mark() -> bool:
    try:
        _CLEAR.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def _mark() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        line = next(
            line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")
        )
        return int(line.split()[1]) * 1024
    return 0


def existing_parent(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def require_disk(needed: Mapping[Path, int]) -> int:
    """Refuse a run whose outputs would not find room.

    Parameters
    ----------
    needed
        Estimated bytes of each output that the run will write. An output that stands is replaced only once the new
        one is whole, so that both are on the disk for a while.

    Returns
    -------
    int
        The sum, in bytes.

    Raises
    ------
    ResourceError
        If a file system has less free than its outputs need.
    """
    by_device: dict[int, tuple[Path, int]] = {}
    for path, size in needed.items():
        folder = existing_parent(path)
        device = folder.stat().st_dev
        known = by_device.get(device, (folder, 0))
        by_device[device] = (known[0], known[1] + size)
    for folder, size in by_device.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise ResourceError(
                f"this run will write about {size / 2**20:.1f} MiB and {free / 2**20:.1f} MiB are free",
                where=str(folder),
                remedy="Free disk space or change the filepaths in the catalog; "
                "`--params resources.disk_check=false` tries nevertheless.",
            )
    return sum(needed.values())
