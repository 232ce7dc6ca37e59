"""How CUDA computes products and convolutions: tensor cores, and the same bits every time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def products(device: torch.device, precision: str, deterministic: bool) -> Iterator[None]:
    """Set torch's switches, inside only; other devices have none.

    Parameters
    ----------
    device
        Where.
    precision
        ``"fp32"`` keeps float32 products from being rounded to TF32; all others let them.
    deterministic
        Whether cuDNN may neither try out algorithms nor use any whose sums come in changing order.
    """
    if device.type != "cuda":
        yield
        return
    fast = precision != "fp32"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matmul = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = fast
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=not deterministic, deterministic=deterministic, allow_tf32=fast
            ):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = matmul
