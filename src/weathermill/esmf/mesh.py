"""The unstructured mesh of the ESMPy interface."""

from __future__ import annotations

import numpy as np

from weathermill.esmf.constants import CoordSys, MeshLoc


class Mesh:
    """Polygons with great-circle sides that share corners.

    Parameters
    ----------
    parametric_dim, spatial_dim : int
        2 and 2: polygons on the sphere.
    coord_sys : CoordSys, optional
        Degrees (the default) or radians.
    """

    def __init__(self, parametric_dim=None, spatial_dim=None, coord_sys=None, filename=None, **others):
        if filename is not None or others:
            raise ValueError(
                "weathermill.esmf makes meshes from arrays only, not from files; install ESMPy from "
                "conda-forge to read mesh files"
            )
        if parametric_dim != 2 or spatial_dim != 2:
            raise ValueError("only meshes with parametric_dim=2 and spatial_dim=2 are supported")
        self.coord_sys = CoordSys.SPH_DEG if coord_sys is None else coord_sys
        if self.coord_sys not in (CoordSys.SPH_DEG, CoordSys.SPH_RAD):
            raise ValueError("only spherical coordinates (CoordSys.SPH_DEG or SPH_RAD) are supported")
        self.parametric_dim = parametric_dim
        self.spatial_dim = spatial_dim
        self.rank = self.ndims = 1
        self.size = [0, 0]
        self.coords = [[None, None], [None, None]]
        self.mask = [None, None]
        self.area = [None, None]
        self.elements = None
        self.finalized = False

    @property
    def node_count(self) -> int:
        """Number of nodes."""
        return self.size[MeshLoc.NODE]

    @property
    def element_count(self) -> int:
        """Number of elements."""
        return self.size[MeshLoc.ELEMENT]

    def add_nodes(self, node_count, node_ids, node_coords, node_owners=None, node_mask=None):
        """Add the corners.

        Parameters
        ----------
        node_count : int
            How many there are.
        node_ids : array_like of int
            Their numbers, from 1.
        node_coords : array_like of float
            Longitude and latitude of the first, of the second, and so on.
        node_owners : array_like, optional
            Ignored: there is one process.
        node_mask : array_like of int, optional
            Mask values.
        """
        coords = np.ravel(np.asarray(node_coords, dtype=np.float64))
        if len(coords) != 2 * node_count or len(node_ids) != node_count:
            raise ValueError(f"{node_count} nodes need as many ids and pairs of coordinates")
        coords = coords.reshape(-1, 2)
        order = np.argsort(node_ids, kind="stable")
        if not np.array_equal(np.asarray(node_ids)[order], np.arange(1, node_count + 1)):
            raise ValueError("node_ids must be the numbers from 1 to node_count")
        self.size[MeshLoc.NODE] = int(node_count)
        self.coords[MeshLoc.NODE] = [coords[order, 0].copy(), coords[order, 1].copy()]
        if node_mask is not None:
            self.mask[MeshLoc.NODE] = np.asarray(node_mask, dtype=np.int32)[order]

    def add_elements(
        self,
        element_count,
        element_ids,
        element_types,
        element_conn,
        element_mask=None,
        element_area=None,
        element_coords=None,
    ):
        """Add the polygons.

        Parameters
        ----------
        element_count : int
            How many there are.
        element_ids : array_like of int
            Their numbers, from 1.
        element_types : array_like of int
            The number of corners of each.
        element_conn : array_like of int
            The corners of the first, of the second, and so on: positions in the list of nodes, from 0.
        element_mask : array_like of int, optional
            Mask values.
        element_area : array_like of float, optional
            Areas given by the user.
        element_coords : array_like of float, optional
            Longitude and latitude of the middle of each.

        Raises
        ------
        ValueError
            If a polygon is degenerate: fewer than three corners, or no area.
        """
        if self.coords[MeshLoc.NODE][0] is None:
            raise ValueError("add_nodes must come before add_elements")
        types = np.asarray(element_types, dtype=np.int64)
        conn = np.asarray(element_conn, dtype=np.int64)
        if len(types) != element_count or types.sum() != len(conn):
            raise ValueError("element_conn must list as many corners as element_types counts")
        if len(types) and types.min() < 3:
            bad = int(np.argmin(types))
            raise ValueError(
                f"element {bad} (counted from 0) has {types[bad]} corners; a polygon needs three"
            )
        if len(conn) and (conn.min() < 0 or conn.max() >= self.node_count):
            raise ValueError("element_conn points beyond the nodes")
        elements = np.full((int(element_count), int(types.max(initial=3))), -1, dtype=np.int64)
        elements[np.arange(elements.shape[1]) < types[:, None]] = conn
        self._refuse_degenerate(elements)
        self.elements = elements
        self.size[MeshLoc.ELEMENT] = int(element_count)
        if element_coords is not None:
            coords = np.asarray(element_coords, dtype=np.float64).reshape(-1, 2)
            self.coords[MeshLoc.ELEMENT] = [coords[:, 0].copy(), coords[:, 1].copy()]
        if element_mask is not None:
            self.mask[MeshLoc.ELEMENT] = np.asarray(element_mask, dtype=np.int32)
        if element_area is not None:
            self.area[MeshLoc.ELEMENT] = np.asarray(element_area, dtype=np.float64)

    def _refuse_degenerate(self, elements):
        from weathermill.esmf.polygons import crosses_itself, tidy_polygons
        from weathermill.esmf.sphere import unit_vectors

        nodes = unit_vectors(*self.coords[MeshLoc.NODE], degrees=self.coord_sys == CoordSys.SPH_DEG)
        tidy, counts, areas, convex = tidy_polygons(nodes, elements)
        bad = np.flatnonzero((counts < 3) | (areas == 0.0))
        if len(bad):
            raise ValueError(
                f"{len(bad)} polygon(s) are degenerate: fewer than three distinct corners, or no area (the "
                f"first is element {bad[0]}, counted from 0)"
            )
        for element in np.flatnonzero(~convex):
            if crosses_itself(nodes[tidy[element, : counts[element]]]):
                raise ValueError(f"the sides of element {element} (counted from 0) cross one another")

    def get_coords(self, coord_dim, meshloc=MeshLoc.NODE):
        """Return longitudes (0) or latitudes (1) of nodes or elements."""
        return self.coords[meshloc][coord_dim]

    def free_memory(self):
        """Let go of the arrays; the mesh can't be used any more."""
        self.destroy()

    def destroy(self):
        """Let go of the arrays."""
        self.finalized = True

    def __repr__(self):
        return f"Mesh(nodes={self.node_count}, elements={self.element_count})"
