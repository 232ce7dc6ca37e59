"""Losses over the sphere: area-weighted, per channel, with masks for missing values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.errors import ParameterError
from weathermill.training.pointwise import in_one_pass, measure_in_one_pass
from weathermill.training.spectral import SpectralTerm

KINDS = ("mse", "mae", "huber")
UNITS = ("tendency", "state")


class AreaWeightedLoss(nn.Module):
    r"""Mean over the sphere of an error measure, and its weighted mean over channels.

    With area weights :math:`a_{ij}` of mean one and channel weights :math:`w_c` of mean one,

    .. math:: L = \frac1C \sum_c w_c L_c, \qquad
              L_c = \frac{1}{B H W} \sum_{b,i,j} a_{ij}\,\ell(\hat x_{bcij} - x_{bcij}).

    Parameters
    ----------
    kind
        ``"mse"``: :math:`\ell(e) = e^2`; ``"mae"``: :math:`|e|`; ``"huber"``: :math:`e^2/2` up to `delta`,
        beyond it
        :math:`\delta(|e| - \delta/2)`.
    area_weights
        (latitudes,) or (latitudes, longitudes); scaled here to mean one.
    channel_weights
        One for each prognostic channel, scaled here to mean one; equal when None.
    delta
        Of the Huber loss, in units of the error.
    unit
        What a rollout's errors are counted in: ``"tendency"``, the standard deviation of a channel's change over one time
        step, or ``"state"``, that of the channel itself; None for what the network puts out.
    spectral
        A term that is added to the loss of each channel.

    Raises
    ------
    ParameterError
        When the kind or unit is unknown or weights are negative, not finite or all zero.
    """

    def __init__(
        self,
        kind: str = "mse",
        area_weights: np.ndarray | Sequence[float] | None = None,
        channel_weights: np.ndarray | Sequence[float] | None = None,
        delta: float = 1.0,
        unit: str | None = None,
        spectral: SpectralTerm | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ParameterError(f"The loss is {kind!r}; it is one of {', '.join(map(repr, KINDS))}.")
        if delta <= 0:
            raise ParameterError(f"The Huber loss has delta={delta}; it must be positive.")
        if unit not in (None, *UNITS):
            raise ParameterError(
                f"Errors are counted in {unit!r}; it is one of {', '.join(map(repr, UNITS))}."
            )
        self.kind, self.delta, self.unit, self.spectral = kind, float(delta), unit, spectral
        areas = _mean_one("area weights", [1.0] if area_weights is None else area_weights)
        self.register_buffer("area_weights", areas if areas.ndim == 2 else areas[:, None], persistent=False)
        weights = None if channel_weights is None else _mean_one("channel weights", channel_weights)
        self.register_buffer("channel_weights", weights, persistent=False)

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of (batch, channel, latitude, longitude) fields, a 0-d tensor; see `per_channel`."""
        return self.total(self.per_channel(prediction, target, mask))

    def per_channel(
        self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Loss of each channel.

        Parameters
        ----------
        prediction, target
            (batch, channel, latitude, longitude); the difference is taken in float32 at least.
        mask
            Broadcastable to the fields, true where the target is known; the mean is then over these alone.
            Cells where it is false may hold anything, NaN included.
        scale
            (channel, 1, 1) factor of the error.

        Returns
        -------
        torch.Tensor
            (channel,), float32 or float64, the spectral term included.
        """
        plain = self.pointwise(prediction, target, mask, scale)
        return plain if self.spectral is None else plain + self.spectral(prediction, target, mask, scale)

    def pointwise(
        self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Loss of each channel without the spectral term; see `per_channel`."""
        if in_one_pass(prediction, target):
            return measure_in_one_pass(self, prediction, target, mask, scale)
        dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
        error = prediction.to(dtype) - target.to(dtype)
        if scale is not None:
            error = error * scale.to(dtype)
        weights = self.area_weights.to(dtype)
        if mask is None:
            return (self.measure(error) * weights).mean(dim=(0, 2, 3))
        mask = mask.expand_as(error)
        error = torch.where(mask, error, torch.zeros((), dtype=dtype, device=error.device))
        known = (mask * weights).sum(dim=(0, 2, 3))
        return (self.measure(error) * weights).sum(dim=(0, 2, 3)) / known.clamp_min(torch.finfo(dtype).tiny)

    def total(self, per_channel: Tensor) -> Tensor:
        """Weighted mean over channels, 0-d."""
        if self.channel_weights is None:
            return per_channel.mean()
        return (per_channel * self.channel_weights.to(per_channel.dtype)).mean()

    def measure(self, error: Tensor) -> Tensor:
        """Error measure of each cell, without weights."""
        if self.kind == "mse":
            return error.square()
        if self.kind == "mae":
            return error.abs()
        size = error.abs()
        return torch.where(size <= self.delta, 0.5 * error.square(), self.delta * (size - 0.5 * self.delta))

    def slope(self, error: Tensor) -> Tensor:
        """Derivative of `measure`."""
        if self.kind == "mse":
            return 2.0 * error
        return error.sign() if self.kind == "mae" else error.clamp(-self.delta, self.delta)


def _mean_one(name: str, values: np.ndarray | Sequence[float]) -> Tensor:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all() or (array < 0).any() or not array.sum() > 0:
        raise ParameterError(f"The {name} of the loss must be finite, not negative and not all zero.")
    return torch.tensor(array / array.mean(), dtype=torch.float32)
