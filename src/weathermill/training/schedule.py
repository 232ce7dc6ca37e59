"""Learning-rate schedules as pure functions of the optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from weathermill.errors import ParameterError

SCHEDULES = ("constant", "cosine", "one_cycle")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes over a training.

    Parameters
    ----------
    name
        ``"constant"``; ``"cosine"`` (linear warm-up, then half a cosine: Loshchilov and Hutter, 2017,
        arXiv:1608.03983, without restarts); ``"one_cycle"`` (half a cosine up and one down: Smith and
        Topin, 2019, arXiv:1708.07120).
    warmup_fraction
        Share of all steps in which the rate rises, all but the last at most; no effect on ``"constant"``.
    initial_fraction
        Of the peak, at the first step.
    final_fraction
        Of the peak, after the last step.
    """

    name: str = "constant"
    warmup_fraction: float = 0.05
    initial_fraction: float = 0.04
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ParameterError(f"Schedule {self.name!r} is not one of {', '.join(SCHEDULES)}.")
        if not 0 <= self.warmup_fraction < 1:
            raise ParameterError(f"warmup_fraction must lie in [0, 1); it is {self.warmup_fraction}.")
        for name in ("initial_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name} must lie in [0, 1]; it is {getattr(self, name)}.")


def constant(step: int, *, peak: float, total: int) -> float:
    """Give the same rate at every step."""
    return peak


def cosine(
    step: int,
    *,
    peak: float,
    total: int,
    warmup: int,
    initial_fraction: float = 0.0,
    final_fraction: float = 0.0,
) -> float:
    """Rise linearly over `warmup` steps, then fall as half a cosine to ``final_fraction * peak``.

    Parameters
    ----------
    step
        0 is the first. Step ``total``, which would be the next after the last, has the final rate, so that no step
        is made with a rate of zero; it holds from there on.
    peak
        The highest rate.
    total
        Number of steps.
    warmup
        Steps of the rise; step `warmup` has the peak.
    initial_fraction, final_fraction
        Of the peak, at step 0 and at step `total`.
    """
    if step < warmup:
        return peak * (initial_fraction + (1 - initial_fraction) * step / warmup)
    return peak * _fall(step - warmup, total - warmup, 1.0, final_fraction)


def one_cycle(
    step: int,
    *,
    peak: float,
    total: int,
    warmup: int,
    initial_fraction: float = 0.04,
    final_fraction: float = 0.0,
) -> float:
    """Rise as half a cosine over `warmup` steps, then fall as another; parameters as those of `cosine`."""
    if step < warmup:
        return peak * _fall(step, warmup, initial_fraction, 1.0)
    return peak * _fall(step - warmup, total - warmup, 1.0, final_fraction)


def _fall(step: int, steps: int, start: float, stop: float) -> float:
    x = min(1.0, step / steps) if steps > 0 else 1.0
    return stop + (start - stop) * (1 + math.cos(math.pi * x)) / 2


def make_schedule(config: ScheduleConfig, peak: float, total: int) -> Callable[[int], float]:
    """Make the function that gives the learning rate of each step.

    Parameters
    ----------
    config
        Which schedule.
    peak
        The highest learning rate.
    total
        Optimiser steps of the whole training.
    """
    if config.name == "constant":
        return lambda step: constant(step, peak=peak, total=total)
    function = cosine if config.name == "cosine" else one_cycle
    # At least the last step has the peak, however short the training.
    warmup = min(round(config.warmup_fraction * total), total - 1)
    return lambda step: function(
        step,
        peak=peak,
        total=total,
        warmup=warmup,
        initial_fraction=config.initial_fraction,
        final_fraction=config.final_fraction,
    )
