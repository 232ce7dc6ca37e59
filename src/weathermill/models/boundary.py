"""What lies beyond the edges of a grid: which of them close on the sphere, and how the open ones are padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from weathermill.errors import ModelError
from weathermill.extent import is_global_longitude, reaches_poles

#: Ways to pad an edge beyond which nothing is known.
PADDINGS = ("replicate", "reflect", "zeros")
BOUNDARIES = ("auto", "sphere", *PADDINGS)

POLE, PERIODIC = "pole", "periodic"
_IN_WORDS = {
    POLE: "across the pole",
    PERIODIC: "periodic",
    "replicate": "open, padded by replication",
    "reflect": "open, padded by reflection",
    "zeros": "open, padded by zeros",
}


@dataclass(frozen=True)
class Edges:
    """What lies beyond each edge of a latitude-longitude grid.

    Parameters
    ----------
    north, south
        Beyond the first and beyond the last row, which lie in the north and south where latitudes descend, as those of
        canonical fields do: ``"pole"`` (the rows on the meridian 180 degrees away), or a padding:
        ``"replicate"`` (the row itself), ``"reflect"`` (mirrored about the row) or ``"zeros"``.
    longitude
        Beyond the first and the last column: ``"periodic"``, or a padding.

    Raises
    ------
    ModelError
        When a name is unknown, or the grid is to go on across a pole without going round the circle.
    """

    north: str = POLE
    south: str = POLE
    longitude: str = PERIODIC

    def __post_init__(self) -> None:
        for name, value, closed in (
            ("north", self.north, POLE),
            ("south", self.south, POLE),
            ("longitude", self.longitude, PERIODIC),
        ):
            if value not in (closed, *PADDINGS):
                raise ModelError(
                    f"The {name} edge of the grid is {value!r}; it is one of "
                    f"{', '.join(map(repr, (closed, *PADDINGS)))}."
                )
        if POLE in (self.north, self.south) and self.longitude != PERIODIC:
            raise ModelError(
                "A grid goes on across a pole only where its longitudes go round the whole circle; these edges are "
                f"{self.describe()}."
            )

    @classmethod
    def uniform(cls, padding: str) -> Edges:
        """Pad every edge in one way."""
        return cls(padding, padding, padding)

    @property
    def is_sphere(self) -> bool:
        """Whether every edge closes."""
        return self == SPHERE

    @property
    def is_zeros(self) -> bool:
        """Whether every edge is padded by zeros."""
        return self == Edges.uniform("zeros")

    @property
    def name(self) -> str:
        """One word where one kind holds for all edges, such as ``sphere``; else the kind of each edge."""
        if self.is_sphere:
            return "sphere"
        if self.north == self.south == self.longitude:
            return self.north
        return f"north {self.north}, south {self.south}, west and east {self.longitude}"

    def describe(self) -> str:
        """Say in words what lies beyond each edge."""
        if self.is_sphere:
            return "sphere, periodic in longitude and across both poles in latitude"
        if self.north == self.south == self.longitude:
            return f"all edges {_IN_WORDS[self.north]}"
        return (
            f"north {_IN_WORDS[self.north]}; south {_IN_WORDS[self.south]}; west and east "
            f"{_IN_WORDS[self.longitude]}"
        )

    def geographic(self, latitude: np.ndarray | None) -> Edges:
        """Return the edges with north and south as they are on the map, for messages.

        Parameters
        ----------
        latitude
            (rows,) degrees, in either order; None for descending ones.
        """
        if latitude is None or len(latitude) < 2 or latitude[0] > latitude[-1]:
            return self
        return Edges(self.south, self.north, self.longitude)

    def to_dict(self) -> dict[str, str]:
        """Plain dictionary, for JSON."""
        return asdict(self)


SPHERE = Edges()


def edges_of_grid(latitude: np.ndarray | None, longitude: np.ndarray | None, padding: str) -> Edges:
    """Find out which edges of a grid close.

    Parameters
    ----------
    latitude, longitude
        (rows,) and (columns,) in degrees. Where one is None, the grid is taken to close along it.
    padding
        Of the edges that do not close.
    """
    around = longitude is None or is_global_longitude(longitude)
    north, south = (True, True) if latitude is None else reaches_poles(latitude)
    return Edges(
        POLE if around and north else padding,
        POLE if around and south else padding,
        PERIODIC if around else padding,
    )


def choose_edges(
    boundary: str, padding: str, latitude: np.ndarray | None = None, longitude: np.ndarray | None = None
) -> Edges:
    """Choose what lies beyond the edges of a grid.

    Parameters
    ----------
    boundary
        ``"auto"``: edges close where the grid does, and the others are padded. ``"sphere"``: the same, of a grid that
        closes everywhere. A padding: at every edge, also where the grid closes.
    padding
        Of open edges with ``"auto"``.
    latitude, longitude
        See `edges_of_grid`.

    Raises
    ------
    ModelError
        When the boundary is ``"sphere"`` and the grid does not close everywhere.
    """
    if boundary in PADDINGS:
        return Edges.uniform(boundary)
    edges = edges_of_grid(latitude, longitude, padding)
    if boundary == "sphere" and not edges.is_sphere:
        raise ModelError(
            f"The boundary is 'sphere', and the grid does not cover the globe: {_span(latitude, longitude)}.",
            where="model.boundary",
            remedy=f"Set model.boundary to auto, which makes it: {edges.geographic(latitude).describe()}.",
        )
    return edges


def boundary_text(boundary: str, edges: Edges, latitude: np.ndarray, longitude: np.ndarray) -> str:
    """Say what was asked for and what lies beyond each edge of a grid, and which edges that would close do not.

    Parameters
    ----------
    boundary
        As of `choose_edges`.
    edges
        What it chose.
    latitude, longitude
        See `edges_of_grid`.
    """
    closing = edges_of_grid(latitude, longitude, "zeros").geographic(latitude)
    edges = edges.geographic(latitude)
    text = edges.describe() if boundary == "sphere" else f"{boundary}: {edges.describe()}"
    cut = [
        name
        for name, kind, natural in (
            ("across the north pole", edges.north, closing.north),
            ("across the south pole", edges.south, closing.south),
            ("round the circle", edges.longitude, closing.longitude),
        )
        if natural in (POLE, PERIODIC) and kind != natural
    ]
    return f"{text}, though the grid goes on {' and '.join(cut)}" if cut else text


def edges_from(values: Edges | Mapping[str, Any] | None) -> Edges | None:
    """Build edges from what `Edges.to_dict` gave."""
    return Edges(**values) if isinstance(values, Mapping) else values


def _span(latitude: np.ndarray | None, longitude: np.ndarray | None) -> str:
    faults = []
    if longitude is not None and not is_global_longitude(longitude):
        faults.append(
            f"{len(longitude)} longitudes from {longitude[0]:g} to {longitude[-1]:g} degrees do not go round the circle"
        )
    if latitude is not None and not all(reaches_poles(latitude)):
        faults.append(
            f"{len(latitude)} latitudes from {latitude[0]:g} to {latitude[-1]:g} degrees do not reach both poles"
        )
    return "; ".join(faults)
