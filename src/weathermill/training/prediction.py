"""Device memory of a training step, predicted without a device.

A prediction runs the training step itself on *meta* tensors, which have shapes but no values, and keeps account of
every allocation and release. It therefore follows the code, whatever the network: nothing is estimated but the
workspaces of cuDNN and cuBLAS and what the allocator loses to fragmentation.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.accounting import Accountant, listening
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig, TrainingStep

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# cuBLAS keeps one workspace a stream on Hopper cards; with CUDA graphs the capturing stream has its own.
CUBLAS_WORKSPACE = 32 * 2**20
# Share of the images that the allocator loses to rounding and holes: 5 to 28 % measured, see docs/performance.md.
FRAGMENTATION = 0.25
# What the CUDA context and loaded kernels take outside torch's allocator: an allowance; `measure` reads the true one.
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
    batch, grid, rollout
        What it is for.
    measured
        Whether the total was measured on a device.
    context
        Bytes that the CUDA context takes outside torch's allocator.
    """

    parts: Mapping[str, int]
    fragmentation: int
    batch: int
    grid: tuple[int, int]
    rollout: int
    measured: bool = False
    context: int = CONTEXT_BYTES

    @property
    def total(self) -> int:
        """Peak of allocated bytes, comparable to ``torch.cuda.max_memory_allocated``."""
        return sum(self.parts.values())

    @property
    def reserved(self) -> int:
        """Bytes that the device must have free for it, fragmentation and the CUDA context included."""
        return self.total + self.fragmentation + self.context

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
            ("CUDA context", self.context),
            ("needed on the device", self.reserved),
        ]
        width = max(len(name) for name, _ in rows)
        head = (
            f"Device memory, {'measured' if self.measured else 'predicted'}: batch {self.batch}, grid "
            f"{self.grid[0]}x{self.grid[1]}, rollout {self.rollout}"
        )
        lines = [f"{name:<{width}}  {size / 2**20:>12,.1f} MiB" for name, size in rows]
        return "\n".join([head, *lines])

    def csv(self) -> str:
        """Table of part, MiB and share of what is needed on the device, for spreadsheets and trackers."""
        rows = [*self.parts.items(), ("fragmentation", self.fragmentation), ("CUDA context", self.context)]
        lines = [f'"{name}",{size / 2**20:.3f},{size / self.reserved:.4f}' for name, size in rows]
        return "\n".join(
            ["part,MiB,share", *lines, f"needed on the device,{self.reserved / 2**20:.3f},1.0000", ""]
        )

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
            "context": self.context,
            "reserved": self.reserved,
        }


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
    """Build an untrained forecaster of these sizes, for which memory can be predicted; see `predict`.

    Constraints on channels by name are left out: its channels have no names, and they take next to no memory.
    """
    model_config = replace(
        model_config, non_negative=(), conserve_mean=(), pin_mean=(), budget_mean=(), conserve_dry_mass=False
    )
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
    loss: AreaWeightedLoss | None = None,
) -> Ledger:
    """Predict the memory of training `forecaster`, which is left alone, on a CUDA device; see `predict`.

    With a `loss`, which is left alone too, its own images count.
    """
    config = (step_config or StepConfig()).resolved("cuda")
    copied = copy.deepcopy(forecaster).to("meta").train()
    network = copied.network
    lowered = _DTYPES.get(config.precision)
    if hasattr(network, "takes_fast_pass"):
        network.fused = True
        network.image_dtype = lowered
    fast = copied.takes_fast_pass(torch.empty((1, 1, 1, 1), device="meta"))
    loss = AreaWeightedLoss("mse", np.ones(forecaster.grid_shape[0])) if loss is None else loss
    loss = copy.deepcopy(loss).to("meta")
    step = TrainingStep(copied, loss, None, replace(config, cuda_graph=False), rollout_config, "meta")
    window = torch.empty(
        (batch, rollout + 1, forecaster.n_dynamic, *forecaster.grid_shape), dtype=torch.float16, device="meta"
    )
    accountant = Accountant()
    if not fast and lowered is not None:
        # Autocast knows no meta tensors; layers of the lower type make images of that type.
        network.to(lowered).register_forward_pre_hook(lambda _, inputs: tuple(x.to(lowered) for x in inputs))
    if hasattr(network, "observer"):
        network.observer = accountant.enter
    accountant.ignore(window, *copied.parameters(), *copied.buffers(), *loss.buffers(), *(step.ema or ()))
    with listening(step, accountant), accountant:
        step.accumulate_gradients(window)
    accountant.close()

    parameters = list(forecaster.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    fixed = {
        "parameters": 4 * sum(p.numel() for p in parameters),
        "buffers": sum(b.numel() * b.element_size() for b in forecaster.buffers()),
        "optimiser": 8 * trained,
        "average": 4 * trained if config.ema_decay is not None else 0,
        # With graphs, and with noise, the step works on a copy.
        "window": _bytes(window) * (2 if config.cuda_graph or step.rollout.noise_std else 1),
    }
    images = {k: v for k, v in accountant.at_peak.items() if k not in fixed}
    gradients = images.pop("gradients", 0)
    workspace = CUBLAS_WORKSPACE * (2 if config.cuda_graph else 1) + _convolution_workspace(forecaster)
    parts = {
        **{k: v for k, v in fixed.items() if v},
        "gradients": gradients,
        **dict(sorted(images.items())),
        "workspace": workspace,
    }
    held = int(FRAGMENTATION * sum(images.values()))
    if step.rollout.noise_std:
        # Drawn before the step, in float32; the allocator keeps the room.
        held += 4 * batch * forecaster.n_prognostic * forecaster.grid_shape[0] * forecaster.grid_shape[1]
    return Ledger(parts, held, batch, tuple(forecaster.grid_shape), rollout, measured=False)


def _convolution_workspace(forecaster: Forecaster) -> int:
    """Workspace of cuDNN's weight gradients: partial sums in float32 for the largest weight."""
    largest = max((p.numel() for p in forecaster.parameters() if p.ndim == 4), default=0)
    return 4 * largest


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
