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
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
            # The page cache counts as used there, but gives way.
            stat = dict(
                line.split()
                for line in Path("/sys/fs/cgroup/memory.stat").read_text(encoding="utf-8").splitlines()
            )
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
        count = int(np.prod(shape))
        nbytes = max(1, count * dtype.itemsize)
        self._memory = _map_memory(nbytes)
        self.array = np.frombuffer(self._memory, dtype=dtype, count=count).reshape(shape)
        self.pinned = self._registered = False
        if pin:
            self._registered = self.pinned = _register(self.array.ctypes.data, nbytes)
            if not self.pinned:
                self._fall_back(nbytes, shape, dtype)

    def _fall_back(self, nbytes: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        try:
            locked = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            logger.warning(
                "%.1f GiB of host memory could not be page-locked (%s); copies to the device will not overlap with "
                "computing.",
                nbytes / 2**30,
                error,
            )
            return
        self.pinned = True
        self.array = locked.numpy()[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
        self._memory.close()

    def close(self) -> None:
        """Unlock the memory; it is freed once nothing refers to it."""
        self.pinned = False
        if self._registered:
            self._registered = False
            torch.cuda.cudart().cudaHostUnregister(self.array.ctypes.data)


def _register(address: int, nbytes: int) -> bool:
    """Page-lock memory that is there; some sandboxes cannot."""
    if int(torch.cuda.cudart().cudaHostRegister(address, nbytes, 0)) == 0:
        return True
    # CUDA keeps the error for whoever asks next, which would be an innocent kernel.
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")
    return False
