"""Where device memory goes in training: predicted without a device, measured on one, and what would fit.

A prediction runs the training step itself on *meta* tensors, which have shapes but no values, and keeps account of
every allocation and release. It therefore follows the code, whatever the network: nothing is estimated but the
workspaces of cuDNN and cuBLAS and what the allocator loses to fragmentation.
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weathermill.errors import ResourceError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig, TrainingStep

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The caching allocator hands out multiples of this.
_GRAIN = 512
# cuBLAS keeps one workspace a stream on Hopper cards; with CUDA graphs the capturing stream has its own.
_CUBLAS_WORKSPACE = 32 * 2**20
# Share of the images that the allocator loses to rounding and holes; measured, see docs/performance.md.
FRAGMENTATION = 0.15
# What the CUDA context and loaded kernels take outside torch's allocator.
CONTEXT_BYTES = 600 * 2**20


@dataclass(frozen=True)
class Ledger:
    """Device memory of a training step at its peak.

    Parameters
    ----------
    parts
        Bytes by part: parameters, gradients, optimiser, average, window, workspace, ``activations, step 1: down.0``
        and so on for each block and rollout step, images of the backward pass.
    fragmentation
        Bytes that the allocator holds beyond these.
    measured
        Whether the total was measured on a device.
    batch, grid, rollout
        What it is for.
    """

    parts: Mapping[str, int]
    fragmentation: int
    batch: int
    grid: tuple[int, int]
    rollout: int
    measured: bool = False

    @property
    def total(self) -> int:
        """Peak of allocated bytes, comparable to ``torch.cuda.max_memory_allocated``."""
        return sum(self.parts.values())

    @property
    def reserved(self) -> int:
        """Bytes that the device must have free for it, fragmentation and the CUDA context included."""
        return self.total + self.fragmentation + CONTEXT_BYTES

    def summary(self) -> dict[str, int]:
        """Bytes of the kinds of parts: activations of all blocks and steps are one kind."""
        kinds: Counter[str] = Counter()
        for name, size in self.parts.items():
            kinds[name.split(",")[0].split(":")[0]] += size
        return dict(kinds)

    def table(self, detail: bool = True) -> str:
        """Text table, in MiB; with `detail` a line for each block and rollout step."""
        rows = list((self.parts if detail else self.summary()).items())
        rows = [(name, size) for name, size in rows if size >= 2**10]
        rows += [
            ("total", self.total),
            ("fragmentation", self.fragmentation),
            ("CUDA context", CONTEXT_BYTES),
            ("needed on the device", self.reserved),
        ]
        width = max(len(name) for name, _ in rows)
        head = (
            f"Device memory, {'measured' if self.measured else 'predicted'}: batch {self.batch}, grid "
            f"{self.grid[0]}x{self.grid[1]}, rollout {self.rollout}"
        )
        lines = [f"{name:<{width}}  {size / 2**20:>12,.1f} MiB" for name, size in rows]
        return "\n".join([head, *lines])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "batch": self.batch,
            "grid": list(self.grid),
            "rollout": self.rollout,
            "measured": self.measured,
            "parts": dict(self.parts),
            "total": self.total,
            "fragmentation": self.fragmentation,
            "reserved": self.reserved,
        }


class _Accountant(TorchDispatchMode):
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


def predict(
    model_config: ModelConfig,
    n_channels: int,
    grid: tuple[int, int],
    batch: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
    *,
    n_forcing: int = 0,
    n_static: int = 0,
    latitude: np.ndarray | None = None,
) -> Ledger:
    """Predict the memory of a training step on a CUDA device, without one.

    Parameters
    ----------
    model_config
        The network.
    n_channels
        Prognostic channels.
    grid
        (latitudes, longitudes).
    batch
        Windows in a batch.
    step_config
        Precision, checkpointing and so on; as resolved for CUDA.
    rollout
        Forecast steps of a window.
    rollout_config
        Whether steps are recomputed.
    n_forcing, n_static
        Further input channels.
    latitude
        Degrees; equally spaced with pole points when None.

    Returns
    -------
    Ledger
    """
    forecaster = blank_forecaster(
        model_config, n_channels, grid, n_forcing=n_forcing, n_static=n_static, latitude=latitude
    )
    return predict_for(forecaster, batch, step_config, rollout, rollout_config)


def blank_forecaster(
    model_config: ModelConfig,
    n_channels: int,
    grid: tuple[int, int],
    *,
    n_forcing: int = 0,
    n_static: int = 0,
    latitude: np.ndarray | None = None,
) -> Forecaster:
    """Build an untrained forecaster of these sizes, for which memory can be predicted; see `predict`."""
    channels = [Channel(f"field_{i}", "field", float(i)) for i in range(n_channels)]
    channels += [Channel(f"forcing_{i}", "forcing", role="forcing") for i in range(n_forcing)]
    channels += [Channel(f"static_{i}", "static", role="static") for i in range(n_static)]
    latitude = np.linspace(90.0, -90.0, grid[0]) if latitude is None else latitude
    ones = np.ones(len(channels))
    return Forecaster(
        model_config,
        ChannelTable(channels),
        latitude,
        np.arange(grid[1]) * (360.0 / grid[1]),
        mean=ones,
        std=ones,
        tendency_std=ones,
        static=np.zeros((n_static, *grid), dtype=np.float32),
    )


def predict_for(
    forecaster: Forecaster,
    batch: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
) -> Ledger:
    """Predict the memory of training `forecaster`, which is left alone, on a CUDA device; see `predict`."""
    config = (step_config or StepConfig()).resolved("cuda")
    copied = copy.deepcopy(forecaster).to("meta")
    network = copied.network
    lowered = _DTYPES.get(config.precision)
    if hasattr(network, "takes_fast_pass"):
        network.fused = True
        network.image_dtype = lowered
    fast = copied.takes_fast_pass(torch.empty((1, 1, 1, 1), device="meta"))
    loss = AreaWeightedLoss("mse", np.ones(forecaster.grid_shape[0]))
    step = TrainingStep(copied, loss, None, replace(config, cuda_graph=False), rollout_config, "meta")
    window = torch.empty(
        (batch, rollout + 1, forecaster.n_dynamic, *forecaster.grid_shape), dtype=torch.float16, device="meta"
    )
    accountant = _Accountant()
    if not fast and lowered is not None:
        # Autocast knows no meta tensors; layers of the lower type make images of that type.
        network.to(lowered).register_forward_pre_hook(lambda _, inputs: tuple(x.to(lowered) for x in inputs))
    if hasattr(network, "observer"):
        network.observer = accountant.enter
    accountant.ignore(window, *copied.parameters(), *copied.buffers(), *loss.buffers(), *(step.ema or ()))
    with _listening(step, accountant), accountant:
        step.accumulate_gradients(window)
    accountant.close()

    parameters = list(forecaster.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    fixed = {
        "parameters": 4 * sum(p.numel() for p in parameters),
        "buffers": sum(b.numel() * b.element_size() for b in forecaster.buffers()),
        "optimiser": 8 * trained,
        "average": 4 * trained if config.ema_decay is not None else 0,
        "window": _bytes(window) * (2 if config.cuda_graph else 1),
    }
    images = {k: v for k, v in accountant.at_peak.items() if k not in fixed}
    gradients = images.pop("gradients", 0)
    workspace = _CUBLAS_WORKSPACE * (2 if config.cuda_graph else 1) + _convolution_workspace(forecaster)
    parts = {
        **{k: v for k, v in fixed.items() if v},
        "gradients": gradients,
        **dict(sorted(images.items())),
        "workspace": workspace,
    }
    dynamic = sum(images.values())
    return Ledger(
        parts, int(FRAGMENTATION * dynamic), batch, tuple(forecaster.grid_shape), rollout, measured=False
    )


def measure(
    forecaster: Forecaster,
    batch: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
    device: torch.device | str = "cuda",
) -> Ledger:
    """Measure the memory of a training step on a CUDA device by a dry step on a copy.

    `forecaster`, its optimiser and all random streams are left alone: the copy has its own, and its window is drawn
    from its own generator.

    Parameters
    ----------
    forecaster
        What would be trained.
    batch, step_config, rollout, rollout_config
        See `predict`.
    device
        A CUDA device.

    Returns
    -------
    Ledger
        Its parts are the predicted ones, and ``unexplained``: what was measured beyond them.

    Raises
    ------
    ResourceError
        When the step does not fit the device.
    """
    device = torch.device(device)
    config = (step_config or StepConfig()).resolved(device)
    predicted = predict_for(forecaster, batch, config, rollout, rollout_config)
    with torch.random.fork_rng([device]):
        before = torch.cuda.memory_allocated(device)
        try:
            step = TrainingStep(
                copy.deepcopy(forecaster),
                AreaWeightedLoss("mse", np.ones(forecaster.grid_shape[0])),
                None,
                replace(config, cuda_graph=False),
                rollout_config,
                device,
            )
            generator = torch.Generator(device).manual_seed(0)
            shape = (batch, rollout + 1, forecaster.n_dynamic, *forecaster.grid_shape)
            window = torch.empty(shape, dtype=torch.float16, device=device).normal_(generator=generator)
            # Twice: the first step also tries out convolution algorithms, with workspaces of their own.
            step(window)
            torch.cuda.reset_peak_memory_stats(device)
            step(window)
            torch.cuda.synchronize(device)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"A training step of batch {batch} does not fit the device: "
                f"{predicted.reserved / 2**30:.2f} GiB predicted.",
                where=str(device),
                remedy="Lower the batch, or see the ledger's advice.",
            ) from error
        finally:
            step = window = None
    peak = torch.cuda.max_memory_allocated(device) - before
    # The graph's own copy of the window is no part of an eager step.
    if config.cuda_graph:
        peak += predicted.parts["window"] // 2 + _CUBLAS_WORKSPACE
    reserved = torch.cuda.memory_reserved(device)
    fragmentation = max(0, reserved - torch.cuda.max_memory_allocated(device))
    torch.cuda.empty_cache()
    parts = {**predicted.parts, "unexplained": peak - predicted.total}
    return Ledger(parts, fragmentation, batch, predicted.grid, rollout, measured=True)


def largest_batch(
    forecaster: Forecaster,
    budget: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
) -> int:
    """Largest batch whose training step fits `budget` bytes of a CUDA device; 0 when none does."""
    one, two = (predict_for(forecaster, b, step_config, rollout, rollout_config).reserved for b in (1, 2))
    if one > budget:
        return 0
    # Images are proportional to the batch, but for rounding and the moment of the peak: begin near there, bisect.
    guess = max(1, 1 + (budget - one) // max(1, two - one))
    low, high = 1, 2 * guess + 1
    for middle in (guess, guess + 1):
        if low < middle < high:
            fits = predict_for(forecaster, middle, step_config, rollout, rollout_config).reserved <= budget
            low, high = (middle, high) if fits else (low, middle)
    while high - low > 1:
        middle = (low + high) // 2
        fits = predict_for(forecaster, middle, step_config, rollout, rollout_config).reserved <= budget
        low, high = (middle, high) if fits else (low, middle)
    return low


@dataclass(frozen=True)
class Advice:
    """What fits.

    Parameters
    ----------
    fits
        Whether the asked batch does.
    largest_batch
        The largest that does, as configured.
    text
        One line for the user: that it fits, or what would.
    checkpointing
        Whether blocks should be recomputed (what ``checkpointing: auto`` becomes).
    """

    fits: bool
    largest_batch: int
    text: str
    checkpointing: bool


def advise(
    forecaster: Forecaster,
    batch: int,
    budget: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
) -> Advice:
    """Compare a training step with the memory there is, and say what would fit if it does not.

    Parameters
    ----------
    forecaster, batch, step_config, rollout, rollout_config
        What is asked for, see `predict`.
    budget
        Bytes free on the device.
    """
    config = (step_config or StepConfig()).resolved("cuda")
    rollout_config = rollout_config or RolloutConfig()
    asked = predict_for(forecaster, batch, config, rollout, rollout_config)
    most = largest_batch(forecaster, budget, config, rollout, rollout_config)
    size = f"{asked.reserved / 2**30:.1f} GiB of {budget / 2**30:.1f} GiB"
    if asked.reserved <= budget:
        return Advice(
            True, most, f"Batch {batch} needs {size}; the largest that fits is {most}.", config.checkpointing
        )

    def fits(batch: int, config: StepConfig, rollout_config: RolloutConfig) -> bool:
        return predict_for(forecaster, batch, config, rollout, rollout_config).reserved <= budget

    options = []
    recomputed = replace(config, checkpointing=True)
    if not config.checkpointing and fits(batch, recomputed, rollout_config):
        options.append("checkpointing: true")
    by_steps = replace(rollout_config, checkpoint_steps=True)
    if rollout > 1 and not rollout_config.checkpoint_steps and fits(batch, config, by_steps):
        options.append("checkpoint_steps: true")
    parts = next(
        (n for n in range(2, batch + 1) if fits(batch, replace(config, accumulate=n), rollout_config)), None
    )
    if parts:
        options.append(f"accumulate: {parts}")
    if config.precision in ("fp32", "tf32") and fits(
        batch, replace(config, precision="bf16"), rollout_config
    ):
        options.append("precision: bf16")
    if most:
        options.append(f"batch_size: {most}")
    what = "; ".join(options) if options else "a smaller grid, network or rollout"
    return Advice(
        False,
        most,
        f"Batch {batch} needs {size}. What would fit: {what}.",
        config.checkpointing or "checkpointing: true" in options,
    )


def _convolution_workspace(forecaster: Forecaster) -> int:
    """Workspace of cuDNN's weight gradients: partial sums in float32 for the largest weight."""
    largest = max((p.numel() for p in forecaster.parameters() if p.ndim == 4), default=0)
    return 4 * largest


def _called_parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children of a network, those in lists one by one, as lists are not called."""
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{i}", module) for i, module in enumerate(child))
        else:
            yield name, child


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _listening(step: TrainingStep, accountant: _Accountant) -> Iterator[None]:
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
