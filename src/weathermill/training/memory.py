"""How much memory is free, and buffers that a GPU can copy from without a detour."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from pathlib import Path

import numpy as np
import torch

logger = logging.getLogger(__name__)


def available_host_memory() -> int:
    """Bytes that this process may still take, within what its control group allows."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            # The page cache counts as used there, but gives way.
            stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
            available = min(available, int(limit) - used + int(stat.get("file", 0)))
    except (OSError, ValueError):
        pass
    return max(0, available)


def available_device_memory(device: torch.device) -> int:
    """Bytes free on a CUDA device, those that torch holds in reserve included; 0 for other devices."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _map_memory(nbytes: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, nbytes)
    # Private, unlike Python's default: only then does Linux back it with huge pages, which are locked much faster.
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class HostBuffer:
    """Page-aligned host memory, page-locked where a CUDA device shall copy from it asynchronously.

    torch's own pinned allocator rounds up to a power of two, which for a data set of 33 GB takes 64; locking
    ordinary memory does not.

    Parameters
    ----------
    shape, dtype
        Of the array.
    pin
        Whether to lock it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, pin: bool) -> None:
        nbytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        self._memory = _map_memory(nbytes)
        self.array = np.frombuffer(self._memory, dtype=dtype, count=int(np.prod(shape))).reshape(shape)
        self.pinned = False
        if pin:
            status = torch.cuda.cudart().cudaHostRegister(self.array.ctypes.data, nbytes, 0)
            self.pinned = int(status) == 0
            if not self.pinned:
                logger.warning(
                    "%.1f GiB of host memory could not be page-locked (CUDA error %s); copies to the device "
                    "will not overlap with computing.",
                    nbytes / 2**30,
                    status,
                )

    def close(self) -> None:
        """Unlock the memory; it is freed once nothing refers to it."""
        if self.pinned:
            self.pinned = False
            torch.cuda.cudart().cudaHostUnregister(self.array.ctypes.data)
