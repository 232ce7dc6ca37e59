"""Where device memory goes in training: predicted without a device, measured on one, and what would fit."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from weathermill.errors import ResourceError
from weathermill.models.forecaster import Forecaster
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.prediction import CUBLAS_WORKSPACE, Ledger, blank_forecaster, predict, predict_for
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig, TrainingStep

__all__ = [
    "Advice",
    "Ledger",
    "advise",
    "blank_forecaster",
    "largest_batch",
    "measure",
    "predict",
    "predict_for",
]


def measure(
    forecaster: Forecaster,
    batch: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
    device: torch.device | str = "cuda",
    loss: AreaWeightedLoss | None = None,
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
    loss
        What would be minimised; the mean square error when None.

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
    predicted = predict_for(forecaster, batch, config, rollout, rollout_config, loss)
    if loss is None:
        loss = AreaWeightedLoss("mse", np.ones(forecaster.grid_shape[0]))
    with torch.random.fork_rng([device]):
        before = torch.cuda.memory_allocated(device)
        try:
            step = TrainingStep(
                copy.deepcopy(forecaster),
                copy.deepcopy(loss),
                None,
                replace(config, cuda_graph=False),
                rollout_config,
                device,
                torch.Generator(device).manual_seed(0),
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
    # The graph's own copy of the window, and its stream's workspace, are no part of an eager step.
    if config.cuda_graph:
        noisy = rollout_config is not None and rollout_config.noise_std > 0
        peak += CUBLAS_WORKSPACE + (0 if noisy else predicted.parts["window"] // 2)
    reserved = torch.cuda.memory_reserved(device)
    fragmentation = max(0, reserved - torch.cuda.max_memory_allocated(device))
    free, there = torch.cuda.mem_get_info(device)
    context = max(0, there - free - reserved)
    torch.cuda.empty_cache()
    # The peak of what follows is to be its own.
    torch.cuda.reset_peak_memory_stats(device)
    parts = {**predicted.parts, "unexplained": peak - predicted.total}
    return Ledger(parts, fragmentation, batch, predicted.grid, rollout, measured=True, context=context)


def largest_batch(
    forecaster: Forecaster,
    budget: int,
    step_config: StepConfig | None = None,
    rollout: int = 1,
    rollout_config: RolloutConfig | None = None,
    loss: AreaWeightedLoss | None = None,
) -> int:
    """Largest batch whose training step fits `budget` bytes of a CUDA device; 0 when none does."""

    def needed(batch: int) -> int:
        return predict_for(forecaster, batch, step_config, rollout, rollout_config, loss).reserved

    one, two = (needed(b) for b in (1, 2))
    if one > budget:
        return 0
    # Images are proportional to the batch, but for rounding and the moment of the peak: begin near there, bisect.
    guess = max(1, 1 + (budget - one) // max(1, two - one))
    low, high = 1, 2 * guess + 1
    for middle in (guess, guess + 1):
        if low < middle < high:
            fits = needed(middle) <= budget
            low, high = (middle, high) if fits else (low, middle)
    while high - low > 1:
        middle = (low + high) // 2
        fits = needed(middle) <= budget
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
    loss: AreaWeightedLoss | None = None,
) -> Advice:
    """Compare a training step with the memory there is, and say what would fit if it does not.

    Parameters
    ----------
    forecaster, batch, step_config, rollout, rollout_config, loss
        What is asked for, see `predict_for`.
    budget
        Bytes free on the device.
    """
    config = (step_config or StepConfig()).resolved("cuda")
    rollout_config = rollout_config or RolloutConfig()
    asked = predict_for(forecaster, batch, config, rollout, rollout_config, loss)
    most = largest_batch(forecaster, budget, config, rollout, rollout_config, loss)
    size = f"{asked.reserved / 2**30:.1f} GiB of {budget / 2**30:.1f} GiB"
    if asked.reserved <= budget:
        return Advice(
            True, most, f"Batch {batch} needs {size}; the largest that fits is {most}.", config.checkpointing
        )

    def fits(batch: int, config: StepConfig, rollout_config: RolloutConfig) -> bool:
        return predict_for(forecaster, batch, config, rollout, rollout_config, loss).reserved <= budget

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
