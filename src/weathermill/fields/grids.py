"""Target grids by name, by box or from a file, with cell corners and a hash that identifies them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import GridError, SourceNotFoundError
from weathermill.extent import is_globe
from weathermill.fields.cell_vertices import corners_of_vertices
from weathermill.fields.coordinates import find_coordinate
from weathermill.fields.file_cells import bounds_of, curvilinear_grid, degrees_of
from weathermill.fields.findings import Finding, tell
from weathermill.fields.geometry import (
    area_weights,
    bounds_from,
    cell_areas,
    corners_of,
    cyclic_duplicates,
    gaussian_latitudes,
    gaussian_number,
    has_pole_points,
    is_global_longitude,
    latitude_corners,
    longitude_corners,
    octahedral_number,
    octahedral_points,
)
from weathermill.fields.horizontal import clean_angles

__all__ = [
    "area_weights",
    "build_grid",
    "cell_areas",
    "describe_grid",
    "grid_corners",
    "grid_hash",
    "grid_of",
    "grid_points",
    "has_pole_points",
    "is_global_longitude",
    "is_point_list",
    "is_rectilinear",
    "named_grid",
    "point_list",
]

_AXES = ("latitude", "longitude")

_DEGREES = re.compile(r"^(?P<step>\d+(?:\.\d+)?)\s*deg(?:rees?)?(?:_(?P<poles>poles|cells))?$")
_GAUSSIAN = re.compile(r"^[NnFf](?P<n>\d+)$")
_OCTAHEDRAL = re.compile(r"^[Oo](?P<n>\d+)$")
_SIZE = re.compile(r"^(?P<a>\d+)\s*x\s*(?P<b>\d+)(?:_(?P<poles>poles|cells))?$")

_HELP = (
    "Use a name such as 1.5deg, 1deg_poles, 31x60_poles, 64x32, N80, O96, a box"
    " {latitude: [72, 34], longitude: [-25, 45], step: 0.25} or {file: path}."
)


def named_grid(spec: str | Mapping[str, Any] | xr.Dataset) -> xr.Dataset:
    """Return a grid from its name or description.

    Parameters
    ----------
    spec
        One of

        - ``"1deg"``, ``"0.25deg"``: global cells, the outermost rows half a step from the poles; with
          ``_poles`` (``"1deg_poles"`` is 181 x 360), rows of points on both poles.
        - ``"31x60"``, ``"64x32"``, ``"240x121"``: the larger number is that of the longitudes. Without a
          suffix, points lie on the poles where that makes square cells (31 x 60, 121 x 240, 721 x 1440), and
          half a cell away otherwise; ``_poles`` and ``_cells`` say so.
        - ``"N80"`` or ``"F80"``: the regular Gaussian grid of 160 x 320 points, with the Gaussian quadrature
          weights as areas.
        - ``"O96"``: the octahedral reduced Gaussian grid, a list of points along one dimension ``points``.
        - a mapping with ``latitude: [north, south]``, ``longitude: [west, east]`` and ``step`` (one number or
          ``[dlat, dlon]``): points on both ends, a region.
        - a mapping with ``latitude`` and ``longitude`` lists of more than two points: those points.
        - a mapping with ``file``: the grid of a NetCDF file, curvilinear ones included.
        - a mapping with ``name`` and ``longitude_start`` (0 by default): a global grid turned about its axis.

    Returns
    -------
    xarray.Dataset
        Coordinates ``latitude`` (descending) and ``longitude`` (ascending) in degrees, float64, and
        ``latitude_bounds`` (latitude, bounds), ``longitude_bounds`` (longitude, bounds) as CF bounds. For a
        reduced grid as :func:`point_list` returns it.

    Raises
    ------
    GridError
        Where the name is unknown or no such grid can be built.
    """
    if isinstance(spec, xr.Dataset):
        return grid_of(spec)
    if isinstance(spec, Mapping):
        return _grid_from_mapping(dict(spec))
    text = str(spec).strip()
    if match := _DEGREES.match(text):
        step = float(match["step"])
        return _regular(*_counts(step, match["poles"] == "poles", text), match["poles"] == "poles", name=text)
    if match := _SIZE.match(text):
        n_lat, n_lon = sorted((int(match["a"]), int(match["b"])))
        poles = 2 * (n_lat - 1) == n_lon if match["poles"] is None else match["poles"] == "poles"
        return _regular(n_lat, n_lon, poles, name=text)
    if match := _GAUSSIAN.match(text):
        n = int(match["n"])
        if not 2 <= n <= 2000:
            raise GridError(f"a Gaussian grid N{n} is out of reach; N2 to N2000 are built")
        latitude, _ = gaussian_latitudes(2 * n)
        return build_grid(latitude, 360.0 / (4 * n) * np.arange(4 * n), name=text)
    if match := _OCTAHEDRAL.match(text):
        n = int(match["n"])
        if not 2 <= n <= 2000:
            raise GridError(f"an octahedral grid O{n} is out of reach; O2 to O2000 are built")
        return point_list(*octahedral_points(n), name=text)
    raise GridError(f"grid {text!r} is unknown", remedy=_HELP)


def _counts(step: float, poles: bool, name: str) -> tuple[int, int]:
    n_lon = round(360.0 / step) if step > 0 else 0
    intervals = round(180.0 / step) if step > 0 else 0
    if n_lon < 4 or abs(n_lon * step - 360.0) > 1e-6 or abs(intervals * step - 180.0) > 1e-6:
        raise GridError(
            f"a step of {step:g} degrees does not divide the half circle evenly",
            where=name,
            remedy="Choose a step that divides 180, or give rows and columns, as in 31x60_poles.",
        )
    return intervals + (1 if poles else 0), n_lon


def _regular(n_lat: int, n_lon: int, poles: bool, *, name: str, start: float = 0.0) -> xr.Dataset:
    if n_lat < 2 or n_lon < 4:
        raise GridError(f"a global grid needs at least 2 rows and 4 columns, not {n_lat} x {n_lon}")
    if poles:
        latitude = 90.0 - 180.0 * np.arange(n_lat) / (n_lat - 1)
    else:
        latitude = 90.0 - 180.0 * (np.arange(n_lat) + 0.5) / n_lat
    longitude = start + 360.0 * np.arange(n_lon) / n_lon
    return build_grid(latitude, longitude, name=name)


def _grid_from_mapping(spec: dict[str, Any]) -> xr.Dataset:
    if "file" in spec:
        return _grid_from_file(spec["file"])
    if "name" in spec:
        grid = named_grid(str(spec["name"]))
        start = float(spec.get("longitude_start", 0.0))
        if is_point_list(grid):
            if start != 0.0:
                raise GridError(f"{spec['name']} is a reduced grid, whose rows begin at Greenwich")
            return grid
        longitude = grid.longitude.values - grid.longitude.values[0] + start
        return build_grid(grid.latitude.values, longitude, name=f"{spec['name']}, from {start:g}E")
    unknown = set(spec) - {"latitude", "longitude", "step"}
    if unknown or not {"latitude", "longitude"} <= set(spec):
        raise GridError(f"a grid cannot be made of the keys {sorted(spec)}", remedy=_HELP)
    latitude = np.asarray(spec["latitude"], dtype=np.float64)
    longitude = np.asarray(spec["longitude"], dtype=np.float64)
    if "step" not in spec:
        return build_grid(np.sort(latitude)[::-1], longitude, name="points")
    if latitude.size != 2 or longitude.size != 2:
        raise GridError("a box has two latitudes and two longitudes beside its step", remedy=_HELP)
    steps = np.broadcast_to(np.asarray(spec["step"], dtype=np.float64), (2,))
    if not np.all(steps > 0):
        raise GridError(f"the step of a box must be positive, not {spec['step']}")
    south, north = latitude.min(), latitude.max()
    west, east = longitude
    if east <= west:
        east += 360.0
    rows = _points(south, north, steps[0], "latitude")[::-1]
    columns = _points(west, min(east, west + 360.0 - steps[1]), steps[1], "longitude")
    return build_grid(rows, columns, name=f"box {north:g}N {south:g}N {west:g}E {east:g}E")


def _points(start: float, stop: float, step: float, what: str) -> np.ndarray:
    count = (stop - start) / step
    if count < 1 or abs(count - round(count)) > 1e-6:
        raise GridError(f"steps of {step:g} do not lead from {start:g} to {stop:g} in {what}")
    return start + (stop - start) * np.arange(round(count) + 1) / round(count)


def _grid_from_file(path: str | Path) -> xr.Dataset:
    if not Path(path).exists():
        raise SourceNotFoundError(
            f"the grid file {path} does not exist", remedy="Correct the `file` of `regrid.target`."
        )
    try:
        with xr.open_dataset(path, decode_times=False) as dataset:
            return grid_of(dataset.load(), name=Path(path).name)
    except (OSError, ValueError) as error:
        raise GridError(f"the grid file cannot be read: {error}", where=str(path)) from error


def build_grid(
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    latitude_bounds: np.ndarray | None = None,
    longitude_bounds: np.ndarray | None = None,
    name: str = "",
) -> xr.Dataset:
    """Return a rectilinear grid as a CF dataset.

    Parameters
    ----------
    latitude, longitude
        One-dimensional degrees; longitudes of a duplicated cyclic column are refused.
    latitude_bounds, longitude_bounds
        (n + 1,) or (n, 2), in either order; midway between points by default, clipped to the poles.
    name
        For messages and attributes.

    Returns
    -------
    xarray.Dataset
        As :func:`named_grid` returns it.

    Raises
    ------
    GridError
        Where points are not monotonic, or bounds leave gaps, overlap or do not enclose their points.
    """
    latitude = np.asarray(latitude, dtype=np.float64)
    longitude = np.asarray(longitude, dtype=np.float64)
    if longitude.size > 1 and cyclic_duplicates(longitude).any():
        raise GridError("the longitudes come round to the same meridian twice", where=name)
    rows, columns = _axis_corners(latitude, longitude, latitude_bounds, longitude_bounds, name)
    return xr.Dataset(
        coords={
            "latitude": (
                "latitude",
                latitude,
                {"standard_name": "latitude", "units": "degrees_north", "bounds": "latitude_bounds"},
            ),
            "longitude": (
                "longitude",
                longitude,
                {"standard_name": "longitude", "units": "degrees_east", "bounds": "longitude_bounds"},
            ),
            "latitude_bounds": (("latitude", "bounds"), bounds_from(rows)),
            "longitude_bounds": (("longitude", "bounds"), bounds_from(columns)),
        },
        attrs={"grid": name or f"{latitude.size}x{longitude.size}"},
    )


def _axis_corners(
    latitude, longitude, latitude_bounds, longitude_bounds, name
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n + 1,) and (m + 1,) corners of the cells of two axes, from their bounds where there are any."""
    if latitude_bounds is None:
        rows = latitude_corners(latitude)
    else:
        rows = corners_of(latitude_bounds, latitude, axis="latitude", where=name)
    if longitude_bounds is None:
        columns = longitude_corners(longitude)
    else:
        columns = corners_of(longitude_bounds, longitude, axis="longitude", where=name)
    return np.clip(rows, -90.0, 90.0), columns


def point_list(latitude: np.ndarray, longitude: np.ndarray, *, name: str = "") -> xr.Dataset:
    """Return points that make no rectangular array, such as those of a reduced grid, as a dataset.

    Returns
    -------
    xarray.Dataset
        Coordinates ``latitude`` (points) and ``longitude`` (points) in degrees, float64, without bounds.
    """
    latitude = np.asarray(latitude, dtype=np.float64)
    longitude = np.asarray(longitude, dtype=np.float64)
    if latitude.size == 0 or np.abs(latitude).max() > 90.0 + 1e-9:
        raise GridError("a list of points is empty or runs beyond the poles", where=name)
    return xr.Dataset(
        coords={
            "latitude": ("points", latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": ("points", longitude, {"standard_name": "longitude", "units": "degrees_east"}),
        },
        attrs={"grid": name or f"{latitude.size} points"},
    )


def is_point_list(grid: xr.Dataset) -> bool:
    """Return whether a grid is a list of points: latitude and longitude along one and the same dimension."""
    return grid.latitude.ndim == 1 and grid.latitude.dims == grid.longitude.dims


def is_rectilinear(grid: xr.Dataset) -> bool:
    """Return whether a grid is the product of its latitudes and longitudes."""
    return grid.latitude.ndim == 1 and not is_point_list(grid)


def grid_points(grid: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return latitude and longitude of every point of a grid, flat, in degrees."""
    latitude, longitude = grid.latitude.values, grid.longitude.values
    if is_rectilinear(grid):
        latitude, longitude = np.meshgrid(latitude, longitude, indexing="ij")
    return latitude.ravel(), longitude.ravel()


def grid_of(
    dataset: xr.Dataset, *, name: str = "", findings: MutableSequence[Finding] | None = None
) -> xr.Dataset:
    """Return the horizontal grid of a dataset: its coordinates and, where it has them, bounds.

    Rectilinear coordinates become ``latitude`` and ``longitude`` as in :func:`named_grid`, in the order of
    the dataset. Curvilinear ones keep their two dimensions, those of latitude, and get no bounds unless the file has
    vertices, which are brought to the order of the grid's corners. Where both lie along one dimension they are a list of
    points, as in :func:`point_list`. A duplicated cyclic column is left out and told; so is what is wrong with vertices,
    which only conservative methods need.

    Raises
    ------
    GridError
        Where the dataset has no latitude or longitude, or its bounds make no cells.
    """
    names = {axis: find_coordinate(dataset, axis) for axis in _AXES}
    if None in names.values():
        raise GridError(
            f"there is no latitude or longitude among {sorted(map(str, dataset.variables))}", where=name
        )
    latitude, longitude = dataset[names["latitude"]], dataset[names["longitude"]]
    label = name or str(dataset.attrs.get("grid", ""))
    if latitude.ndim == 2:
        return curvilinear_grid(dataset, latitude, longitude, label, findings)
    if latitude.ndim == 1 and latitude.dims == longitude.dims:
        return point_list(degrees_of(latitude), degrees_of(longitude), name=label)
    bounds = {
        f"{axis}_bounds": bounds_of(dataset, variable)
        for axis, variable in (("latitude", latitude), ("longitude", longitude))
    }
    columns = degrees_of(longitude)
    duplicated = cyclic_duplicates(columns)
    if duplicated.any():
        tell(
            findings,
            "warning",
            "longitude",
            f"the grid repeats the meridian {float(columns[duplicated][0]):g}; the copy is left out",
        )
        columns = columns[~duplicated]
        if bounds["longitude_bounds"] is not None:
            bounds["longitude_bounds"] = bounds["longitude_bounds"][~duplicated]
    return build_grid(
        clean_angles(degrees_of(latitude), full_turn=False),
        clean_angles(columns, full_turn=True),
        name=label,
        **bounds,
    )


def grid_corners(grid: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners ``(latitude, longitude)`` of a grid's cells in degrees, clipped to the poles.

    Returns
    -------
    tuple of numpy.ndarray
        (n + 1,) and (m + 1,) for a rectilinear grid, (n + 1, m + 1) each for a curvilinear one.

    Raises
    ------
    GridError
        For a curvilinear grid without vertices or whose vertices do not meet, and for a list of points.
    """
    if is_point_list(grid):
        raise GridError(
            "a list of points, such as a reduced grid, has no cells with corners",
            where=str(grid.attrs.get("grid", "")),
            remedy="Interpolate (bilinear, patch, nearest_s2d), or name a regular grid such as 1deg or N80.",
        )
    if grid.latitude.ndim == 2:
        if "latitude_bounds" not in grid.variables:
            raise GridError(
                "a curvilinear grid without cell vertices cannot be regridded conservatively",
                where=str(grid.attrs.get("grid", "")),
                remedy="Use the bilinear method, or a grid file with vertices.",
            )
        bounds = grid.latitude_bounds.values, grid.longitude_bounds.values
        centres = grid.latitude.values, grid.longitude.values
        return corners_of_vertices(*bounds, centres, where=str(grid.attrs.get("grid", "")))
    bounds = (grid[f"{axis}_bounds"].values if f"{axis}_bounds" in grid.variables else None for axis in _AXES)
    return _axis_corners(
        grid.latitude.values, grid.longitude.values, *bounds, str(grid.attrs.get("grid", ""))
    )


def grid_hash(grid: xr.Dataset) -> str:
    """Return a SHA-256 over points and corners, to 1e-6 degrees: the identity of a grid.

    Names, attributes and data type have no part in it.
    """
    digest = hashlib.sha256()
    arrays = [grid.latitude.values, grid.longitude.values]
    if is_point_list(grid):
        digest.update(b"points")
    elif grid.latitude.ndim == 1:
        arrays.extend(grid_corners(grid) if min(grid.latitude.size, grid.longitude.size) > 1 else ())
    elif "latitude_bounds" in grid.variables:
        arrays.extend([grid.latitude_bounds.values, grid.longitude_bounds.values])
    for array in arrays:
        # The odd shift keeps decimal fractions, which grids are made of, away from where rounding turns.
        steps = np.floor(np.ascontiguousarray(array, dtype=np.float64) * 1e6 + 0.7368).astype(np.int64)
        digest.update(repr(steps.shape).encode())
        digest.update(steps.tobytes())
    return digest.hexdigest()


def describe_grid(grid: xr.Dataset) -> dict[str, Any]:
    """Return what a grid is, in words and numbers: kind, shape, steps, whether global, whether with poles."""
    latitude, longitude = grid.latitude.values, grid.longitude.values
    if latitude.ndim == 2:
        return {"kind": "curvilinear", "shape": list(latitude.shape)}
    if is_point_list(grid):
        n = octahedral_number(latitude, longitude)
        return {
            "kind": f"octahedral reduced Gaussian O{n}" if n else "points",
            "shape": [latitude.size],
            "latitude_range": [float(latitude[0]), float(latitude[-1])],
            "longitude_range": [float(longitude.min()), float(longitude.max())],
        }
    steps = np.abs(np.diff(latitude)), np.abs(np.diff(longitude))
    n = gaussian_number(latitude)
    regular = all(s.size and np.ptp(s) < 1e-4 for s in steps)
    return {
        "kind": f"Gaussian N{n}" if n else ("regular" if regular else "rectilinear"),
        "shape": [latitude.size, longitude.size],
        "latitude_step": float(np.median(steps[0])) if steps[0].size else None,
        "longitude_step": float(np.median(steps[1])) if steps[1].size else None,
        "latitude_range": [float(latitude[0]), float(latitude[-1])],
        "longitude_range": [float(longitude[0]), float(longitude[-1])],
        "global": is_globe(latitude, longitude),
        "global_longitude": is_global_longitude(longitude),
        "pole_points": has_pole_points(latitude),
    }
