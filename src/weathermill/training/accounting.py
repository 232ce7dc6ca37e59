"""Counting memory without using any: live meta tensors, by the part of the network that made them."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weathermill.training.step import TrainingStep

# The caching allocator hands out multiples of this.
_GRAIN = 512


class Accountant(TorchDispatchMode):
    """Counts live storages of meta tensors by the part they were made in, and keeps the books of the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.part = "other"
        self.step = 0
        self.live: Counter[str] = Counter()
        self.total = 0
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self._known: dict[int, Any] = {}

    def enter(self, part: str) -> None:
        """Book what follows under `part`; each ``input`` begins a rollout step."""
        if part == "input":
            self.step += 1
        if part in ("weights", "gradients"):
            self.part = "lowered weights" if part == "weights" else "gradients"
        elif part == "backward":
            self.part = "images of the backward pass"
        else:
            self.part = f"activations, step {self.step}: {part}"

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                self._book(leaf)
        return result

    def _book(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // _GRAIN) * _GRAIN
        part = self.part
        self._known[key] = weakref.finalize(storage, self._release, key, part, size)
        self.live[part] += size
        self.total += size
        if self.total > self.peak:
            self.peak = self.total
            self.at_peak = {name: held for name, held in self.live.items() if held}

    def _release(self, key: int, part: str, size: int) -> None:
        self._known.pop(key, None)
        self.live[part] -= size
        self.total -= size

    def ignore(self, *tensors: Tensor) -> None:
        """Leave out what is there before the step."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()._cdata] = weakref.finalize(tensor.untyped_storage(), int)

    def close(self) -> None:
        """Forget all storages."""
        for finaliser in self._known.values():
            finaliser.detach()
        self._known.clear()


@contextmanager
def listening(step: TrainingStep, accountant: Accountant) -> Iterator[None]:
    """Book what layers make under their names, where the network does not say so itself."""
    network = step.forecaster.network
    hooks = []
    if not (hasattr(network, "takes_fast_pass") and network.takes_fast_pass(torch.device("meta"))):
        hooks.append(network.register_forward_pre_hook(lambda *_: accountant.enter("input")))
        for name, module in _called_parts(network):
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: accountant.enter(name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _called_parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children of a network, those in lists one by one, as lists are not called."""
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{i}", module) for i, module in enumerate(child))
        else:
            yield name, child
