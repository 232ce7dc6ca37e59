"""Architectures by name, and the configuration that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from torch import nn

from weathermill.errors import ModelError
from weathermill.models.boundary import BOUNDARIES, PADDINGS, Edges, choose_edges, edges_from
from weathermill.models.own_networks import VARIABLE, import_allowed, module_of

logger = logging.getLogger(__name__)

NORMS = ("batch", "group", "none")
TARGETS = ("tendency", "state")
RESIDUALS = ("persistence", "damped_persistence")


@dataclass(frozen=True)
class ModelConfig:
    """What a network is, apart from the data that it is for.

    Parameters
    ----------
    name
        A registered architecture: ``"unet"`` or ``"sfno"``.
    base_channels
        Channels of the U-Net's first level, each further one having twice as many; of all SFNO layers.
    depth
        Number of pooling levels, or of SFNO blocks.
    boundary
        ``"auto"``: edges close where the grid does (periodic in longitude, across the pole, shifted by 180 degrees, in
        latitude), and the others are padded. ``"sphere"``: the same, of a grid that must cover the globe.
        ``"replicate"``, ``"reflect"``, ``"zeros"``: every edge is padded so, also where the grid closes; zeros are those
        of the published baseline.
    open_edges
        With ``"auto"``: how edges are padded that do not close.
    edges
        What lies beyond each edge, once the grid is known; see `with_edges`.
    norm
        ``"batch"``, ``"group"`` or ``"none"``.
    target
        What the network puts out: ``"tendency"`` (the change over one time step, in units of its own standard
        deviation) or ``"state"`` (the next state, normalised).
    residual
        What a tendency is added to: ``"persistence"``, the state itself, or ``"damped_persistence"``, the state drawn
        towards the climatology of each cell, see `weathermill.models.residual`.
    damping
        With damped persistence: how many times as fast as in the training period anomalies are damped.
    dropout
        Probability of dropping a channel after each block; 0 switches it off.
    zero_head
        Start from a head of zeros, so that an untrained tendency network is persistence.
    modes
        Of spectral networks: total wavenumbers below this are kept; None keeps what the grid resolves.
    non_negative, conserve_mean, pin_mean
        Names of variables or channels under a hard constraint, see `weathermill.models.constraints`.
    budget_mean
        Variables or channels whose global mean changes by so much a day, in physical units.
    conserve_dry_mass
        Hold the mass of dry air by shifting the pressure field.
    zonal_filter
        Order of the filter against short waves along circles of latitude, such as 8; None filters nothing.
    """

    name: str = "unet"
    base_channels: int = 64
    depth: int = 3
    boundary: str = "auto"
    open_edges: str = "replicate"
    edges: Edges | None = None
    norm: str = "batch"
    target: str = "tendency"
    residual: str = "persistence"
    damping: float = 1.0
    dropout: float = 0.0
    zero_head: bool = False
    modes: int | None = None
    non_negative: tuple[str, ...] = ()
    conserve_mean: tuple[str, ...] = ()
    pin_mean: tuple[str, ...] = ()
    budget_mean: tuple[tuple[str, float], ...] = ()
    conserve_dry_mass: bool = False
    zonal_filter: int | None = None

    def __post_init__(self) -> None:
        for name in ("non_negative", "conserve_mean", "pin_mean"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        budget = self.budget_mean.items() if isinstance(self.budget_mean, Mapping) else self.budget_mean
        object.__setattr__(
            self, "budget_mean", tuple(sorted((str(name), float(rate)) for name, rate in budget))
        )
        object.__setattr__(self, "edges", edges_from(self.edges))
        if self.zonal_filter is not None and self.zonal_filter < 2:
            raise ModelError(
                f"Model parameter zonal_filter is {self.zonal_filter}; it is an order of 2 or more."
            )
        for field, value, allowed in (
            ("boundary", self.boundary, BOUNDARIES),
            ("open_edges", self.open_edges, PADDINGS),
            ("norm", self.norm, NORMS),
            ("target", self.target, TARGETS),
            ("residual", self.residual, RESIDUALS),
        ):
            if value not in allowed:
                raise ModelError(
                    f"Model parameter {field} is {value!r}; it is one of {', '.join(map(repr, allowed))}."
                )
        if self.base_channels < 1 or not 1 <= self.depth <= 8:
            raise ModelError(
                f"Model parameters base_channels={self.base_channels}, depth={self.depth} are out of range: "
                "at least one channel, one to eight levels."
            )
        if not self.damping > 0:
            raise ModelError(f"Model parameter damping is {self.damping}; it is positive.")
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"Model parameter dropout is {self.dropout}; it lies in [0, 1).")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return asdict(self)

    def with_edges(self, latitude: np.ndarray | None, longitude: np.ndarray | None) -> ModelConfig:
        """Choose what lies beyond the edges of a grid, where it is not chosen yet.

        Parameters
        ----------
        latitude, longitude
            Degrees; the grid is taken to close along one that is None.

        Raises
        ------
        ModelError
            When the boundary is ``"sphere"`` and the grid does not cover the globe.
        """
        if self.edges is not None:
            return self
        return replace(self, edges=choose_edges(self.boundary, self.open_edges, latitude, longitude))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from a dictionary; unknown keys raise `ModelError`."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(
                f"Unknown model parameters {', '.join(unknown)}; known are {', '.join(sorted(known))}."
            )
        return cls(**values)


Builder = Callable[..., nn.Module]
_NETWORKS: dict[str, Builder] = {}


def register_network(name: str) -> Callable[[Builder], Builder]:
    """Register a builder ``(config, *, in_channels, out_channels, grid_shape, latitude) -> nn.Module``.

    ``config.edges`` says what lies beyond the edges of the grid. The module maps (batch, in_channels, latitude, longitude) to (batch, out_channels, latitude, longitude).

    Parameters
    ----------
    name
        The value of ``ModelConfig.name`` that selects it.

    Raises
    ------
    ModelError
        If another module has registered a network of that name.
    """

    def register(builder: Builder) -> Builder:
        other = _NETWORKS.get(name)
        if other is not None and other.__module__ != builder.__module__:
            raise ModelError(
                f"The networks of {other.__module__} and of {builder.__module__} have the same name, {name!r}.",
                remedy="Register yours under another name.",
            )
        _NETWORKS[name] = builder
        return builder

    return register


def available_networks() -> list[str]:
    """Names of the registered architectures."""
    _import_own()
    return sorted(_NETWORKS)


def build_network(
    config: ModelConfig,
    *,
    in_channels: int,
    out_channels: int,
    grid_shape: Sequence[int],
    latitude: np.ndarray | None = None,
    longitude: np.ndarray | None = None,
) -> nn.Module:
    """Build the network that `config` names.

    Parameters
    ----------
    config
        The architecture and its size.
    in_channels, out_channels
        Channels of the input (dynamic and static) and of the output (prognostic).
    grid_shape
        (latitudes, longitudes).
    latitude
        Degrees, descending or ascending; tells whether the poles are grid points. Equally spaced rows from pole to pole
        without pole points are assumed when it is not given.
    longitude
        Degrees; tells whether the grid goes round the circle, which is assumed when it is not given.

    Returns
    -------
    torch.nn.Module
        float32, on the CPU.

    Raises
    ------
    ModelError
        When the architecture is unknown, the grid too small for it, or its boundary does not suit the grid.
    """
    return find_network(config.name)(
        config.with_edges(latitude, longitude),
        in_channels=in_channels,
        out_channels=out_channels,
        grid_shape=tuple(int(n) for n in grid_shape),
        latitude=latitude,
    )


def find_network(name: str) -> Builder:
    """Find the builder of a network: among those registered, then by entry points and what the environment allows.

    Raises
    ------
    ModelError
        When there is none of that name.
    """
    _import_own()
    if name not in _NETWORKS and callable(builder := import_allowed(name)) and name not in _NETWORKS:
        register_network(name)(builder)
    if name not in _NETWORKS:
        raise ModelError(
            f"There is no architecture {name!r}; there are {', '.join(sorted(_NETWORKS))}.",
            remedy="Choose one of these, or register yours with `register_network` in a module that `model.module` names.",
        )
    return _NETWORKS[name]


def network_module(name: str) -> str:
    """The module outside of this package that registered a network; empty for those of this package."""
    return module_of(find_network(name))


def require_network(name: str, module: str, where: str) -> None:
    """Refuse a saved model whose network is not known here; warn where it comes from another module than then.

    Parameters
    ----------
    name
        Of the network.
    module
        That registered it when the model was saved; empty for those of this package. It is not imported.
    where
        The model's folder, for messages.

    Raises
    ------
    ModelError
        Saying how to have the module imported.
    """
    try:
        now = network_module(name)
    except ModelError as error:
        if not module or name in _NETWORKS or error.where:
            raise
        raise ModelError(
            f"The network {name!r} of this model is registered by the module {module!r}, which is not imported.",
            where=where,
            remedy=f"Name it in the parameters (`model.module: {module}`) or, where there are none, in the environment "
            f"({VARIABLE}={module}); or import it before. A model's file alone has no module imported.",
        ) from error
    if now != module:
        logger.warning(
            "The model in %s was trained with the network %r of %s; here it is that of %s.",
            where,
            name,
            module or __package__,
            now or __package__,
        )


def _import_own() -> None:
    # They register themselves; importing them above would be a cycle.
    from weathermill.models import sfno, unet  # noqa: F401
