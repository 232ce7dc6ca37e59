"""Spherical harmonic transforms between latitude-longitude grids and spectral coefficients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.errors import ModelError


def legendre(degrees: int, orders: int, x: np.ndarray) -> np.ndarray:
    r"""Associated Legendre functions, orthonormal together with :math:`e^{im\lambda}/\sqrt{2\pi}`.

    By the recurrence in degree that is stable up to thousands of degrees (Holmes and Featherstone, 2002,
    doi:10.1007/s00190-002-0216-2), in float64, with the Condon-Shortley phase.

    Parameters
    ----------
    degrees, orders
        Degrees 0 … degrees - 1 and orders 0 … orders - 1.
    x
        Sines of latitude.

    Returns
    -------
    numpy.ndarray
        (orders, degrees, len(x)); zero where the order exceeds the degree.
    """
    x = np.asarray(x, dtype=np.float64)
    cosine = np.sqrt(np.clip(1.0 - x**2, 0.0, None))
    p = np.zeros((orders, degrees, len(x)))
    sectoral = np.full(len(x), np.sqrt(0.5))
    for m in range(min(orders, degrees)):
        if m:
            sectoral = -np.sqrt((2 * m + 1) / (2 * m)) * cosine * sectoral
        p[m, m] = sectoral
        if m + 1 < degrees:
            p[m, m + 1] = np.sqrt(2 * m + 3) * x * sectoral
        for n in range(m + 2, degrees):
            a = np.sqrt((4 * n**2 - 1) / (n**2 - m**2))
            b = np.sqrt(((n - 1) ** 2 - m**2) / (4 * (n - 1) ** 2 - 1))
            p[m, n] = a * (x * p[m, n - 1] - b * p[m, n - 2])
    return p


def quadrature_weights(latitude: np.ndarray) -> np.ndarray:
    """Weights that integrate polynomials in sin(latitude) exactly up to a degree of the number of latitudes less one.

    On equally spaced latitudes these are Clenshaw-Curtis or Fejér weights.

    Parameters
    ----------
    latitude
        Degrees, distinct; dense towards the poles in their sines, as equally spaced ones are.

    Raises
    ------
    ModelError
        When a weight is not positive: the latitudes do not suit global transforms.
    """
    x = np.sin(np.deg2rad(np.asarray(latitude, dtype=np.float64)))
    n = len(x)
    matrix = np.polynomial.legendre.legvander(x, n - 1).T * np.sqrt(np.arange(n) + 0.5)[:, None]
    moments = np.zeros(n)
    moments[0] = np.sqrt(2.0)
    weights = np.linalg.solve(matrix, moments)
    if not (weights > -1e-12).all():
        raise ModelError(
            "Spherical harmonic transforms need latitudes that cover the globe from pole to pole, equally spaced or "
            f"Gaussian; these go from {latitude[0]:g} to {latitude[-1]:g}.",
            remedy="Use a global grid, or the unet.",
        )
    return weights


class HarmonicTransform(nn.Module):
    """Real fields to spherical harmonic coefficients of triangular truncation, and back; in float32 at least.

    Parameters
    ----------
    latitude
        Degrees.
    longitudes
        Their number, equally spaced around the globe.
    degrees
        Total wavenumbers below this are kept; None keeps those for which the transform is orthonormal on the
        grid.
    """

    def __init__(self, latitude: np.ndarray, longitudes: int, degrees: int | None = None) -> None:
        super().__init__()
        resolved = min((len(latitude) + 1) // 2, (longitudes + 1) // 2)
        self.degrees = resolved if degrees is None else min(int(degrees), resolved)
        self.longitudes = longitudes
        x = np.sin(np.deg2rad(np.asarray(latitude, dtype=np.float64)))
        functions = legendre(self.degrees, self.degrees, x)
        analysis = functions * quadrature_weights(latitude)
        self.register_buffer("synthesis", torch.tensor(functions, dtype=torch.float32), persistent=False)
        self.register_buffer("analysis", torch.tensor(analysis, dtype=torch.float32), persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """(…, latitude, longitude) to complex coefficients (…, degree, order)."""
        scale = np.sqrt(2.0 * np.pi) / self.longitudes
        waves = torch.fft.rfft(fields, dim=-1)[..., : self.degrees] * scale
        matrix = self.analysis.to(fields.dtype)
        real, imaginary = (
            torch.einsum("...jm,mlj->...lm", part, matrix) for part in (waves.real, waves.imag)
        )
        return torch.complex(real, imaginary)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Complex coefficients (…, degree, order) to fields (…, latitude, longitude)."""
        parts = coefficients.real, coefficients.imag
        matrix = self.synthesis.to(parts[0].dtype)
        real, imaginary = (torch.einsum("...lm,mlj->...jm", part, matrix) for part in parts)
        waves = torch.complex(real, imaginary) * (self.longitudes / np.sqrt(2.0 * np.pi))
        return torch.fft.irfft(waves, n=self.longitudes, dim=-1)
