"""Nested training state as named tensors and JSON, and back: nothing is ever pickled."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from weathermill.errors import CheckpointError

Tensors = dict[str, torch.Tensor]

# Keys of one-entry dictionaries that stand for what JSON cannot say.
_MARKS = ("$tensor", "$array", "$tuple", "$items")


def flatten(tree: Any, path: str = "") -> tuple[Any, Tensors]:
    """Split a tree of dicts, lists, tuples, scalars, strings, arrays and tensors into JSON and tensors.

    Parameters
    ----------
    tree
        Dictionary keys may be strings or integers, as in the state of a torch optimiser.
    path
        Prefix of the tensors' names.

    Returns
    -------
    skeleton, tensors
        The JSON-ready tree in which each tensor is replaced by its name, and the tensors by name, on the CPU,
        contiguous and with memory of their own.

    Raises
    ------
    CheckpointError
        When the tree holds anything else; names where.
    """
    tensors: Tensors = {}
    return _flatten(tree, path or "", tensors), tensors


def _flatten(node: Any, path: str, tensors: Tensors) -> Any:
    if isinstance(node, (torch.Tensor, np.ndarray)):
        while path in tensors:  # {"a.b": …, "a": {"b": …}} would give one name twice
            path += "'"
    if isinstance(node, torch.Tensor):
        # A copy even from the CPU: the optimiser writes in place while the checkpoint is still being saved.
        tensors[path] = node.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": path}
    if isinstance(node, np.ndarray):
        # torch lacks most unsigned dtypes, so arrays travel as bytes.
        data = np.ascontiguousarray(node)
        tensors[path] = torch.from_numpy(data.reshape(-1).view(np.uint8).copy())
        return {"$array": [path, data.dtype.str, list(node.shape)]}
    if node is None or isinstance(node, (bool, str)):
        return node
    if isinstance(node, (int, np.integer)):
        return int(node)
    if isinstance(node, (float, np.floating)):
        return float(node)
    if isinstance(node, tuple):
        return {"$tuple": [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(node)]}
    if isinstance(node, list):
        return [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(node)]
    if isinstance(node, dict):
        items = [
            (key, _flatten(value, f"{path}.{key}" if path else str(key), tensors))
            for key, value in node.items()
        ]
        if all(isinstance(key, str) and key not in _MARKS for key in node):
            return dict(items)
        if all(isinstance(key, (str, int)) for key in node):
            return {"$items": [[key, value] for key, value in items]}
    raise CheckpointError(f"State {path!r} holds a {type(node).__name__}, which a checkpoint cannot hold.")


def unflatten(skeleton: Any, tensors: Tensors) -> Any:
    """Put together again what `flatten` took apart."""
    if isinstance(skeleton, list):
        return [unflatten(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if len(skeleton) == 1:
        ((mark, value),) = skeleton.items()
        if mark == "$tensor":
            return tensors[value]
        if mark == "$array":
            name, dtype, shape = value
            return tensors[name].numpy().view(np.dtype(dtype)).reshape(shape).copy()
        if mark == "$tuple":
            return tuple(unflatten(item, tensors) for item in value)
        if mark == "$items":
            return {key: unflatten(item, tensors) for key, item in value}
    return {key: unflatten(item, tensors) for key, item in skeleton.items()}


def random_state() -> dict[str, Any]:
    """Take the state of every global random stream: Python, NumPy, torch on the CPU and on CUDA."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` took; CUDA streams only as far as there are devices."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        for device, stream in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(stream, device)


def seed_everything(seed: int) -> None:
    """Seed the global random streams that `random_state` takes."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(seed: int, purpose: str, epoch: int = 0, rank: int = 0) -> np.random.Generator:
    """Make the NumPy generator of one purpose, independent of all others and of the order of their making."""
    words = [seed & 0xFFFFFFFF, seed >> 32, epoch, rank, *purpose.encode()]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
