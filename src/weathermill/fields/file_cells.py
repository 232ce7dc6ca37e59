"""Horizontal coordinates of a file with the bounds of their cells, in degrees."""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np
import xarray as xr

from weathermill.errors import GridError
from weathermill.fields.cell_vertices import corners_of_vertices, vertices_of_corners
from weathermill.fields.findings import Finding, tell
from weathermill.fields.horizontal import is_radian


def degrees_of(variable: xr.DataArray, values: np.ndarray | None = None) -> np.ndarray:
    """Return a coordinate, or values that are in its units, in degrees."""
    values = np.asarray(variable.values if values is None else values)
    return np.degrees(values) if is_radian(variable.attrs.get("units", "")) else values


def bounds_of(dataset: xr.Dataset, variable: xr.DataArray) -> np.ndarray | None:
    """Return the bounds of a coordinate in degrees, float64, the vertices last, or None where it has none."""
    name = variable.attrs.get("bounds", variable.encoding.get("bounds"))
    if name not in dataset.variables or not set(variable.dims) < set(dataset[name].dims):
        return None
    bounds = dataset[name]
    *others, vertices = (dim for dim in bounds.dims if dim not in variable.dims)
    # Files that were joined along time repeat the bounds at each step.
    bounds = bounds.isel(dict.fromkeys(others, 0)).transpose(*variable.dims, vertices)
    return np.asarray(degrees_of(variable, bounds.values), dtype=np.float64)


def curvilinear_grid(
    dataset: xr.Dataset,
    latitude: xr.DataArray,
    longitude: xr.DataArray,
    name: str,
    findings: MutableSequence[Finding] | None,
) -> xr.Dataset:
    """Return the grid of two-dimensional coordinates, with dimensions ``y`` and ``x``.

    Returns
    -------
    xarray.Dataset
        ``latitude`` and ``longitude`` in degrees, float64; where the file has vertices, ``latitude_bounds`` and
        ``longitude_bounds`` (y, x, vertices) in the order (j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i) of the corners.
        Vertices that make no cells stay as they are, and are told.

    Raises
    ------
    GridError
        Where latitude and longitude lie on different dimensions.
    """
    if set(latitude.dims) != set(longitude.dims):
        raise GridError(
            f"latitude has the dimensions {latitude.dims}, longitude {longitude.dims}", where=name
        )
    grid = xr.Dataset(attrs={"grid": name or f"curvilinear {latitude.shape}"})
    bounds = {}
    for axis, variable in (("latitude", latitude), ("longitude", longitude.transpose(*latitude.dims))):
        values = np.asarray(degrees_of(variable), dtype=np.float64)
        grid = grid.assign_coords({axis: (("y", "x"), values)})
        bounds[axis] = bounds_of(dataset, variable)
    grid.latitude.attrs.update(standard_name="latitude", units="degrees_north")
    grid.longitude.attrs.update(standard_name="longitude", units="degrees_east")
    if any(vertices is None for vertices in bounds.values()):
        return grid
    try:
        corners = corners_of_vertices(
            *bounds.values(), (grid.latitude.values, grid.longitude.values), where=name
        )
        bounds = dict(zip(bounds, map(vertices_of_corners, corners), strict=True))
    except GridError as error:
        # They stay as they are: methods that need corners refuse them by the same error.
        if findings is not None:
            tell(
                findings,
                "warning",
                "grid",
                f"{error.what}; conservative methods cannot be used",
                error.remedy,
            )
    for axis, vertices in bounds.items():
        dims = ("y", "x", "vertices")
        grid = grid.assign_coords({f"{axis}_bounds": (dims, vertices)})
        grid[axis].attrs["bounds"] = f"{axis}_bounds"
    return grid
