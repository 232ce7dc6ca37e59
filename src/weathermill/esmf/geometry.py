"""What the weight generators need of a grid, mesh or point list, as plain arrays."""

from __future__ import annotations

import numpy as np

from weathermill.esmf.constants import CoordSys, MeshLoc, StaggerLoc
from weathermill.esmf.grid import Grid
from weathermill.esmf.locstream import LocStream
from weathermill.esmf.mesh import Mesh
from weathermill.esmf.meshing import NodeMesh, grid_quads, point_mesh
from weathermill.esmf.sphere import unit_vectors


def _degrees(place) -> bool:
    return place.coord_sys == CoordSys.SPH_DEG


def size_of(field) -> int:
    """Number of values of a field on its grid, mesh or point list, extra dimensions left out."""
    return int(np.prod(field.spatial_shape))


def points_of(field) -> np.ndarray:
    """Where a field's values are: unit vectors, float64, shape ``(size, 3)``, longitude fastest."""
    place = field.grid
    if isinstance(place, Grid):
        lon, lat = place.coords[field.staggerloc]
        return unit_vectors(lon.T, lat.T, degrees=_degrees(place))
    if isinstance(place, LocStream):
        return unit_vectors(*place.coordinates(), degrees=_degrees(place))
    lon, lat = place.coords[field.meshloc]
    if lon is None:
        raise ValueError("the mesh's elements have no coordinates; give element_coords to add_elements")
    return unit_vectors(lon, lat, degrees=_degrees(place))


def lonlat_of(field) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of a field's values, in degrees, longitude fastest."""
    place = field.grid
    if isinstance(place, Grid):
        lon, lat = (np.ravel(values.T) for values in place.coords[field.staggerloc])
    elif isinstance(place, LocStream):
        lon, lat = place.coordinates()
    else:
        lon, lat = place.coords[field.meshloc]
        if lon is None:
            lon = lat = np.full(size_of(field), np.nan)
    lon, lat = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    return (lon, lat) if _degrees(place) else (np.degrees(lon), np.degrees(lat))


def mask_of(field, values) -> np.ndarray | None:
    """Which values of a field are masked.

    Parameters
    ----------
    field : weathermill.esmf.field.Field
        The field.
    values : array_like of int or None
        Mask values that mean masked.

    Returns
    -------
    numpy.ndarray or None
        bool, shape ``(size,)``, longitude fastest; None if nothing can be masked.
    """
    if values is None:
        return None
    place = field.grid
    if isinstance(place, Grid):
        mask = place.mask[field.staggerloc]
        mask = None if mask is None else np.ravel(mask.T)
    elif isinstance(place, LocStream):
        mask = place.get("ESMF:Mask")
    else:
        mask = place.mask[field.meshloc]
    if mask is None:
        return None
    masked = np.isin(mask, np.atleast_1d(values))
    return masked if masked.any() else None


def node_mesh_of(field, *, poles: bool) -> NodeMesh:
    """The elements between a source field's points, for bilinear and patch weights.

    Raises
    ------
    ValueError
        If the points are not connected (a LocStream, the elements of a mesh).
    """
    place = field.grid
    if isinstance(place, Grid):
        nx, ny = place.coords[field.staggerloc][0].shape
        points = points_of(field)
        return point_mesh(points, (ny, nx), periodic=place.num_peri_dims == 1, poles=poles)
    if isinstance(place, Mesh) and field.meshloc == MeshLoc.NODE:
        if place.elements.shape[1] > 4:
            raise ValueError("bilinear weights from a mesh need triangles and quadrilaterals only")
        elements = np.full((len(place.elements), 4), -1, dtype=np.int64)
        elements[:, : place.elements.shape[1]] = place.elements
        return NodeMesh(points_of(field), elements, [])
    raise ValueError(
        "bilinear and patch weights need a source whose points are connected: a Grid, or the nodes of a Mesh; "
        "from a LocStream or the elements of a Mesh use a nearest method"
    )


def cells_of(field) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a field's cells.

    Returns
    -------
    nodes : numpy.ndarray
        float64, shape ``(n_nodes, 3)``.
    elements : numpy.ndarray
        int64, shape ``(size, n_corners)``.

    Raises
    ------
    ValueError
        If the cells have no corners.
    """
    place = field.grid
    if isinstance(place, Grid):
        if not place.has_corners or field.staggerloc != StaggerLoc.CENTER:
            raise ValueError(
                "conservative weights and areas need the corners of the grid's cells: "
                "add_coords(staggerloc=StaggerLoc.CORNER), or, in xESMF, bounds (lon_b and lat_b)"
            )
        lon, lat = place.coords[StaggerLoc.CORNER]
        nx, ny = lon.shape
        nodes = unit_vectors(lon.T, lat.T, degrees=_degrees(place))
        return nodes, grid_quads(nx, ny, periodic=place.num_peri_dims == 1)
    if isinstance(place, Mesh) and field.meshloc == MeshLoc.ELEMENT:
        return unit_vectors(*place.coords[MeshLoc.NODE], degrees=_degrees(place)), place.elements
    raise ValueError("conservative weights need cells: a Grid with corners, or the elements of a Mesh")
