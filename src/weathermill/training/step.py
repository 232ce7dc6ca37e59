"""One optimiser step: precision, accumulation, clipping, averaging, and CUDA graphs over all of it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from weathermill.errors import CheckpointError, ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.kernels import triton_kernels
from weathermill.training.backends import products
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.optimiser import (
    MOMENTS,
    OptimiserConfig,
    clip_gradients,
    gradient_norm,
    make_optimiser,
)
from weathermill.training.rollout import RolloutConfig, rollout_loss

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_WARM_UP_STEPS = 3


@dataclass(frozen=True)
class StepConfig:
    """How one step is computed. None leaves the choice to `resolved`.

    Parameters
    ----------
    precision
        ``"fp32"``, ``"tf32"`` (as fp32 but for tensor-core products), ``"bf16"`` or ``"fp16"`` (autocast;
        master weights, statistics and loss in float32; fp16 with a dynamic loss scale). bf16 on CUDA, fp32
        elsewhere.
    compile
        ``torch.compile`` the forecast and its loss, where the network has no fast pass of its own.
    cuda_graph
        Capture the whole step, optimiser included. On with CUDA.
    channels_last
        Keep images channel-innermost. On with CUDA.
    clip_norm
        Largest norm of the gradient; None does not clip.
    accumulate
        Process the batch in this many parts, one after the other.
    ema_decay
        Keep an exponential moving average of the weights; None does not.
    checkpointing
        Recompute each block's activations in the backward pass.
    deterministic
        Only algorithms that give the same bits every time.
    loss_scale
        First loss scale of fp16.
    """

    precision: str | None = None
    compile: bool | None = None
    cuda_graph: bool | None = None
    channels_last: bool | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    checkpointing: bool = False
    deterministic: bool = False
    loss_scale: float = 2.0**14

    def __post_init__(self) -> None:
        if self.precision not in (None, *PRECISIONS):
            raise ParameterError(
                f"The precision is {self.precision!r}; it is one of {', '.join(map(repr, PRECISIONS))}."
            )
        if self.accumulate < 1:
            raise ParameterError(f"accumulate is {self.accumulate}; it is at least 1.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ParameterError(f"clip_norm is {self.clip_norm}; it is positive, or null not to clip.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ParameterError(f"ema_decay is {self.ema_decay}; it lies between 0 and 1, or is null.")

    def resolved(self, device: torch.device | str) -> StepConfig:
        """Fill in what was left to the device."""
        cuda = torch.device(device).type == "cuda"
        chosen = {
            "precision": "bf16" if cuda else "fp32",
            "compile": False,
            "cuda_graph": cuda,
            "channels_last": cuda,
        }
        config = replace(self, **{k: v for k, v in chosen.items() if getattr(self, k) is None})
        return config if cuda else replace(config, cuda_graph=False)


@dataclass
class StepResult:
    """What a step did; tensors on the device, which the next step may overwrite.

    Parameters
    ----------
    loss
        0-d.
    grad_norm
        0-d, before clipping; None in evaluation. Not finite means that the step left the weights alone.
    per_channel
        (steps, n_prognostic): loss of each channel at each forecast step, before weights.
    """

    loss: Tensor
    grad_norm: Tensor | None
    per_channel: Tensor


class TrainingStep:
    """Moves a forecaster's weights by one optimiser step a call.

    Parameters
    ----------
    forecaster
        Moved to `device` here, and trained in place.
    loss
        Moved to `device` too.
    optimiser
        Rates of AdamW.
    config
        How to compute; `resolved` for the device.
    rollout
        How the steps of a window make a loss.
    device
        Where to compute; the forecaster's when None.
    noise_generator
        Of the device; draws the noise on initial states. Needed when ``rollout.noise_std`` is positive.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        loss: AreaWeightedLoss,
        optimiser: OptimiserConfig | None = None,
        config: StepConfig | None = None,
        rollout: RolloutConfig | None = None,
        device: torch.device | str | None = None,
        noise_generator: torch.Generator | None = None,
    ) -> None:
        self.device = torch.device(device) if device is not None else forecaster.static.device
        self.config = (config or StepConfig()).resolved(self.device)
        self.rollout = rollout or RolloutConfig()
        self.noise_generator = noise_generator
        self.forecaster = forecaster.to(self.device)
        if self.config.channels_last:
            self.forecaster = self.forecaster.to(memory_format=torch.channels_last)
        if hasattr(self.forecaster.network, "checkpoint_blocks"):
            self.forecaster.network.checkpoint_blocks = self.config.checkpointing
        self.loss = loss.to(self.device)
        named = [(n, p) for n, p in self.forecaster.named_parameters() if p.requires_grad]
        self._names, self._parameters = [n for n, _ in named], [p for _, p in named]
        self.optimiser = make_optimiser(self._parameters, optimiser or OptimiserConfig())
        # A larger norm leaves the weights alone, as one that is not finite does; on the device, for the graphs.
        self.largest_norm = torch.full((), float("inf"), device=self.device)
        self.ema = [p.detach().clone() for p in self._parameters] if self.config.ema_decay else None
        scaled = self.config.precision == "fp16"
        self._scale = torch.tensor(self.config.loss_scale, device=self.device) if scaled else None
        self._scale_age = torch.zeros((), dtype=torch.int32, device=self.device) if scaled else None
        # The fast pass is compiled already: there is nothing in it for torch.compile.
        compiled = self.config.compile and not self.forecaster.takes_fast_pass(self.forecaster.static)
        self._terms = torch.compile(rollout_loss, dynamic=False) if compiled else rollout_loss
        self._graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, StepResult]] = {}
        self._pool = None

    def __call__(self, window: Tensor) -> StepResult:
        """Train on one batch.

        Parameters
        ----------
        window
            (batch, steps + 1, n_dynamic, latitudes, longitudes), normalised, in any floating dtype, on the
            device.

        Returns
        -------
        StepResult
            On the device; reading a value waits for it. A gradient that is not finite leaves weights and
            optimiser state untouched.
        """
        self._check(window)
        self.forecaster.train()
        if not self.config.cuda_graph:
            if self.rollout.noise_std:
                window = window.clone()
                self._add_noise(window)
            with products(self.device, self.config.precision, self.config.deterministic):
                return self._train(window)
        key = (tuple(window.shape), window.dtype, self.rollout)
        if key not in self._graphs:
            self._graphs[key] = self._capture(window)
        graph, static_window, result = self._graphs[key]
        static_window.copy_(window, non_blocking=True)
        if self.rollout.noise_std:
            self._add_noise(static_window)
        graph.replay()
        return result

    @torch.no_grad()
    def evaluate(self, window: Tensor) -> StepResult:
        """Loss of a batch in evaluation mode, without noise; weights stay."""
        self._check(window)
        self.forecaster.eval()
        with products(self.device, self.config.precision, self.config.deterministic), self._autocast():
            terms = rollout_loss(
                self.forecaster, self.loss, window, replace(self.rollout, push_forward=False)
            )
        return StepResult(terms.total, None, terms.per_channel)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of the next steps, without a host sync."""
        for group in self.optimiser.param_groups:
            group["lr"].fill_(learning_rate)

    def set_rollout(self, rollout: RolloutConfig) -> None:
        """Change how the steps of a window make a loss (their number is the window's)."""
        self.rollout = rollout

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Inside, the forecaster has the averaged weights; without averaging, nothing happens."""
        if self.ema is None:
            yield
            return
        kept = [p.detach().clone() for p in self._parameters]
        self._set(self._parameters, self.ema)
        try:
            yield
        finally:
            self._set(self._parameters, kept)

    def state_dict(self) -> dict[str, Tensor]:
        """All that later steps depend on, as one flat dictionary of tensors (references, not copies)."""
        state = {f"model.{name}": tensor for name, tensor in self.forecaster.state_dict().items()}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            for key in ("step", *MOMENTS):
                state[f"optimiser.{name}.{key}"] = self.optimiser.state[parameter][key]
        for i, group in enumerate(self.optimiser.param_groups):
            state[f"optimiser.lr.{i}"] = group["lr"]
        if self.ema is not None:
            state |= {f"ema.{name}": tensor for name, tensor in zip(self._names, self.ema, strict=True)}
        if self._scale is not None:
            state |= {"scaler.scale": self._scale, "scaler.age": self._scale_age}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, in place, so that captured graphs stay valid.

        Raises
        ------
        CheckpointError
            When tensors are missing, unknown or of another shape.
        """
        own = self.state_dict()
        missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
        for what, names in (("lacks", missing), ("holds unknown", unknown), ("has other shapes for", shapes)):
            if names:
                raise CheckpointError(
                    f"The training state {what} {len(names)} tensors: {', '.join(names[:3])} …",
                    remedy="Resume with the parameters that the checkpoint was made with, or start anew.",
                )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(state[key])

    def _train(self, window: Tensor) -> StepResult:
        loss, per_channel = self.accumulate_gradients(window)
        return StepResult(loss, self._update(), per_channel)

    def accumulate_gradients(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Set all gradients to those of a batch, without an update.

        Returns
        -------
        tuple
            Loss (0-d) and loss of each channel at each step (steps, n_prognostic), detached.
        """
        for parameter in self._parameters:
            parameter.grad = None
        loss, per_channel = None, None
        for part in window.tensor_split(min(self.config.accumulate, len(window))):
            share = len(part) / len(window)
            with self._autocast():
                terms = self._terms(self.forecaster, self.loss, part, self.rollout)
            total = terms.total * share
            (total if self._scale is None else total * self._scale).backward()
            errors = terms.per_channel * share
            loss = total.detach() if loss is None else loss + total.detach()
            per_channel = errors if per_channel is None else per_channel + errors
        return loss, per_channel

    @torch.no_grad()
    def _update(self) -> Tensor:
        missing = [n for n, p in zip(self._names, self._parameters, strict=True) if p.grad is None]
        if missing:
            raise ParameterError(
                f"No gradient reached {', '.join(missing[:3])}; set requires_grad = False for them."
            )
        gradients = [p.grad for p in self._parameters]
        if self._scale is not None:
            torch._foreach_mul_(gradients, self._scale.reciprocal())
        norm = gradient_norm(gradients)
        overflow = (~torch.isfinite(norm)).float()
        skip = torch.maximum(overflow, (norm > self.largest_norm).float())
        if self.config.clip_norm is not None:
            clip_gradients(gradients, norm, self.config.clip_norm)
        self.optimiser.found_inf = skip
        self.optimiser.step()
        if self._scale is not None:
            torch._amp_update_scale_(self._scale, self._scale_age, overflow, 2.0, 0.5, 1000)
        if self.ema is not None:
            torch._foreach_lerp_(self.ema, self._parameters, 1.0 - self.config.ema_decay)
        return norm

    def _capture(self, window: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, StepResult]:
        """Record the step for windows of this shape, leaving weights, optimiser and averages as they were."""
        static_window = window.clone()
        # Kept on the host: on the device it would add to the peak of the warm-up.
        before = {name: tensor.to("cpu", copy=True) for name, tensor in self.state_dict().items()}
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with products(self.device, self.config.precision, self.config.deterministic):
            self._compile_kernels(static_window)
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_STEPS):
                    self._train(static_window)
            torch.cuda.current_stream(self.device).wait_stream(stream)
            self.load_state_dict(before)
            del before
            for parameter in self._parameters:
                parameter.grad = None
            torch.cuda.empty_cache()
            graph = torch.cuda.CUDAGraph()
            # The feed's threads go on asking for their events meanwhile, which the default mode forbids.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = self._train(static_window)
        self._pool = self._pool or graph.pool()
        return graph, static_window, result

    def _compile_kernels(self, window: Tensor) -> None:
        """Compile the fast pass's kernels together, by a step that runs none of them; its results are worthless."""
        if not self.forecaster.takes_fast_pass(window):
            return
        try:
            with triton_kernels().compiling_ahead(threads=min(16, os.cpu_count() or 1)):
                self._train(window)
        except Exception:
            # Triton's interface for this is not public; without it, kernels compile as they are met.
            logger.debug("Kernels could not be compiled ahead.", exc_info=True)
        torch.cuda.synchronize(self.device)

    def _add_noise(self, window: Tensor) -> None:
        """Add noise to the initial state, in place and in the window's precision: a wider one would double it."""
        if self.noise_generator is None:
            raise ParameterError("Noise on initial states needs the training step's noise_generator.")
        initial = window[:, 0, : self.forecaster.n_prognostic]
        noise = torch.randn(
            initial.shape, generator=self.noise_generator, device=window.device, dtype=torch.float32
        )
        initial.add_(noise, alpha=self.rollout.noise_std)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _AUTOCAST.get(self.config.precision)
        if dtype is None or self.device.type == "meta":
            return contextlib.nullcontext()
        # Without the cache: it would tie casts of one graph to another.
        return torch.autocast(self.device.type, dtype=dtype, cache_enabled=False)

    def _check(self, window: Tensor) -> None:
        if window.ndim != 5 or window.shape[1] < 2 or window.device.type != self.device.type:
            raise ParameterError(
                f"A training window is (batch, steps + 1, channels, latitudes, longitudes) on {self.device}; "
                f"got {tuple(window.shape)} on {window.device}."
            )

    @staticmethod
    @torch.no_grad()
    def _set(targets: list[Tensor], sources: list[Tensor]) -> None:
        torch._foreach_copy_(targets, sources)
