"""What lies beyond the edges of a latitude-longitude grid, at every level of a pooling network.

A field on the sphere goes on past its first and last longitude (it is periodic) and past its first and last
latitude (over the pole, on the meridian 180 degrees away). A network that pools by two needs grids that
divide by its stride, so the grid is first padded to a multiple with what lies beyond its edges; every
convolution then takes one more cell around, its *halo*, out of the interior of its own input.

On the padded grid the pole and the date line no longer lie at the edge, and on coarse levels they may lie
between two cells; the halo is then the nearest cell. Where the number of longitudes divides by the stride the
halo in longitude is exact at every level, and the network commutes with rolling the input by multiples of the
stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weathermill.errors import ModelError

POLE_TOLERANCE_DEGREES = 1e-3


@dataclass(frozen=True)
class Halo:
    """Where the cells around one level's grid come from; indices into its interior.

    Parameters
    ----------
    shape
        (rows, columns) of the interior.
    north, south
        Row beyond the first and beyond the last one (taken half a circle away).
    west, east
        Column before the first and after the last one.
    shift
        Columns in half a circle.
    period
        Columns in a whole circle; less than the number of columns where the grid was padded in longitude.
    zeros
        Zeros instead of the sphere.
    """

    shape: tuple[int, int]
    north: int
    south: int
    west: int
    east: int
    shift: int
    period: int
    zeros: bool = False

    @property
    def is_ring(self) -> bool:
        """Whether all columns make exactly one circle."""
        return self.period == self.shape[1]

    def pad(self, x: Tensor) -> Tensor:
        """Surround x (batch, channel, rows, columns) with one cell on each side."""
        if self.zeros:
            return torch.nn.functional.pad(x, (1, 1, 1, 1))
        north = self._across(x[..., self.north : self.north + 1, :])
        south = self._across(x[..., self.south : self.south + 1, :])
        rows = torch.cat([north, x, south], dim=-2)
        west = rows[..., self.west : self.west + 1]
        east = rows[..., self.east : self.east + 1]
        return torch.cat([west, rows, east], dim=-1)

    def _across(self, row: Tensor) -> Tensor:
        wrap = self.shape[1] - self.period
        return torch.cat([row[..., self.shift :], row[..., wrap : wrap + self.shift]], dim=-1)


def _nearest(value: float) -> int:
    """Round to the nearest integer, halves down, forgiving round-off."""
    return math.ceil(value - 0.5 - 1e-9)


@dataclass(frozen=True)
class SphereGrid:
    """The padded grid of a network that pools `depth` times, and the halo of each of its levels.

    Parameters
    ----------
    shape
        (latitudes, longitudes) of the fields.
    depth
        Number of times that the network pools by two.
    pole_points
        Whether the first and the last row are poles.
    zeros
        Pad with zeros instead of the sphere.

    Raises
    ------
    ModelError
        When the grid is too small to be padded to the stride.
    """

    shape: tuple[int, int]
    depth: int
    pole_points: tuple[bool, bool] = (False, False)
    zeros: bool = False

    def __post_init__(self) -> None:
        rows, columns = self.shape
        if min(rows, columns) < 4 or rows <= max(self.margins[:2]) + 1 or columns < self.margins[2]:
            raise ModelError(
                f"A grid of {rows} by {columns} cells is too small for {self.depth} pooling levels; "
                f"it takes at least {2**self.depth} of both.",
                remedy="Lower the model parameter depth.",
            )

    @property
    def stride(self) -> int:
        """Cells of the finest level in one cell of the coarsest, along each axis."""
        return 2**self.depth

    @property
    def margins(self) -> tuple[int, int, int]:
        """Cells added north, south and east of the fields."""
        rows, columns = (-n % self.stride for n in self.shape)
        return rows // 2, rows - rows // 2, columns

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(rows, columns) of the finest level."""
        north, south, east = self.margins
        return self.shape[0] + north + south, self.shape[1] + east

    @property
    def half_circle(self) -> int:
        """Longitudes in half a circle, rounded down where their number is odd."""
        return self.shape[1] // 2

    def halo(self, level: int) -> Halo:
        """Halo of the grid that was pooled `level` times."""
        factor = 2**level
        rows, columns = (n // factor for n in self.padded_shape)
        north_margin = self.margins[0]
        first_pole = north_margin - (0.0 if self.pole_points[0] else 0.5)
        last_pole = north_margin + self.shape[0] - (1.0 if self.pole_points[1] else 0.5)
        period = min(max(_nearest(self.shape[1] / factor), 1), columns)
        return Halo(
            shape=(rows, columns),
            north=min(max(_nearest((2 * first_pole + 1) / factor), 0), rows - 1),
            south=min(max(_nearest((2 * last_pole + 1) / factor - rows - 1), 0), rows - 1),
            west=period - 1,
            east=columns - period,
            shift=_nearest(self.shape[1] / factor / 2),
            period=period,
            zeros=self.zeros,
        )

    def pad(self, x: Tensor) -> Tensor:
        """Extend x (batch, channel, *shape) to (batch, channel, *padded_shape).

        An odd number of longitudes has no meridian 180 degrees away: the one half a cell short of it stands
        in.
        """
        north, south, east = self.margins
        if not (north or south or east):
            return x
        if self.zeros:
            return torch.nn.functional.pad(x, (0, east, north, south))
        if north or south:
            half = self.half_circle
            first = 1 if self.pole_points[0] else 0
            last = self.shape[0] - (1 if self.pole_points[1] else 0)
            above = x[..., first : first + north, :].flip(-2)
            below = x[..., last - south : last, :].flip(-2)
            parts = [_rolled(above, half), x, _rolled(below, half)]
            x = torch.cat([part for part in parts if part.shape[-2]], dim=-2)
        return torch.cat([x, x[..., :east]], dim=-1) if east else x

    def crop(self, x: Tensor) -> Tensor:
        """Undo `pad`: a view of x (batch, channel, *padded_shape) without the margins."""
        north = self.margins[0]
        return x[..., north : north + self.shape[0], : self.shape[1]]


def _rolled(rows: Tensor, shift: int) -> Tensor:
    return torch.cat([rows[..., shift:], rows[..., :shift]], dim=-1)


def pole_points(latitude: np.ndarray | None) -> tuple[bool, bool]:
    """Whether the first and the last of `latitude` (degrees) are poles; not, when it is None."""
    if latitude is None:
        return False, False
    ends = np.abs(np.asarray(latitude, dtype=np.float64)[[0, -1]])
    first, last = np.abs(ends - 90.0) < POLE_TOLERANCE_DEGREES
    return bool(first), bool(last)
