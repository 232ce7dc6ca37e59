"""The field of the ESMPy interface: values on a grid, mesh or point list."""

from __future__ import annotations

import numpy as np

from weathermill.esmf.constants import MeshLoc, StaggerLoc, TypeKind
from weathermill.esmf.grid import Grid
from weathermill.esmf.locstream import LocStream
from weathermill.esmf.mesh import Mesh

_KINDS = {TypeKind.I4: np.int32, TypeKind.I8: np.int64, TypeKind.R4: np.float32, TypeKind.R8: np.float64}


class Field:
    """Values on a grid, mesh or point list.

    Parameters
    ----------
    grid : Grid, Mesh or LocStream
        Where the values are.
    name : str, optional
        A name.
    typekind : TypeKind, optional
        Kind of numbers; 8-byte reals by default.
    staggerloc : StaggerLoc, optional
        Where on the cells of a grid; at the centres by default.
    meshloc : MeshLoc, optional
        Where on a mesh; at the nodes by default.
    ndbounds : sequence of int, optional
        Extra dimensions, which come last.
    """

    def __init__(self, grid, name=None, typekind=None, staggerloc=None, meshloc=None, ndbounds=None):
        self.grid = grid
        self.name = name
        self.type = TypeKind.R8 if typekind is None else typekind
        self.staggerloc = StaggerLoc.CENTER if staggerloc is None else StaggerLoc(staggerloc)
        self.meshloc = MeshLoc.NODE if meshloc is None else MeshLoc(meshloc)
        if isinstance(grid, Grid):
            self.spatial_shape = tuple(int(n) for n in grid.size[self.staggerloc])
        elif isinstance(grid, LocStream):
            self.spatial_shape = (grid.size,)
        elif isinstance(grid, Mesh):
            self.spatial_shape = (int(grid.size[self.meshloc]),)
        else:
            raise TypeError(f"a Field needs a Grid, Mesh or LocStream, not {type(grid).__name__}")
        extra = () if ndbounds is None else tuple(int(n) for n in np.atleast_1d(ndbounds))
        self.ndbounds = extra or None
        self.data = np.zeros(self.spatial_shape + extra, dtype=_KINDS[self.type], order="F")
        self.finalized = False

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return self.data.ndim

    @property
    def lower_bounds(self):
        """Zeros."""
        return np.zeros(self.rank, dtype=np.int32)

    @property
    def upper_bounds(self):
        """The shape."""
        return np.array(self.data.shape, dtype=np.int32)

    def get_area(self):
        """Set the values to the areas of the cells, in steradians, for great-circle sides.

        Raises
        ------
        ValueError
            If the cells have no corners.
        """
        from weathermill.esmf.geometry import cells_of
        from weathermill.esmf.polygons import tidy_polygons

        _, _, areas, _ = tidy_polygons(*cells_of(self))
        areas = areas.reshape(self.spatial_shape, order="F")
        self.data[...] = areas.reshape(areas.shape + (1,) * len(self.ndbounds or ()))

    def destroy(self):
        """Let go of the array; those who hold it keep it."""
        self.finalized = True

    def __repr__(self):
        return f"Field(name={self.name!r}, shape={self.data.shape}, grid={self.grid!r})"
