"""Whether a network and its constraints suit a grid: what holds for the globe alone is refused on a part of it."""

from __future__ import annotations

import numpy as np

from weathermill.errors import ModelError
from weathermill.extent import is_globe
from weathermill.models.boundary import Edges
from weathermill.models.registry import ModelConfig

_MEANS = ("conserve_mean", "pin_mean", "budget_mean", "conserve_dry_mass")


def require_suitable_grid(config: ModelConfig, latitude: np.ndarray, longitude: np.ndarray) -> None:
    """Refuse a configuration that does not suit a grid.

    Parameters
    ----------
    config
        The network.
    latitude, longitude
        (rows,) and (columns,) in degrees.

    Raises
    ------
    ModelError
        When the boundary is that of the sphere or the network is spectral on a part of the globe, the zonal filter is asked
        of circles that do not close, or a global mean is to be held on a part of the globe.
    """
    edges = config.with_edges(latitude, longitude).edges
    if config.name == "sfno":
        require_sphere(edges.geographic(latitude))
    if config.zonal_filter is not None:
        _require_circles(longitude)
    if not is_globe(latitude, longitude):
        _refuse_means(config, latitude, longitude)


def require_sphere(edges: Edges) -> None:
    """Refuse a spherical Fourier neural operator on a grid that does not close everywhere; raises `ModelError`."""
    if not edges.is_sphere:
        raise ModelError(
            "A spherical Fourier neural operator knows no boundary but the sphere; that of this grid is "
            f"{edges.describe()}.",
            where="model.name, model.boundary",
            remedy="Regrid to a global grid (`regrid.target`) with model.boundary auto, or set model.name to unet.",
        )


def _refuse_means(config: ModelConfig, latitude: np.ndarray, longitude: np.ndarray) -> None:
    """Refuse to hold means over a part of the globe: what crosses its edges changes them."""
    asked = [f"model.{name}" for name in _MEANS if getattr(config, name)]
    if asked:
        raise ModelError(
            f"A constraint on the global mean needs a grid of the globe, and this one goes from latitude {latitude[0]:g} to "
            f"{latitude[-1]:g} and from longitude {longitude[0]:g} to {longitude[-1]:g}: air, water and heat cross its edges.",
            where=", ".join(asked),
            remedy=f"Leave {' and '.join(asked)} out, or regrid global data to a global grid (`regrid.target`).",
        )


def _require_circles(longitude: np.ndarray) -> None:
    spacing = 360.0 / len(longitude)
    if len(longitude) < 4 or np.abs(np.diff(longitude) - spacing).max() > 1e-3 * spacing:
        raise ModelError(
            "The zonal filter needs longitudes that are evenly spaced all round the globe; these are "
            f"{len(longitude)} from {longitude[0]:g} to {longitude[-1]:g}.",
            where="model.zonal_filter",
            remedy="Set it to null for a regional grid.",
        )
