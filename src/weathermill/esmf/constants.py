"""Enumerations of the ESMPy interface, with the values that ESMPy 8 gives them."""

from __future__ import annotations

from enum import IntEnum


class StaggerLoc(IntEnum):
    """Where on a cell of a 2-D grid a value lives."""

    CENTER = 0
    EDGE1 = 1
    EDGE2 = 2
    CORNER = 3


class MeshLoc(IntEnum):
    """Where on a mesh a value lives."""

    NODE = 0
    ELEMENT = 1


class CoordSys(IntEnum):
    """Coordinate systems."""

    CART = 0
    SPH_DEG = 1
    SPH_RAD = 2


class GridItem(IntEnum):
    """Items, besides coordinates, that a grid can carry."""

    MASK = 0
    AREA = 1


class TypeKind(IntEnum):
    """Kinds of numbers."""

    I4 = 3
    I8 = 4
    R4 = 5
    R8 = 6


class RegridMethod(IntEnum):
    """Ways to make weights."""

    BILINEAR = 0
    PATCH = 1
    CONSERVE = 2
    NEAREST_STOD = 3
    NEAREST_DTOS = 4
    CONSERVE_2ND = 5


class ExtrapMethod(IntEnum):
    """Ways to fill the destination points that a method leaves unmapped."""

    NONE = 0
    NEAREST_STOD = 1
    NEAREST_IDAVG = 2
    NEAREST_D = 3
    CREEP = 4
    CREEP_NRST_D = 5


class UnmappedAction(IntEnum):
    """What to do with unmapped destination points."""

    ERROR = 0
    IGNORE = 1


class NormType(IntEnum):
    """Normalisation of conservative weights."""

    DSTAREA = 0
    FRACAREA = 1


class PoleMethod(IntEnum):
    """How the gap between the last row and the pole is closed."""

    NONE = 0
    ALLAVG = 1
    NPNTAVG = 2
    TEETH = 3


class PoleKind(IntEnum):
    """What lies at an end of the pole dimension."""

    NONE = 0
    MONOPOLE = 1
    BIPOLE = 2


class LineType(IntEnum):
    """The shortest way between two points."""

    CART = 0
    GREAT_CIRCLE = 1


class Region(IntEnum):
    """Which part of a destination field is set to zero before weights are applied."""

    TOTAL = 0
    SELECT = 1
    EMPTY = 2


class FileMode(IntEnum):
    """How much a weight file holds."""

    BASIC = 0
    WITHAUX = 1


class FileFormat(IntEnum):
    """Formats of grid files."""

    UNKNOWN = 0
    VTK = 1
    SCRIP = 2
    ESMFMESH = 3
    ESMFGRID = 4
    UGRID = 5
    GRIDSPEC = 6
    MOSAIC = 7
    TILE = 8


class LogKind(IntEnum):
    """Kinds of log."""

    SINGLE = 1
    MULTI = 2
    NONE = 3


class MeshElemType(IntEnum):
    """Types of mesh elements: the number of corners, for any polygon."""

    TRI = 3
    QUAD = 4
