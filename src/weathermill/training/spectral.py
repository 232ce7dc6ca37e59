r"""A loss term that keeps small scales: what the mean square error takes off the variance of each wavenumber.

The mean square error forgives a forecast that leaves out what it cannot place: a wave in the wrong place is punished
twice, where it is and where it should be. Subich, Husain, Separovic and Yang (2025, arXiv:2501.19374) split the error by
wavenumber into one of amplitude and one of phase,

.. math:: E_k = \left(\sqrt{P_k} - \sqrt{Q_k}\right)^2 + 2 \sqrt{P_k Q_k}\,(1 - C_k),

with the power :math:`P_k` of the forecast, :math:`Q_k` of the truth and their coherence :math:`C_k`, and make the phase
error independent of how strong the forecast is, so that nothing is gained by fading:

.. math:: S_k = \left(\sqrt{P_k} - \sqrt{Q_k}\right)^2 + 2 \max(P_k, Q_k)\,(1 - C_k).

They take total wavenumbers of spherical harmonics; here they are zonal wavenumbers of a Fourier transform along
longitude, with power and coherence averaged over latitude by area, as the spectra of the verification are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.errors import ParameterError
from weathermill.training.spectral_powers import powers

#: Power below this share of the field's total is taken for rounding, which a forecast need not imitate: rounding to
#: float16 leaves about 1e-8.
FLOOR = 1e-7


def require_circles(longitude: np.ndarray) -> None:
    """Refuse longitudes (degrees) that are not evenly spaced all round the globe; raises `ParameterError`."""
    spacing = np.diff(np.asarray(longitude, dtype=np.float64))
    around = spacing.size and np.abs(spacing - 360.0 / len(longitude)).max() < 1e-3 * 360.0 / len(longitude)
    if not around:
        raise ParameterError(
            "The spectral term needs longitudes that are evenly spaced all round the globe.",
            where="train.spectral_weight",
            remedy="Leave it zero for a regional grid.",
        )


class SpectralTerm(nn.Module):
    r"""The sum over zonal wavenumbers of :math:`S_k - E_k`, never negative.

    Added to a mean square error (whose sum over wavenumbers :math:`E_k` is, by Parseval) with weight one it gives the loss
    of Subich et al.; with less, a mixture. It is zero for equal fields, and does not change when both are turned about
    the axis.

    Parameters
    ----------
    weight
        Factor of the term.
    area_weights
        (latitudes,) or (latitudes, longitudes), of any scale.
    longitude
        Degrees, evenly spaced all round.
    channels
        bool (n_prognostic,), to which channels it applies; all when None.

    Raises
    ------
    ParameterError
        When the weight is not positive, or the grid does not go round the globe.
    """

    def __init__(
        self,
        weight: float,
        area_weights: np.ndarray | Sequence[float],
        longitude: np.ndarray,
        channels: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        if not (np.isfinite(weight) and weight > 0):
            raise ParameterError(
                f"The spectral term has the weight {weight}; it must be positive.",
                where="train.spectral_weight",
            )
        require_circles(longitude)
        self.weight = float(weight)
        areas = np.asarray(area_weights, dtype=np.float64)
        areas = areas.mean(axis=1) if areas.ndim == 2 else areas
        self.register_buffer("rows", torch.tensor(areas / areas.sum(), dtype=torch.float32)[:, None], False)
        # All but the mean and, of an even number of points, the shortest wave stand for two coefficients.
        multiplicity = np.full(len(longitude) // 2 + 1, 2.0)
        multiplicity[0] = 1.0
        multiplicity[-1] = 1.0 if len(longitude) % 2 == 0 else 2.0
        self.register_buffer("multiplicity", torch.tensor(multiplicity, dtype=torch.float32), False)
        chosen = None if channels is None else torch.tensor(np.asarray(channels), dtype=torch.float32)
        self.register_buffer("chosen", chosen, False)

    def forward(
        self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Give the term of each channel, times its weight.

        Parameters
        ----------
        prediction, target
            (batch, channel, latitude, longitude); computed in float32 at least. The gradient of `target` is not taken.
        mask
            Broadcastable, true where the target is known; elsewhere both fields count as zero, the mean.
        scale
            (channel, 1, 1) factor of the fields.

        Returns
        -------
        torch.Tensor
            (channel,), the mean over the batch, in squared units of the scaled fields.
        """
        dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
        x, y = prediction.to(dtype), target.to(dtype)
        if mask is not None:
            zero = torch.zeros((), dtype=dtype, device=x.device)
            x, y = torch.where(mask, x, zero), torch.where(mask, y, zero)
        term = self._excess(x, y).mean(dim=0)
        if scale is not None:
            term = term * scale.to(dtype).flatten().square()
        return self.weight * (term if self.chosen is None else term * self.chosen.to(dtype))

    def _excess(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of S - E over wavenumbers, (batch, channel), without a difference of nearly equal numbers."""
        error, gain, p, q = powers(x, y, self.rows, self.multiplicity)
        floor = FLOOR * q.detach().sum(dim=-1, keepdim=True) + torch.finfo(q.dtype).tiny
        p, q = p + floor, q + floor
        amplitude = (gain / (p.sqrt() + q.sqrt())).square()
        phase = (error - amplitude).clamp_min(0.0)
        return ((torch.maximum(p, q) / torch.minimum(p, q)).sqrt().sub(1.0) * phase).sum(dim=-1)
