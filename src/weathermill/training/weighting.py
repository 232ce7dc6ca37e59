"""What each channel's error weighs in the loss: by variable and by pressure level, resolved against a channel table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from weathermill.errors import ParameterError
from weathermill.models.forecaster import Forecaster
from weathermill.tensors.channels import Channel, ChannelTable

PRESSURE = "pressure"


@dataclass(frozen=True)
class LossWeights:
    """Weights of channels, relative to each other: the loss scales them to mean one.

    A channel weighs the product of the weight of its variable and of its level. Squared errors go with the weight, so
    that a weight of four counts errors twice.

    Parameters
    ----------
    variables
        Name of a variable, or of one channel, to its weight; one for those that are not named. A channel's own name wins
        over its variable's.
    levels
        None: all weigh the same. ``"pressure"``: in proportion to pressure, one at 1000 hPa (GraphCast: Lam et al., 2023,
        arXiv:2212.12794). Or pressure in hPa to weight; one for those that are not named.
    surface
        Weight of channels without a level, in place of a level's.
    where
        The parameter that holds them, for messages.

    Raises
    ------
    ParameterError
        When a weight is negative or not finite, or `levels` is another word.
    """

    variables: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[float, float] | str | None = None
    surface: float = 1.0
    where: str = "train.loss_weights"

    def __post_init__(self) -> None:
        if isinstance(self.levels, str) and self.levels != PRESSURE:
            raise ParameterError(
                f"The weights of levels are {self.levels!r}; they are {PRESSURE!r}, or a weight for each level.",
                where=self.where,
            )
        object.__setattr__(self, "variables", {str(k): float(v) for k, v in self.variables.items()})
        if isinstance(self.levels, Mapping):
            object.__setattr__(self, "levels", {float(k): float(v) for k, v in self.levels.items()})
        levels = self.levels if isinstance(self.levels, Mapping) else {}
        for name, weight in [*self.variables.items(), *levels.items(), ("surface", self.surface)]:
            if not (np.isfinite(weight) and weight >= 0):
                raise ParameterError(
                    f"The weight of {name} in the loss is {weight}; it must be finite and not negative.",
                    where=self.where,
                )

    def __bool__(self) -> bool:
        return bool(self.variables or self.levels or self.surface != 1.0)

    def resolve(self, channels: ChannelTable) -> np.ndarray:
        """Give the weight of each prognostic channel: float64 (n_prognostic,), mean one.

        Raises
        ------
        ParameterError
            When a name or level is that of no prognostic channel, or all weights are zero.
        """
        factors = self.factors(channels)
        if not factors.sum() > 0:
            raise ParameterError("All channels weigh nothing in the loss.", where=self.where)
        return factors / factors.mean()

    def factors(self, channels: ChannelTable) -> np.ndarray:
        """Give what `resolve` gives, before it is scaled to mean one."""
        table = [channels[i] for i in channels.prognostic]
        self._check_names(table)
        return np.array([self._of_variable(c) * self._of_level(c) for c in table], dtype=np.float64)

    def _of_variable(self, channel: Channel) -> float:
        return self.variables.get(channel.name, self.variables.get(channel.variable, 1.0))

    def _of_level(self, channel: Channel) -> float:
        if channel.level is None:
            return self.surface
        if self.levels == PRESSURE:
            return channel.level / 1000.0
        return (self.levels or {}).get(float(channel.level), 1.0)

    def _check_names(self, table: Sequence[Channel]) -> None:
        known = sorted({c.variable for c in table} | {c.name for c in table})
        for name in self.variables:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ParameterError(
                    f"{self.where} names {name!r}, which is no predicted variable or channel"
                    + (f"; did you mean {near[0]!r}?" if near else "."),
                    where=self.where,
                    remedy=f"Choose among {', '.join(sorted({c.variable for c in table}))}.",
                )
        if isinstance(self.levels, Mapping):
            there = sorted({float(c.level) for c in table if c.level is not None})
            unknown = [level for level in self.levels if level not in there]
            if unknown:
                raise ParameterError(
                    f"{self.where} names the level {unknown[0]:g} hPa, which no predicted channel has.",
                    where=self.where,
                    remedy=f"Choose among {', '.join(f'{level:g}' for level in there) or 'no levels'} hPa.",
                )


def weights_table(
    forecaster: Forecaster, weights: np.ndarray, scale: np.ndarray, spectral: np.ndarray
) -> str:
    """Write the weights in force as CSV, a row for each predicted channel.

    Parameters
    ----------
    forecaster
        For names and standard deviations.
    weights
        (n_prognostic,), mean one.
    scale
        (n_prognostic,): what an error of the normalised state is multiplied with; ``error_unit`` is the physical error
        that then counts as one.
    spectral
        (n_prognostic,): weight of the spectral term.
    """
    rows = ["channel,variable,level_hpa,weight,error_unit,units,spectral_weight"]
    for index, *numbers in zip(forecaster.channels.prognostic, weights, scale, spectral, strict=True):
        weight, factor, waves = numbers
        channel = forecaster.channels[index]
        level = "" if channel.level is None else f"{channel.level:g}"
        rows.append(
            f"{channel.name},{channel.variable},{level},{weight:.6g},{forecaster.std[index] / factor:.6g},"
            f"{channel.units},{waves:g}"
        )
    return "\n".join(rows) + "\n"
