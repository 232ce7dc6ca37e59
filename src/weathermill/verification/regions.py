"""Verification regions: latitude bands and longitude-latitude boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weathermill.errors import EmptySelectionError, ParameterError
from weathermill.extent import is_global_longitude, is_globe, reaches_poles


@dataclass(frozen=True)
class Region:
    """A box on the sphere; a cell belongs to it when its centre does, boundaries included.

    Parameters
    ----------
    name
        How scores name it.
    south, north
        Latitudes in degrees, south <= north.
    west, east
        Longitudes in degrees, any wrap. A box runs eastwards from ``west`` to ``east`` and may cross the zero
        meridian or the date line. A span of 360 degrees or more is the whole circle.
    """

    name: str
    south: float = -90.0
    north: float = 90.0
    west: float = 0.0
    east: float = 360.0

    def __post_init__(self) -> None:
        if not self.south <= self.north:
            raise ParameterError(
                f"region {self.name!r}: south ({self.south}) lies north of north ({self.north})"
            )

    def contains(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        """Return a boolean array (latitude, longitude) of the cells whose centres lie in the region.

        Parameters
        ----------
        latitude, longitude
            Degrees; one-dimensional, or both two-dimensional of the same shape.
        """
        latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
        if latitude.ndim == 1:
            latitude, longitude = np.meshgrid(latitude, longitude, indexing="ij")
        # Coordinates are often float32: a millionth of a degree keeps 20.000001 inside the tropics.
        tolerance = 1e-6
        inside = (latitude >= self.south - tolerance) & (latitude <= self.north + tolerance)
        if self.east - self.west < 360.0:
            offset = np.mod(longitude - self.west + tolerance, 360.0)
            inside &= offset <= np.mod(self.east - self.west, 360.0) + 2 * tolerance
        return inside


GLOBAL = Region("global")
#: All cells of a grid that does not cover the globe.
DOMAIN = Region("domain")
#: WeatherBench 2 and WMO split the globe at 20 degrees.
DEFAULT_REGIONS = (
    GLOBAL,
    Region("tropics", -20.0, 20.0),
    Region("extratropics_north", 20.0, 90.0),
    Region("extratropics_south", -90.0, -20.0),
)


def standard_regions(latitude: np.ndarray, longitude: np.ndarray) -> list[Region]:
    """Return the regions that are scored on a grid: all of it first, then latitude bands.

    A grid of the globe has `DEFAULT_REGIONS`, as far as they hold a cell. Any other has the whole domain, which is not
    called global, and those bands that it covers whole: the tropics of a map of Europe are not the tropics.

    Parameters
    ----------
    latitude, longitude
        Degrees; one-dimensional, or both two-dimensional.
    """
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    if latitude.ndim != 1:
        return [DOMAIN]
    if is_globe(latitude, longitude):
        return [region for region in DEFAULT_REGIONS if region.contains(latitude, longitude).any()]
    bands = DEFAULT_REGIONS[1:] if is_global_longitude(longitude) else ()
    south, north = _extent(latitude)
    return [
        DOMAIN,
        *(
            band
            for band in bands
            if south <= band.south and band.north <= north and band.contains(latitude, longitude).any()
        ),
    ]


def _extent(latitude: np.ndarray) -> tuple[float, float]:
    """Southern and northern edge of the cells of rows; the pole where these reach it."""
    if latitude.size < 2:
        return float(latitude[0]), float(latitude[0])
    steps = np.abs(np.diff(latitude))[[0, -1]] / 2
    edges = [
        np.copysign(90.0, row) if pole else row + np.copysign(step, row - latitude.mean())
        for row, pole, step in zip(latitude[[0, -1]], reaches_poles(latitude), steps, strict=True)
    ]
    return float(min(edges)), float(max(edges))


def whole_region(names: Iterable[str]) -> str:
    """Return which of the names of regions is that of all cells: ``global``, else ``domain``, else the first one."""
    names = [str(name) for name in names]
    return next((region.name for region in (GLOBAL, DOMAIN) if region.name in names), names[0])


def region_masks(regions: Sequence[Region], latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return the boolean masks (region, latitude, longitude) of some regions on a grid.

    Raises
    ------
    EmptySelectionError
        If a region holds no cell centre of the grid.
    """
    masks = np.stack([region.contains(latitude, longitude) for region in regions])
    for region, mask in zip(regions, masks, strict=True):
        if not mask.any():
            raise EmptySelectionError(
                f"region {region.name!r} ({region.south} to {region.north} N, {region.west} to {region.east}"
                " E) holds no cell of the grid",
                remedy="Leave the region out or widen it.",
            )
    return masks
