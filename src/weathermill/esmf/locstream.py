"""The point list of the ESMPy interface."""

from __future__ import annotations

import numpy as np

from weathermill.esmf.constants import CoordSys

_COORDINATES = {
    CoordSys.SPH_DEG: ("ESMF:Lon", "ESMF:Lat"),
    CoordSys.SPH_RAD: ("ESMF:Lon", "ESMF:Lat"),
}


class LocStream(dict):
    """A list of points; its coordinates and its mask are the keys ``ESMF:Lon``, ``ESMF:Lat``, ``ESMF:Mask``.

    Parameters
    ----------
    location_count : int
        Number of points.
    name : str, optional
        A name.
    coord_sys : CoordSys, optional
        Degrees (the default) or radians.
    """

    def __init__(self, location_count, name=None, coord_sys=None, **others):
        super().__init__()
        if others:
            raise ValueError(f"unsupported arguments of LocStream: {sorted(others)}")
        self.name = name
        self.coord_sys = CoordSys.SPH_DEG if coord_sys is None else coord_sys
        if self.coord_sys not in _COORDINATES:
            raise ValueError("only spherical coordinates (CoordSys.SPH_DEG or SPH_RAD) are supported")
        self.size = int(location_count)
        self.rank = self.ndims = 1
        self.lower_bounds = np.zeros(1, dtype=np.int32)
        self.upper_bounds = np.array([self.size], dtype=np.int32)
        self.finalized = False

    def __setitem__(self, key, values):
        values = np.asarray(values)
        if values.shape != (self.size,):
            raise ValueError(f"{key} must have the shape ({self.size},), not {values.shape}")
        super().__setitem__(key, values)

    @property
    def mask(self):
        """The mask in a list of one, or None."""
        return [self["ESMF:Mask"]] if "ESMF:Mask" in self else None

    def coordinates(self):
        """Longitudes and latitudes of the points.

        Raises
        ------
        ValueError
            If they were not set.
        """
        keys = _COORDINATES[self.coord_sys]
        missing = [key for key in keys if key not in self]
        if missing:
            raise ValueError(f"the LocStream has no {' and '.join(missing)}; set them before regridding")
        return self[keys[0]], self[keys[1]]

    def destroy(self):
        """Let go of the arrays."""
        self.finalized = True

    def __repr__(self):
        return f"LocStream(size={self.size}, keys={sorted(self)})"
