"""Hard physical constraints as a forecaster's last layer, each of which says how much it had to correct.

They act on the normalised state, in training and in forecasts alike, and are differentiable. A correction
that grows with lead time tells that the network does not obey a law by itself; nobody should read a conserved
mean off the output without looking at it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.models.spectrum import filter_zonally
from weathermill.models.subset import on_channels, take_channels


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
