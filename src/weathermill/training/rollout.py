"""The loss of a forecast of one or several steps, with gradients through all or through the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weathermill.errors import ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.models.layers import recomputed
from weathermill.training.advance import advance_and_measure
from weathermill.training.losses import AreaWeightedLoss


@dataclass(frozen=True)
class RolloutConfig:
    """How several steps make one loss.

    Parameters
    ----------
    step_weights
        Weight of each step's loss, scaled to mean one over the steps at hand; equal when None. The last one
        holds for all later steps.
    push_forward
        Loss and gradient of the last step alone, from a state that the network itself forecast (Brandstetter
        et al., 2022, arXiv:2202.03376).
    checkpoint_steps
        Keep only the states between steps, and compute each step's activations again in the backward pass.
    noise_std
        Standard deviation of Gaussian noise on the initial prognostic state, in normalised units; the sum is rounded to
        the window's dtype.
    """

    step_weights: Sequence[float] | None = None
    push_forward: bool = False
    checkpoint_steps: bool = False
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        if self.step_weights is not None:
            weights = tuple(float(w) for w in self.step_weights)
            if not weights or min(weights) < 0 or sum(weights) <= 0:
                raise ParameterError(
                    f"Rollout step weights are {weights}: not negative, and not all zero, they must be."
                )
            object.__setattr__(self, "step_weights", weights)
        if self.noise_std < 0:
            raise ParameterError(
                f"The noise on initial states has std {self.noise_std}; it must not be negative."
            )

    def weights(self, steps: int) -> list[float]:
        """Weights of `steps` steps, mean one."""
        if self.push_forward:
            return [0.0] * (steps - 1) + [1.0 * steps]
        given = list(self.step_weights or (1.0,))
        weights = (given + [given[-1]] * steps)[:steps]
        total = sum(weights)
        if total <= 0:
            raise ParameterError(f"The first {steps} rollout step weights are all zero.")
        return [w * steps / total for w in weights]


@dataclass
class RolloutLoss:
    """Loss of a window.

    Parameters
    ----------
    total
        0-d, what to minimise: the weighted mean over steps.
    per_channel
        (steps, n_prognostic), detached: the loss of each channel at each step, before weights.
    """

    total: Tensor
    per_channel: Tensor


def rollout_loss(
    forecaster: Forecaster, loss: AreaWeightedLoss, window: Tensor, config: RolloutConfig | None = None
) -> RolloutLoss:
    """Forecast the states of a window from its first, and measure the error in the network's output units.

    An error of the state is scaled to ``loss.unit``, by default what the network puts out: with tendencies as the
    target, the loss of one step is that of the normalised tendency, and that of later steps is in the same units.

    Parameters
    ----------
    forecaster
        In training or evaluation mode.
    loss
        Its channel weights are for the prognostic channels.
    window
        (batch, steps + 1, n_dynamic, latitudes, longitudes), normalised. Forcings are taken from it at every
        step.
    config
        Weights and gradients.
    """
    config = config or RolloutConfig()
    steps = window.shape[1] - 1
    n = forecaster.n_prognostic
    unit = loss.unit or forecaster.config.target
    scale = forecaster.error_scale_in(unit)
    state = window[:, 0]
    gaps = forecaster.missing
    held = (gaps.held(state),) if gaps else ()
    # Where nothing comes between the network's output and the error of each cell, both are one pass.
    plain = not (forecaster.constraints or gaps or loss.spectral)
    total, per_channel = None, []
    recompute = config.checkpoint_steps and torch.is_grad_enabled() and steps > 1
    for step, weight in enumerate(config.weights(steps)):
        idle = config.push_forward and step + 1 < steps
        with torch.set_grad_enabled(torch.is_grad_enabled() and not idle):
            target = window[:, step + 1, :n]
            fast = forecaster.takes_fast_pass(state)
            if fast:
                # The fast pass keeps its images out of autograd's sight, and forgets them itself.
                forecaster.network.checkpoint_whole = recompute
            if fast and plain:
                errors, prognostic = advance_and_measure(
                    forecaster, loss, state, target, more=step + 1 < steps, unit=unit
                )
            else:
                if recompute and not fast:
                    prognostic = recomputed(forecaster, forecaster, state, *held)
                else:
                    prognostic = forecaster(state, *held)
                known = gaps.known(target, *held) if gaps else None
                errors = loss.per_channel(prognostic, target, known, scale)
        per_channel.append(errors.detach())
        if not idle:
            term = loss.total(errors) * (weight / steps)
            total = term if total is None else total + term
        if step + 1 < steps:
            state = forecaster.join(prognostic, window[:, step + 1, n:] if forecaster.n_forcing else None)
    return RolloutLoss(total, torch.stack(per_channel))
