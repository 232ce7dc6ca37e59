"""Whether forecasts stay physically possible: a network that is applied to its own output may grow without bound."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from weathermill.fields.plausibility import Limits, limits_of
from weathermill.fields.timeaxis import first_text
from weathermill.fields.value_counts import WRONG_SHARE
from weathermill.fields.vocabulary import flat_name
from weathermill.models.forecaster import Forecaster

logger = logging.getLogger(__name__)

#: The attribute of forecasts that holds the warning.
ATTRIBUTE = "forecast_warning"
#: Beyond the physical limits by more than this share of their range, one value is enough.
FAR = 0.5
#: By more than this share of the range, more than `WRONG_SHARE` of a field must lie beyond them: a little negative
#: precipitation or humidity is an error of the network, but does not grow.
NEAR = 0.05
#: A variable without limits may be so many standard deviations from its mean over the training period.
MOST_STD = 1000.0


class InstabilityCheck:
    """Looks at the steps of forecasts as they are made; costs the minimum and maximum of each field.

    Parameters
    ----------
    model
        The network.
    limits
        Physical limits of the prognostic channels; by default those of the vocabulary.
    """

    def __init__(self, model: Forecaster, limits: Sequence[Limits] | None = None) -> None:
        self._model = model
        self._channels = [model.channels[i] for i in model.channels.prognostic]
        limits = limits or [limits_of(flat_name(c.variable, c.level)) for c in self._channels]
        spread = MOST_STD * model.std[: len(limits)]
        self._low = np.array([v.low if v.known else -np.inf for v in limits])
        self._high = np.array([v.high if v.known else np.inf for v in limits])
        extent = self._high - self._low
        known = np.isfinite(extent)
        mean = model.mean[: len(limits)]
        self._lowest = np.where(known, self._low - FAR * np.where(known, extent, 0.0), mean - spread)
        self._highest = np.where(known, self._high + FAR * np.where(known, extent, 0.0), mean + spread)
        self._least = np.where(known, self._low, self._lowest)
        self._most = np.where(known, self._high, self._highest)
        self._margin = np.where(known, NEAR * np.where(known, extent, 0.0), np.inf)
        self._gaps: np.ndarray | None = None
        self._offset = 0
        self._times: list[Any] = []
        self._bad: set[int] = set()
        self._first: tuple[int, int, str] | None = None
        self._told = False

    def begin(self, initial: np.ndarray, times: Sequence[Any] | np.ndarray | None = None) -> None:
        """Start with a batch of forecasts.

        Parameters
        ----------
        initial
            (batch, dynamic channel, latitude, longitude), physical units: where it may lack values, so may forecasts.
        times
            Initial times, for the message.
        """
        missing = self._model.missing
        self._gaps = missing.held(self._model.normalise(initial)).cpu().numpy() if missing else None
        self._offset = len(self._times)
        self._times += [None] * len(initial) if times is None else list(times)

    def look(self, states: np.ndarray, step: int) -> None:
        """Look at the states (batch, prognostic channel, latitude, longitude) of a time step, counted from one."""
        with np.errstate(invalid="ignore"):
            low, high = states.min(axis=(-2, -1)), states.max(axis=(-2, -1))
        usual = (low >= self._least) & (high <= self._most) & np.isfinite(low) & np.isfinite(high)
        for position, channel in np.argwhere(~usual):
            forecast = self._offset + int(position)
            if forecast in self._bad and self._first is not None and step >= self._first[0]:
                continue
            gaps = None if self._gaps is None else self._gaps[position, channel]
            values = states[position, channel]
            what = self._judge(values if gaps is None else values[~gaps], int(channel))
            if what is None:
                continue
            self._bad.add(forecast)
            if self._first is None or step < self._first[0]:
                when = self._times[forecast]
                start = "" if when is None else f" of the forecast from {first_text(when)}"
                self._first = (step, int(channel), what + start)

    def _judge(self, values: np.ndarray, channel: int) -> str | None:
        finite = np.isfinite(values)
        if not finite.all():
            count = int(values.size - np.count_nonzero(finite))
            return f"has {count} of {values.size} values that are not finite"
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        far = bool(values.size) and (low < self._lowest[channel] or high > self._highest[channel])
        least, most = self._low[channel], self._high[channel]
        if not far and np.isfinite(least):
            margin = self._margin[channel]
            outside = np.count_nonzero((values < least - margin) | (values > most + margin))
            far = outside > WRONG_SHARE * values.size
        if not far:
            return None
        among = (
            f"its physical limits are {least:g} to {most:g}"
            if np.isfinite(least)
            else f"more than {MOST_STD:g} standard deviations from the mean of the training period"
        )
        units = self._channels[channel].units
        return f"has values from {low:.4g} to {high:.4g} {units} ({among})"

    @property
    def warning(self) -> str | None:
        """What is wrong with the forecasts so far, from which lead time on, and what helps; None if nothing is."""
        if self._first is None:
            return None
        step, channel, what = self._first
        hours = self._model.time_step / 3600
        found = self._channels[channel]
        name = found.variable if found.level is None else f"{found.variable} at {found.level:g} hPa"
        many = f" ({len(self._bad)} of {len(self._times)} forecasts)" if len(self._times) > 1 else ""
        shorter = (
            f"Forecast to {(step - 1) * hours:g} h at most, train longer"
            if step > 1
            else "Check the initial state, train longer"
        )
        return (
            f"Forecasts are unstable{many}: at a lead time of {step * hours:g} h, {name} {what}. Do not use values from"
            f" there on. {shorter}, or train with more steps (train.rollout)."
        )

    def tell(self) -> str | None:
        """Log the warning, if there is one and it was not logged before, and return it."""
        text = self.warning
        if text is not None and not self._told:
            self._told = True
            logger.warning("%s", text)
        return text
