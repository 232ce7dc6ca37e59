"""What lies beyond the edges of a latitude-longitude grid, at every level of a pooling network.

A field on the sphere goes on past its first and last longitude (it is periodic) and past its first and last
latitude (over the pole, on the meridian 180 degrees away). A network that pools by two needs grids that
divide by its stride, so the grid is first padded to a multiple with what lies beyond its edges; every
convolution then takes one more cell around, its *halo*, out of the interior of its own input.

On the padded grid the pole and the date line no longer lie at the edge, and on coarse levels they may lie
between two cells; the halo is then the nearest cell. Where the number of longitudes divides by the stride the
halo in longitude is exact at every level, and the network commutes with rolling the input by multiples of the
stride.

Where a grid does not close, nothing is known of what lies beyond its edge. Such an edge is *open*: margin and halo are
made of the cells at the edge by replication or reflection, or are zeros. Every edge has its own kind, see
`weathermill.models.boundary`: a hemisphere closes at its pole and around, and is open at the equator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weathermill.errors import ModelError
from weathermill.models.boundary import PERIODIC, POLE, SPHERE, Edges

POLE_TOLERANCE_DEGREES = 1e-3


@dataclass(frozen=True)
class Halo:
    """Where the cells around one level's grid come from; indices into its interior.

    Parameters
    ----------
    shape
        (rows, columns) of the interior.
    north, south
        Row that stands beyond the first and beyond the last one.
    west, east
        Column that stands before the first and after the last one.
    north_shift, south_shift
        Columns by which these rows are shifted: half a circle across a pole, else none.
    period
        Columns in a whole circle; less than the number of columns where the grid was padded in longitude.
    zero_north, zero_south, zero_columns
        Whether zeros stand beyond that edge instead; the columns are those on both sides.
    """

    shape: tuple[int, int]
    north: int
    south: int
    west: int
    east: int
    north_shift: int
    south_shift: int
    period: int
    zero_north: bool = False
    zero_south: bool = False
    zero_columns: bool = False

    @property
    def is_ring(self) -> bool:
        """Whether all columns make exactly one circle, or there is no circle."""
        return self.period == self.shape[1]

    @property
    def zeros(self) -> bool:
        """Whether zeros stand beyond every edge."""
        return self.zero_north and self.zero_south and self.zero_columns

    def pad(self, x: Tensor) -> Tensor:
        """Surround x (batch, channel, rows, columns) with one cell on each side."""
        if self.zeros:
            return torch.nn.functional.pad(x, (1, 1, 1, 1))
        north = self._across(x[..., self.north : self.north + 1, :], self.north_shift, self.zero_north)
        south = self._across(x[..., self.south : self.south + 1, :], self.south_shift, self.zero_south)
        rows = torch.cat([north, x, south], dim=-2)
        if self.zero_columns:
            return torch.nn.functional.pad(rows, (1, 1))
        west = rows[..., self.west : self.west + 1]
        east = rows[..., self.east : self.east + 1]
        return torch.cat([west, rows, east], dim=-1)

    def _across(self, row: Tensor, shift: int, zero: bool) -> Tensor:
        if zero:
            return torch.zeros_like(row)
        if not shift:
            return row
        wrap = self.shape[1] - self.period
        return torch.cat([row[..., shift:], row[..., wrap : wrap + shift]], dim=-1)


def _nearest(value: float) -> int:
    """Round to the nearest integer, halves down, forgiving round-off."""
    return math.ceil(value - 0.5 - 1e-9)


def _beyond_first(edge: str, count: int) -> int:
    """Row or column that stands beyond an open first one, of `count`."""
    return min(1, count - 1) if edge == "reflect" else 0


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
    edges
        What lies beyond the edges.

    Raises
    ------
    ModelError
        When the grid is too small to be padded to the stride.
    """

    shape: tuple[int, int]
    depth: int
    pole_points: tuple[bool, bool] = (False, False)
    edges: Edges = SPHERE

    def __post_init__(self) -> None:
        rows, columns = self.shape
        if self._too_few_rows(rows) or self._too_few_columns(columns):
            fewest = (
                next(n for n in range(4, self.stride + 4) if not too_few(n))
                for too_few in (self._too_few_rows, self._too_few_columns)
            )
            raise ModelError(
                f"A grid of {rows} by {columns} cells is too small for {self.depth} pooling levels; "
                f"it takes at least {' by '.join(map(str, fewest))}.",
                remedy="Lower model.depth, take a larger region, or regrid to a finer grid.",
            )

    def _too_few_rows(self, rows: int) -> bool:
        added = -rows % self.stride
        return rows < 4 or rows <= added - added // 2 + 1

    def _too_few_columns(self, columns: int) -> bool:
        # Reflection needs one column more than it adds, as the last one is not repeated.
        return columns < max(4, -columns % self.stride + (self.edges.longitude == "reflect"))

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

    @property
    def mirrors(self) -> tuple[int, int]:
        """First row that stands beyond the north edge, and one past the first that stands beyond the south edge.

        Rows follow in reverse. A row on the pole, or about which is reflected, is not repeated.
        """
        skipped = [
            int(edge == "reflect" or (edge == POLE and on_pole))
            for edge, on_pole in zip((self.edges.north, self.edges.south), self.pole_points, strict=True)
        ]
        return skipped[0], self.shape[0] - skipped[1]

    def halo(self, level: int) -> Halo:
        """Halo of the grid that was pooled `level` times.

        Open edges are padded from the level's own outermost cells.
        """
        factor = 2**level
        rows, columns = (n // factor for n in self.padded_shape)
        edges = self.edges
        north_margin = self.margins[0]
        shift = _nearest(self.shape[1] / factor / 2)
        north = _beyond_first(edges.north, rows)
        south = rows - 1 - _beyond_first(edges.south, rows)
        if edges.north == POLE:
            first_pole = north_margin - (0.0 if self.pole_points[0] else 0.5)
            north = min(max(_nearest((2 * first_pole + 1) / factor), 0), rows - 1)
        if edges.south == POLE:
            last_pole = north_margin + self.shape[0] - (1.0 if self.pole_points[1] else 0.5)
            south = min(max(_nearest((2 * last_pole + 1) / factor - rows - 1), 0), rows - 1)
        period, west = columns, _beyond_first(edges.longitude, columns)
        east = columns - 1 - west
        if edges.longitude == PERIODIC:
            period = min(max(_nearest(self.shape[1] / factor), 1), columns)
            west, east = period - 1, columns - period
        return Halo(
            shape=(rows, columns),
            north=north,
            south=south,
            west=west,
            east=east,
            north_shift=shift if edges.north == POLE else 0,
            south_shift=shift if edges.south == POLE else 0,
            period=period,
            zero_north=edges.north == "zeros",
            zero_south=edges.south == "zeros",
            zero_columns=edges.longitude == "zeros",
        )

    def pad(self, x: Tensor) -> Tensor:
        """Extend x (batch, channel, *shape) to (batch, channel, *padded_shape).

        An odd number of longitudes has no meridian 180 degrees away: the one half a cell short of it stands
        in.
        """
        north, south, east = self.margins
        if not (north or south or east):
            return x
        if self.edges.is_zeros:
            return torch.nn.functional.pad(x, (0, east, north, south))
        if north or south:
            first, last = self.mirrors
            above = self._rows(x, self.edges.north, slice(0, 1), slice(first, first + north))
            below = self._rows(x, self.edges.south, slice(-1, None), slice(last - south, last))
            x = torch.cat([part for part in (above, x, below) if part.shape[-2]], dim=-2)
        return torch.cat([x, self._columns(x, east)], dim=-1) if east else x

    def _rows(self, x: Tensor, edge: str, outermost: slice, mirrored: slice) -> Tensor:
        """Rows that stand beyond the north or the south edge."""
        count = mirrored.stop - mirrored.start
        if edge == "zeros":
            return x.new_zeros((*x.shape[:-2], count, x.shape[-1]))
        if edge == "replicate":
            return x[..., outermost, :].expand(*x.shape[:-2], count, x.shape[-1])
        rows = x[..., mirrored, :].flip(-2)
        return _rolled(rows, self.half_circle) if edge == POLE else rows

    def _columns(self, x: Tensor, east: int) -> Tensor:
        """Columns that stand beyond the east edge."""
        edge = self.edges.longitude
        if edge == "zeros":
            return x.new_zeros((*x.shape[:-1], east))
        if edge == "replicate":
            return x[..., -1:].expand(*x.shape[:-1], east)
        return x[..., -1 - east : -1].flip(-1) if edge == "reflect" else x[..., :east]

    def fold(self, gradient: Tensor, padded: Tensor) -> None:
        """Add the gradient of the margins of a padded field to that of the field: the transpose of `pad`.

        Parameters
        ----------
        gradient
            (batch, channel, *shape), that of the cells inside, as `crop` gives them; added to in place.
        padded
            (batch, channel, *padded_shape), that of the padded field.

        Raises
        ------
        NotImplementedError
            Where the grid is periodic and padded in longitude: there autograd differentiates `pad`.
        """
        north, south, east = self.margins
        (rows, columns), edges = self.shape, self.edges
        if edges.is_zeros:
            return
        inside = padded[..., :columns]
        if east and edges.longitude == PERIODIC:
            raise NotImplementedError("a periodic grid that is padded in longitude")
        if east and edges.longitude != "zeros":
            inside, beyond = inside.to(gradient.dtype, copy=True), padded[..., columns:].to(gradient.dtype)
            if edges.longitude == "replicate":
                inside[..., -1] += beyond.sum(-1)
            else:
                inside[..., -1 - east : -1] += beyond.flip(-1)
            gradient.copy_(self.crop(inside))
        first, last = self.mirrors
        above, below = inside[..., :north, :], inside[..., north + rows :, :]
        if north:
            self._fold_rows(gradient, edges.north, above, 0, slice(first, first + north))
        if south:
            self._fold_rows(gradient, edges.south, below, -1, slice(last - south, last))

    def _fold_rows(
        self, gradient: Tensor, edge: str, beyond: Tensor, outermost: int, mirrored: slice
    ) -> None:
        if edge == "replicate":
            gradient[..., outermost, :] += beyond.to(gradient.dtype).sum(-2)
        elif edge == "reflect":
            gradient[..., mirrored, :] += beyond.flip(-2)
        elif edge == POLE:
            gradient[..., mirrored, :] += beyond.flip(-2).roll(self.half_circle, -1)

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
