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
from weathermill.models.spectrum import filter_zonally
from weathermill.models.subset import on_channels, take_channels

if TYPE_CHECKING:
    from weathermill.models.forecaster import Forecaster
    from weathermill.tensors.channels import ChannelTable


#: Standard acceleration of free fall (ISO 80000-3), m s⁻².
GRAVITY = 9.80665


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
        # On the device beforehand: a CUDA graph cannot take what lies in the host's memory.
        self.register_buffer("index", torch.tensor(self.channels, dtype=torch.int64), persistent=False)
        self.everything = False

    def among(self, channels: Sequence[int]) -> None:
        """Say which channels `forward` will get: all that there are, or some of them."""
        places = [channels.index(c) for c in self.channels]
        self.everything = places == list(range(len(channels)))
        self.index = torch.tensor(places, dtype=torch.int64)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the constrained channels (batch, len(channels), latitudes, longitudes)."""
        raise NotImplementedError

    def forward(self, before: Tensor, after: Tensor, measure: bool = True) -> tuple[Tensor, Tensor | None]:
        """Apply the constraint.

        Parameters
        ----------
        before, after
            (batch, channels, latitudes, longitudes): the state, of any floating dtype, and the next one as the
            network has it; of the channels that `among` said, or of all.
        measure
            Whether to say how large corrections were, which reads all again.

        Returns
        -------
        tuple
            The constrained next state, and the root-mean-square correction of each channel, in physical units; None
            where it was not measured.
        """
        mine = after if self.everything else after.index_select(1, self.index)
        corrected = self.corrected(before if self.everything else before.index_select(1, self.index), mine)
        size = None
        if measure:
            with torch.no_grad():
                size = (corrected - mine).square().mean(dim=(0, 2, 3)).sqrt() * self.unit.to(after.dtype)
        return corrected if self.everything else after.index_copy(1, self.index, corrected), size


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
        """Area-weighted mean (batch, channel, 1, 1), in float32 at least."""
        dtype = torch.promote_types(fields.dtype, torch.float32)
        return (fields.to(dtype) * self.areas.to(dtype)).mean(dim=(2, 3), keepdim=True)


class ConserveMean(_Mean):
    """The global mean stays what it was before the step: of surface pressure, that is the mass of the air.

    Of mean sea-level pressure it is so to the extent that the reduction to sea level does not change; dry
    mass is conserved with it as far as the mean of the water vapour is constant: `ConserveDryMass` does without that.
    """

    def __init__(self, channels: Sequence[int], std: np.ndarray, areas: np.ndarray) -> None:
        super().__init__("conserve_mean", channels, std, areas)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return after + (self.mean(before) - self.mean(after))


class BudgetMean(_Mean):
    """The global mean changes by a given amount a step.

    Parameters
    ----------
    channels, std, areas
        As of the others.
    change
        (channels,) per step, in physical units.
    """

    def __init__(
        self, channels: Sequence[int], std: np.ndarray, areas: np.ndarray, change: np.ndarray
    ) -> None:
        super().__init__("budget_mean", channels, std, areas)
        normalised = torch.tensor(change / std, dtype=torch.float32)[:, None, None]
        self.register_buffer("change", normalised, persistent=False)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return after + (self.mean(before) + self.change.to(after.dtype) - self.mean(after))


class ConserveDryMass(_Mean):
    r"""The mass of dry air stays what it was before the step, by a shift of the pressure field.

    It is the global mean of :math:`p_s - g W` over :math:`g`, where the weight of the water vapour
    :math:`g W = \int q\,dp` is that of the column total or is summed up over the levels that there are (Trenberth
    and Smith, 2005, doi:10.1175/JCLI-3299.1). Taking mean sea-level for surface pressure neglects the mountains.

    Parameters
    ----------
    channels
        That of pressure first, then those of water vapour.
    weights
        (channels - 1,) Pa that one physical unit of each channel of water vapour weighs.
    std, areas
        As of the others.
    """

    def __init__(
        self, channels: Sequence[int], weights: np.ndarray, std: np.ndarray, areas: np.ndarray
    ) -> None:
        super().__init__("conserve_dry_mass", channels, std, areas)
        # What a normalised unit of each channel of water vapour weighs, in normalised units of pressure.
        vapour = torch.tensor(weights * std[1:] / std[0], dtype=torch.float32)[:, None, None]
        self.register_buffer("vapour", vapour, persistent=False)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        gained = self.mean(after - before)
        excess = gained[:, :1] - (gained[:, 1:] * self.vapour.to(after.dtype)).sum(dim=1, keepdim=True)
        return torch.cat([after[:, :1] - excess, after[:, 1:]], dim=1)


class PinMean(_Mean):
    """The global mean is that of the training period, which is zero in normalised units."""

    def __init__(self, channels: Sequence[int], std: np.ndarray, areas: np.ndarray) -> None:
        super().__init__("pin_mean", channels, std, areas)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return after - self.mean(after)


class ZonalFilter(Constraint):
    r"""Damps waves that are short on the ground, along each circle of latitude: a spectral hyperdiffusion.

    A wave of zonal wavenumber :math:`k` at latitude :math:`\varphi` is damped by
    :math:`\exp(-(k / (K \cos\varphi))^p)`, where :math:`K` is the largest wavenumber of the grid, so that the shortest
    wave of the equator loses a factor of :math:`e` a step and the short waves of converging meridians go first (exponential
    filters and polar filters: Jablonowski and Williamson, 2011, doi:10.1007/978-3-642-11640-7_13). Zonal means stay.

    Parameters
    ----------
    channels, unit
        As of the others.
    latitude
        Degrees.
    longitudes
        Their number.
    order
        The exponent :math:`p`; the larger, the sharper.
    """

    def __init__(
        self, channels: Sequence[int], unit: np.ndarray, latitude: np.ndarray, longitudes: int, order: int
    ) -> None:
        super().__init__("zonal_filter", channels, unit)
        k = np.arange(longitudes // 2 + 1) / (longitudes // 2)
        # Near a pole point the filter leaves the zonal mean alone.
        circles = np.maximum(np.cos(np.deg2rad(np.asarray(latitude, dtype=np.float64))), 1e-3)
        with np.errstate(over="ignore"):
            response = np.exp(-((k[None, :] / circles[:, None]) ** order))
        self.register_buffer("response", torch.tensor(response, dtype=torch.float32), persistent=False)

    def corrected(self, before: Tensor, after: Tensor) -> Tensor:
        """See `Constraint`."""
        return filter_zonally(after, self.response)


class Constraints(nn.Module):
    """Constraints one after the other: scales, means, signs, and the mass of dry air; falsy when there are none.

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
        #: Whether corrections are measured in training too; else without gradients alone.
        self.recording = False
        self._sizes: dict[str, Tensor] = {}
        self._group()

    def _group(self) -> None:
        """Take constraints on some channels together: these are taken out of the state and put back once."""
        everything = list(range(len(self.names)))
        #: Name of the buffer of the channels, None for all, and the constraints.
        self._groups: list[tuple[str | None, list[Constraint]]] = []
        partial: list[Constraint] = []
        for layer in [*self.layers, None]:
            if layer is not None and layer.channels != everything:
                partial.append(layer)
                continue
            if partial:
                union = sorted({c for each in partial for c in each.channels})
                name = f"group_{len(self._groups)}"
                self.register_buffer(name, torch.tensor(union, dtype=torch.int64), persistent=False)
                self._groups.append((name, partial))
                for each in partial:
                    each.among(union)
                partial = []
            if layer is not None:
                layer.among(everything)
                self._groups.append((None, [layer]))

    def __bool__(self) -> bool:
        return len(self.layers) > 0

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Apply all; see `Constraint.forward`."""
        measure = self.recording or not torch.is_grad_enabled()
        for name, layers in self._groups:
            if name is None:
                after = self._constrain(layers, before, after, measure)
                continue
            index = getattr(self, name)

            def change(mine: Tensor, origin: Tensor, layers: list[Constraint] = layers) -> Tensor:
                # With gradients it is called for these alone, a second time.
                return self._constrain(layers, origin, mine, measure and not torch.is_grad_enabled())

            after = on_channels(change, after, index, take_channels(before, index))
        return after

    def _constrain(self, layers: list[Constraint], before: Tensor, after: Tensor, measure: bool) -> Tensor:
        for layer in layers:
            after, size = layer(before, after, measure)
            if size is not None:
                self._sizes[layer.name] = size
        return after

    def record(self, on: bool) -> None:
        """Measure corrections in training too, not without gradients alone."""
        self.recording = on

    def corrections(self) -> dict[str, float]:
        """Root-mean-square corrections of the last recorded step, in physical units: ``{"non_negative/specific_humidity_500": …}``.

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
        When a name is that of no prognostic variable or channel, a global mean is asked of one that may be missing or
        asked twice, what the mass of dry air is made of is not predicted, or the zonal filter is asked of circles that do
        not close.
    """
    config, table = forecaster.config, forecaster.channels
    std, areas = forecaster.std, _areas(forecaster.latitude)
    rates = {c: rate for name, rate in config.budget_mean for c in _channels([name], table)}
    vapour = _dry_mass(table) if config.conserve_dry_mass else None
    means = {
        "conserve_mean": _channels(config.conserve_mean, table),
        "pin_mean": _channels(config.pin_mean, table),
        "budget_mean": list(rates),
        "conserve_dry_mass": vapour[0][:1] if vapour is not None else [],
    }
    _refuse_contradictions(means, table)
    _refuse_gaps([c for channels in means.values() for c in channels], table)
    constraints: list[Constraint] = []
    if config.zonal_filter is not None:
        # The waves of a field with gaps are not its own.
        channels = [i for i in table.prognostic if not table[i].may_be_missing]
        _require_circles(forecaster.longitude)
        grid = forecaster.latitude, forecaster.grid_shape[1]
        constraints.append(ZonalFilter(channels, std[channels], *grid, config.zonal_filter))
    if channels := means["conserve_mean"]:
        constraints.append(ConserveMean(channels, std[channels], areas))
    if channels := means["pin_mean"]:
        constraints.append(PinMean(channels, std[channels], areas))
    if channels := means["budget_mean"]:
        change = np.array([rates[c] for c in channels]) * forecaster.time_step / 86400.0
        constraints.append(BudgetMean(channels, std[channels], areas, change))
    if config.non_negative:
        channels = _channels(config.non_negative, table)
        constraints.append(NonNegative(channels, forecaster.mean[channels], std[channels]))
    if vapour is not None:
        channels, weights = vapour
        _refuse_gaps(channels, table)
        constraints.append(ConserveDryMass(channels, weights, std[channels], areas))
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


def _dry_mass(table: ChannelTable) -> tuple[list[int], np.ndarray]:
    """Channel of pressure and those of water vapour, and what one unit of each of the latter weighs in Pa."""
    by_variable: dict[str, list[int]] = {}
    for i in table.prognostic:
        by_variable.setdefault(table[i].variable, []).append(i)
    pressure = by_variable.get("surface_pressure") or by_variable.get("mean_sea_level_pressure")
    if pressure is None:
        raise ModelError(
            "The mass of dry air needs surface_pressure or mean_sea_level_pressure among the predicted channels.",
            where="model.conserve_dry_mass",
            remedy="Predict one of them, or leave conserve_dry_mass out.",
        )
    if column := by_variable.get("total_column_water_vapour"):
        return [pressure[0], column[0]], np.array([GRAVITY])
    levels = sorted((table[i].level, i) for i in by_variable.get("specific_humidity", []))
    if len(levels) < 2:
        raise ModelError(
            "The mass of dry air needs total_column_water_vapour or specific_humidity on two levels at least.",
            where="model.conserve_dry_mass",
            remedy="Predict one of them, or use conserve_mean of the pressure.",
        )
    p = np.array([100.0 * level for level, _ in levels])
    thickness = np.zeros(len(p))
    thickness[1:] += np.diff(p) / 2
    thickness[:-1] += np.diff(p) / 2
    return [pressure[0], *(i for _, i in levels)], thickness


def _require_circles(longitude: np.ndarray) -> None:
    spacing = 360.0 / len(longitude)
    if len(longitude) < 4 or np.abs(np.diff(longitude) - spacing).max() > 1e-3 * spacing:
        raise ModelError(
            "The zonal filter needs longitudes that are evenly spaced all round the globe; these are "
            f"{len(longitude)} from {longitude[0]:g} to {longitude[-1]:g}.",
            where="model.zonal_filter",
            remedy="Set it to null for a regional grid.",
        )


def _refuse_contradictions(means: dict[str, list[int]], table: ChannelTable) -> None:
    for channel in {c for channels in means.values() for c in channels}:
        holding = [name for name, channels in means.items() if channel in channels]
        if len(holding) > 1:
            raise ModelError(
                f"The global mean of {table[channel].name} cannot obey {' and '.join(holding)} at once.",
                where=", ".join(f"model.{name}" for name in holding),
                remedy="Keep one of them.",
            )


def _refuse_gaps(channels: Sequence[int], table: ChannelTable) -> None:
    gaps = [table[i].name for i in channels if table[i].may_be_missing]
    if gaps:
        raise ModelError(
            f"The global mean of {', '.join(gaps)} cannot be held, as cells may be missing there.",
            where="model.conserve_mean, model.pin_mean, model.budget_mean, model.conserve_dry_mass",
            remedy="Leave the channel out of all, or fill its gaps with `ingest.fill`.",
        )


def _areas(latitude: np.ndarray) -> np.ndarray:
    """Areas of latitude bands that meet half-way between rows, differences of the sine of their edges."""
    latitude = np.asarray(latitude, dtype=np.float64)
    inner = (latitude[1:] + latitude[:-1]) / 2
    first, last = latitude[0] + (latitude[0] - inner[0]), latitude[-1] + (latitude[-1] - inner[-1])
    edges = np.clip(np.concatenate([[first], inner, [last]]), -90.0, 90.0)
    return np.abs(np.diff(np.sin(np.deg2rad(edges))))
