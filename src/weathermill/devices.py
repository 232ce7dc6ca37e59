"""Which device to compute on."""

from __future__ import annotations

import torch


def choose_device(name: str = "auto") -> torch.device:
    """CUDA, then MPS, then the CPU; or the one that is named."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
