"""How a network is trained: one plain dataclass, and what of it a resumed training must share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from weathermill.errors import ParameterError
from weathermill.training.feed import TIERS
from weathermill.training.losses import KINDS, UNITS
from weathermill.training.rollout import RolloutConfig
from weathermill.training.schedule import ScheduleConfig
from weathermill.training.step import StepConfig
from weathermill.training.weighting import LossWeights


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Parameters
    ----------
    epochs
        Passes over the training split.
    batch_size
        Windows per optimiser step.
    learning_rate
        The highest of the schedule.
    weight_decay
        Of AdamW.
    schedule
        How the learning rate goes; a name stands for its defaults.
    seed
        Of the weights, the shuffle and all noise.
    loss
        ``"mse"``, ``"mae"`` or ``"huber"``.
    huber_delta
        Error at which the Huber loss turns from a square to a line, in units of the error.
    error_unit
        What errors are counted in: ``"tendency"``, the standard deviation of a channel's change over one time step, or
        ``"state"``, that of the channel; None for what the network puts out.
    channel_weights
        One for each prognostic channel; equal when None.
    loss_weights
        Weights by variable and level, in place of `channel_weights`.
    spectral_weight
        Of the term that keeps small scales, see `weathermill.training.spectral`; 0 leaves it out, and 1 with ``"mse"`` is
        the loss of Subich et al. (2025).
    spectral_variables
        Variables or channels that it applies to; all when empty.
    rollout
        Forecast steps of each epoch's windows; the last number holds for all later epochs. ``(1, 1, 2, 4)``
        is a curriculum.
    rollout_loss
        How several steps make one loss, and noise on initial states.
    validation_rollout
        Forecast steps in validation; the largest of `rollout` when None, so that epochs compare.
    step
        Precision, graphs, clipping, averaging.
    checkpointing
        ``"auto"`` recomputes activations if the memory ledger says that they do not fit else (on CUDA); True and
        False decide, and None leaves it to `step`.
    feed
        Tier of the feed: ``"auto"``, ``"device"``, ``"pinned"`` or ``"mapped"``.
    consecutive
        Windows that stay together in the shuffle and share their states, see `Sampling`.
    threads
        Reading threads; None for one a core, at most 12.
    checkpoint_every_steps, checkpoint_every_minutes
        Checkpoints within an epoch, besides those at its end.
    log_every_steps
        Steps that one logged point of the training loss averages; None for about 1,000 points in all.
    watch_every_steps
        Steps between two looks at losses and gradients, each of which waits for the device.
    skip_spikes
        Skip a step whose gradient norm exceeds this multiple of the median of recent steps; None skips none.
    patience
        Epochs without a better validation loss after which to stop; None trains to the end.
    deterministic
        The same bits every time, at some cost in speed on a GPU.
    dry_step
        On CUDA, take a step on a copy before the training, and put the memory that it took beside the prediction.
    """

    epochs: int = 10
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    schedule: ScheduleConfig | str = field(default_factory=ScheduleConfig)
    seed: int = 0
    loss: str = "mse"
    huber_delta: float = 1.0
    error_unit: str | None = None
    channel_weights: Sequence[float] | None = None
    loss_weights: LossWeights = field(default_factory=LossWeights)
    spectral_weight: float = 0.0
    spectral_variables: Sequence[str] = ()
    rollout: Sequence[int] = (1,)
    rollout_loss: RolloutConfig = field(default_factory=RolloutConfig)
    validation_rollout: int | None = None
    step: StepConfig = field(default_factory=StepConfig)
    checkpointing: bool | str | None = None
    feed: str = "auto"
    consecutive: int = 1
    threads: int | None = None
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = 10.0
    log_every_steps: int | None = None
    watch_every_steps: int = 50
    skip_spikes: float | None = None
    patience: int | None = None
    deterministic: bool = False
    dry_step: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", ScheduleConfig(self.schedule))
        object.__setattr__(self, "rollout", tuple(int(n) for n in self.rollout))
        object.__setattr__(self, "spectral_variables", tuple(self.spectral_variables))
        if self.channel_weights is not None and self.loss_weights:
            raise ParameterError("channel_weights and loss_weights were both given; give one of them.")
        if self.error_unit not in (None, *UNITS):
            raise ParameterError(
                f"error_unit is {self.error_unit!r}; it is one of {', '.join(UNITS)}, or null."
            )
        if not 0 < self.huber_delta < math.inf or not 0 <= self.spectral_weight < math.inf:
            raise ParameterError(
                f"huber_delta must be positive and spectral_weight not negative, both finite; they are {self.huber_delta} and "
                f"{self.spectral_weight}."
            )
        for name in ("epochs", "batch_size", "consecutive", "watch_every_steps"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1; it is {getattr(self, name)}.")
        for name in (
            "checkpoint_every_steps",
            "log_every_steps",
            "patience",
            "validation_rollout",
            "threads",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, or null; it is {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise ParameterError(
                f"The learning rate must be positive and weight decay not negative, both finite; they are "
                f"{self.learning_rate} and {self.weight_decay}."
            )
        if not 0 <= self.seed < 2**64:
            raise ParameterError(f"seed must be at least 0 and less than 2**64; it is {self.seed}.")
        if self.skip_spikes is not None and not 1 < self.skip_spikes < math.inf:
            raise ParameterError(f"skip_spikes must exceed 1, or be null; it is {self.skip_spikes}.")
        if not self.rollout or min(self.rollout) < 1:
            raise ParameterError(f"rollout needs at least one number, each at least 1; it is {self.rollout}.")
        if self.loss not in KINDS:
            raise ParameterError(f"The loss is {self.loss!r}; it is one of {', '.join(KINDS)}.")
        if self.checkpointing not in (None, True, False, "auto"):
            raise ParameterError(f"checkpointing is {self.checkpointing!r}; it is true, false or 'auto'.")
        if self.feed not in TIERS:
            raise ParameterError(f"The feed is {self.feed!r}; it is one of {', '.join(TIERS)}.")

    def steps(self, epoch: int) -> int:
        """Forecast steps of the windows of an epoch, which counts from zero."""
        return self.rollout[min(epoch, len(self.rollout) - 1)]

    @property
    def most_steps(self) -> int:
        """The most forecast steps of any epoch that there will be."""
        return max(self.steps(epoch) for epoch in range(self.epochs))

    @property
    def validation_steps(self) -> int:
        """Forecast steps in validation."""
        return self.validation_rollout or self.most_steps

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON and for the record."""
        return asdict(self)
