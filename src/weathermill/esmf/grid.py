"""The structured grid of the ESMPy interface."""

from __future__ import annotations

import numpy as np

from weathermill.esmf.constants import CoordSys, GridItem, PoleKind, StaggerLoc, TypeKind

_STAGGERS = 4


class Grid:
    """A logically rectangular 2-D grid on the sphere, rectilinear or curvilinear.

    Parameters
    ----------
    max_index : array_like of int
        Number of cells along each dimension, longitude first.
    num_peri_dims : int, optional
        1 for a grid whose first dimension closes on itself.
    periodic_dim, pole_dim : int, optional
        The periodic dimension, which can only be the first one, and the one that runs to the poles.
    coord_sys : CoordSys, optional
        Degrees (the default) or radians.
    coord_typekind : TypeKind, optional
        Only 8-byte reals.
    staggerloc : StaggerLoc or list of StaggerLoc, optional
        Where to make room for coordinates at once.
    pole_kind : array_like of PoleKind, optional
        What lies beyond either end of the pole dimension: by default, a pole of a periodic grid.

    Raises
    ------
    ValueError
        If the grid is one that this provider can't make: reading from files, three dimensions, Cartesian.
    """

    def __init__(
        self,
        max_index=None,
        num_peri_dims=0,
        periodic_dim=None,
        pole_dim=None,
        coord_sys=None,
        coord_typekind=None,
        staggerloc=None,
        pole_kind=None,
        filename=None,
        **others,
    ):
        if filename is not None or others:
            raise ValueError(
                "weathermill.esmf makes grids from arrays only, not from files or tiles "
                f"(got {['filename'] if filename is not None else sorted(others)}); read the coordinates with "
                "xarray, or install ESMPy from conda-forge"
            )
        if max_index is None:
            raise ValueError("max_index, the number of cells along each dimension, is needed")
        self.max_index = np.asarray(max_index, dtype=np.int32)
        if self.max_index.shape != (2,) or (self.max_index < 1).any():
            raise ValueError(
                f"max_index must be two positive numbers, not {max_index}: this provider has 2-D grids only"
            )
        self.coord_sys = CoordSys.SPH_DEG if coord_sys is None else coord_sys
        if self.coord_sys not in (CoordSys.SPH_DEG, CoordSys.SPH_RAD):
            raise ValueError("only spherical coordinates (CoordSys.SPH_DEG or SPH_RAD) are supported")
        if coord_typekind not in (None, TypeKind.R8):
            raise ValueError("only coordinates of TypeKind.R8 are supported")
        self.num_peri_dims = int(num_peri_dims or 0)
        self.periodic_dim = None
        self.pole_dim = None
        if self.num_peri_dims:
            if self.num_peri_dims != 1 or periodic_dim not in (None, 0) or pole_dim not in (None, 1):
                raise ValueError("only the first dimension can be periodic, and only the second reach poles")
            self.periodic_dim, self.pole_dim = 0, 1
        self.pole_kind = (
            np.full(2, PoleKind.MONOPOLE if self.num_peri_dims else PoleKind.NONE, dtype=np.int32)
            if pole_kind is None
            else np.asarray(pole_kind, dtype=np.int32)
        )
        self.type = TypeKind.R8
        self.rank = self.ndims = 2
        self.finalized = False
        self.staggerloc = [False] * _STAGGERS
        self.coords = [[None, None] for _ in range(_STAGGERS)]
        self.mask = [None] * _STAGGERS
        self.area = [None] * _STAGGERS
        self.size = [None] * _STAGGERS
        self.lower_bounds = [None] * _STAGGERS
        self.upper_bounds = [None] * _STAGGERS
        for place in np.atleast_1d([] if staggerloc is None else staggerloc):
            self.add_coords(staggerloc=StaggerLoc(place))

    @property
    def has_corners(self) -> bool:
        """Whether coordinates of corners are there."""
        return self.staggerloc[StaggerLoc.CORNER]

    @property
    def areatype(self):
        """Kind of numbers of areas."""
        return TypeKind.R8

    def _shape(self, staggerloc) -> tuple[int, int]:
        extra = {
            StaggerLoc.CENTER: (0, 0),
            StaggerLoc.EDGE1: (1, 0),
            StaggerLoc.EDGE2: (0, 1),
            StaggerLoc.CORNER: (1, 1),
        }[StaggerLoc(staggerloc)]
        nx = int(self.max_index[0]) + (0 if self.num_peri_dims else extra[0])
        return nx, int(self.max_index[1]) + extra[1]

    def add_coords(self, staggerloc=None, coord_dim=None, from_file=False):
        """Make room for coordinates.

        Parameters
        ----------
        staggerloc : StaggerLoc, optional
            Where; at the centres by default.
        coord_dim : int, optional
            Return the array of this dimension.
        from_file : bool, optional
            Not supported.

        Returns
        -------
        numpy.ndarray or None
        """
        place = StaggerLoc.CENTER if staggerloc is None else StaggerLoc(staggerloc)
        if from_file:
            raise ValueError("coordinates from files are not supported; assign them to get_coords(...)[...]")
        if not self.staggerloc[place]:
            shape = self._shape(place)
            self.staggerloc[place] = True
            self.coords[place] = [np.zeros(shape, order="F") for _ in range(2)]
            self.size[place] = np.array(shape, dtype=np.int32)
            self.lower_bounds[place] = np.zeros(2, dtype=np.int32)
            self.upper_bounds[place] = np.array(shape, dtype=np.int32)
        return None if coord_dim is None else self.coords[place][coord_dim]

    def get_coords(self, coord_dim, staggerloc=None):
        """Return the array of coordinates, to be read or assigned to.

        Parameters
        ----------
        coord_dim : int
            0 for longitude, 1 for latitude.
        staggerloc : StaggerLoc, optional
            Where; at the centres by default.

        Returns
        -------
        numpy.ndarray
            float64, shape (nx, ny), Fortran order.

        Raises
        ------
        ValueError
            If there are no coordinates at that place.
        """
        place = StaggerLoc.CENTER if staggerloc is None else StaggerLoc(staggerloc)
        if not self.staggerloc[place]:
            raise ValueError(f"the grid has no coordinates at {place.name}; call add_coords first")
        return self.coords[place][coord_dim]

    def add_item(self, item, staggerloc=None, from_file=False):
        """Make room for a mask or for areas, and return the array.

        Parameters
        ----------
        item : GridItem
            Mask or area.
        staggerloc : StaggerLoc, optional
            Where; at the centres by default.
        from_file : bool, optional
            Not supported.

        Returns
        -------
        numpy.ndarray
            int32 for a mask, float64 for areas; shape (nx, ny), Fortran order.
        """
        place = StaggerLoc.CENTER if staggerloc is None else StaggerLoc(staggerloc)
        if from_file:
            raise ValueError("items from files are not supported; assign to the array that is returned")
        store, kind = (self.mask, np.int32) if item == GridItem.MASK else (self.area, np.float64)
        if store[place] is None:
            store[place] = np.zeros(self._shape(place), dtype=kind, order="F")
        return store[place]

    def get_item(self, item, staggerloc=None):
        """Return the array of an item that `add_item` made."""
        place = StaggerLoc.CENTER if staggerloc is None else StaggerLoc(staggerloc)
        values = (self.mask if item == GridItem.MASK else self.area)[place]
        if values is None:
            raise ValueError(f"the grid has no {GridItem(item).name.lower()} at {place.name}")
        return values

    def destroy(self):
        """Let go of the arrays."""
        self.finalized = True

    def __repr__(self):
        return f"Grid(shape={tuple(map(int, self.max_index))}, periodic={bool(self.num_peri_dims)})"
