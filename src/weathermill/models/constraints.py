"""Hard physical constraints as a forecaster's last layer, each of which says how much it had to correct.

They act on the normalised state, in training and in forecasts alike, and are differentiable. A correction
that grows with lead time tells that the network does not obey a law by itself; nobody should read a conserved
mean off the output without looking at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.errors import ModelError

if TYPE_CHECKING:
    from weathermill.models.forecaster import Forecaster
    from weathermill.tensors.channels import ChannelTable


class Constraint(nn.Module):
    """A map of the next state that makes a law hold for some channels.

    Parameters
    ----------
    name
        For the record of corrections.
    channels
        Indices of the channels that it acts on.
    unit
        (channels,) physical units in one normalised unit: corrections are recorded in physical units.
    """

    def __init__(self, name: str, channels: Sequence[int], unit: np.ndarray) -> None:
        super().__init__()
        self.name = name
        self.channels = list(channels)
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float32), persistent=False)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the constrained channels (batch, len(channels), latitudes, longitudes)."""
        raise NotImplementedError

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the constraint.

        Parameters
        ----------
        before, after
            (batch, n_prognostic, latitudes, longitudes): the state, and the next one as the network has it.

        Returns
        -------
        tuple
            The constrained next state, and the root-mean-square correction of each channel, in physical
            units.
        """
        index = torch.tensor(self.channels, device=after.device)
        mine = after.index_select(1, index)
        corrected = self.corrected(before.index_select(1, index), mine)
        size = (corrected - mine).detach().square().mean(dim=(0, 2, 3)).sqrt() * self.unit.to(after.dtype)
        return after.index_copy(1, index, corrected), size


class NonNegative(Constraint):
    """No value below physical zero: for humidity and other amounts. What is below is set to zero."""

    def __init__(self, channels: Sequence[int], mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__("non_negative", channels, std)
        self.register_buffer(
            "zero", torch.tensor(-mean / std, dtype=torch.float32)[:, None, None], persistent=False
        )

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return torch.maximum(after, self.zero.to(after.dtype))


class _Mean(Constraint):
    """Shifts a channel, by the same amount everywhere, to a given area-weighted global mean."""

    def __init__(self, name: str, channels: Sequence[int], std: np.ndarray, areas: np.ndarray) -> None:
        super().__init__(name, channels, std)
        weights = torch.tensor(areas / areas.mean(), dtype=torch.float32)[:, None]
        self.register_buffer("areas", weights, persistent=False)

    def mean(self, fields: Tensor) -> Tensor:
        """Area-weighted mean (batch, channel, 1, 1)."""
        return (fields * self.areas.to(fields.dtype)).mean(dim=(2, 3), keepdim=True)


class ConserveMean(_Mean):
    """The global mean stays what it was before the step: of surface pressure, that is the mass of the air.

    Of mean sea-level pressure it is so to the extent that the reduction to sea level does not change; dry
    mass is conserved with it as far as the mean of the water vapour is constant.
    """

    def __init__(self, channels: Sequence[int], std: np.ndarray, areas: np.ndarray) -> None:
        super().__init__("conserve_mean", channels, std, areas)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return after + (self.mean(before) - self.mean(after))


class PinMean(_Mean):
    """The global mean is that of the training period, which is zero in normalised units."""

    def __init__(self, channels: Sequence[int], std: np.ndarray, areas: np.ndarray) -> None:
        super().__init__("pin_mean", channels, std, areas)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return after - self.mean(after)


class Constraints(nn.Module):
    """Constraints one after the other, means first, signs last; falsy when there are none.

    Parameters
    ----------
    constraints
        In order.
    names
        Names of the prognostic channels, for `corrections`.
    """

    def __init__(self, constraints: Sequence[Constraint], names: Sequence[str]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(constraints)
        self.names = list(names)
        self._sizes: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        return len(self.layers) > 0

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Apply all; see `Constraint.forward`."""
        for layer in self.layers:
            after, self._sizes[layer.name] = layer(before, after)
        return after

    def corrections(self) -> dict[str, float]:
        """Root-mean-square corrections of the last step, in physical units: ``{"non_negative/specific_humidity_500": …}``.

        Reading them waits for the device.
        """
        return {
            f"{layer.name}/{self.names[channel]}": float(size)
            for layer in self.layers
            if layer.name in self._sizes
            for channel, size in zip(layer.channels, self._sizes[layer.name].tolist(), strict=True)
        }


def make_constraints(forecaster: Forecaster) -> Constraints:
    """Build the constraints that a forecaster's configuration names.

    Raises
    ------
    ModelError
        When a name is that of no prognostic variable or channel, or a global mean is asked of one that may be missing.
    """
    config, table = forecaster.config, forecaster.channels
    areas = _areas(forecaster.latitude)
    constraints: list[Constraint] = []
    for names, kind in ((config.conserve_mean, ConserveMean), (config.pin_mean, PinMean)):
        if names:
            channels = _channels(names, table)
            _refuse_gaps(channels, table)
            constraints.append(kind(channels, forecaster.std[channels], areas))
    if config.non_negative:
        channels = _channels(config.non_negative, table)
        constraints.append(NonNegative(channels, forecaster.mean[channels], forecaster.std[channels]))
    return Constraints(constraints, table.names[: table.n_prognostic])


def _channels(names: Sequence[str], table: ChannelTable) -> list[int]:
    indices: list[int] = []
    for name in names:
        found = [i for i in table.prognostic if name in (table[i].name, table[i].variable)]
        if not found:
            known = sorted({table[i].variable for i in table.prognostic})
            raise ModelError(
                f"A constraint names {name!r}, which is no prognostic variable or channel; variables are "
                f"{', '.join(known)}."
            )
        indices += [i for i in found if i not in indices]
    return indices


def _refuse_gaps(channels: Sequence[int], table: ChannelTable) -> None:
    gaps = [table[i].name for i in channels if table[i].may_be_missing]
    if gaps:
        raise ModelError(
            f"The global mean of {', '.join(gaps)} cannot be held, as cells may be missing there.",
            where="model.conserve_mean, model.pin_mean",
            remedy="Leave the channel out of both, or fill its gaps with `ingest.fill`.",
        )


def _areas(latitude: np.ndarray) -> np.ndarray:
    """Areas of latitude bands that meet half-way between rows, differences of the sine of their edges."""
    latitude = np.asarray(latitude, dtype=np.float64)
    inner = (latitude[1:] + latitude[:-1]) / 2
    first, last = latitude[0] + (latitude[0] - inner[0]), latitude[-1] + (latitude[-1] - inner[-1])
    edges = np.clip(np.concatenate([[first], inner, [last]]), -90.0, 90.0)
    return np.abs(np.diff(np.sin(np.deg2rad(edges))))
