"""Finding time, level, latitude and longitude in any source, and giving them canonical names and units."""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError
from weathermill.fields.findings import Finding
from weathermill.fields.horizontal import (
    clean_angles,
    describes_the_same,
    in_degrees,
    require_angle,
    require_degrees,
    require_true,
)
from weathermill.fields.vertical import (
    levels_in_hectopascals,
    other_verticals,
    problems,
    tell_scalar_levels,
    vertical_of,
)

TIME, LEVEL, LATITUDE, LONGITUDE = "time", "level", "latitude", "longitude"

_AXES = (TIME, LEVEL, LATITUDE, LONGITUDE)

#: Names under which two-dimensional coordinates are kept while their dimensions bear the plain names.
CURVILINEAR = {LATITUDE: "latitude_of_points", LONGITUDE: "longitude_of_points"}

#: Attribute of a dataset that was expanded from a reduced Gaussian grid, as long as nobody has agreed to that.
REDUCED = "weathermill_reduced_grid"

# Valid time comes before any other time: a file with both counts its fields by the first.
_NAMES = {
    TIME: ("valid_time", "time", "date", "datetime", "xtime"),
    LEVEL: (
        "level",
        "pressure_level",
        "pressure_levels",
        "plev",
        "plevs",
        "isobaricinhpa",
        "isobaricinpa",
        "isobaric",
        "pressure",
        "lev",
        "levelist",
    ),
    LATITUDE: ("latitude", "lat", "nav_lat", "rlat", "y", "nlat", "xlat"),
    LONGITUDE: ("longitude", "lon", "long", "nav_lon", "rlon", "x", "nlon", "xlong"),
}
_STANDARD_NAMES = {
    TIME: ("time",),
    LEVEL: ("air_pressure",),
    LATITUDE: ("latitude",),
    LONGITUDE: ("longitude",),
}
_ANGLE_UNITS = {
    axis: tuple(
        f"{degrees}{joint}{point}"
        for degrees in ("degrees", "degree", "deg")
        for joint in ("_", "")
        for point in (word, word[0])
    )
    for axis, word in ((LATITUDE, "north"), (LONGITUDE, "east"))
}
# Coordinates of a projection or of rotated poles, whatever their names and units are.
_SAID = ("units", "standard_name")
_PROJECTED = ("grid_latitude", "grid_longitude", "projection_x_coordinate", "projection_y_coordinate")

#: What is added to the names of dimensions that are called as axes are, and are none.
OF_FILE = "_of_file"

#: Attribute of a standardised dataset: dimension -> (what is wrong with fields on it, remedy), of other levels than
#: pressures.
VERTICAL = "weathermill_other_levels"


def bounds_names(dataset: xr.Dataset) -> set[str]:
    """Return the names of variables that only hold cell bounds, which are never fields themselves."""
    names = set()
    for variable in dataset.variables.values():
        for key in ("bounds", "climatology", "ancillary_variables", "grid_mapping"):
            for source in (variable.attrs, variable.encoding):
                if isinstance(source.get(key), str):
                    names.update(source[key].split())
    for name, variable in dataset.variables.items():
        if str(name).lower().endswith(("_bnds", "_bounds", "_bnd", "_vertices")) and variable.ndim > 1:
            names.add(str(name))
    return names


def is_time_like(variable: xr.Variable | xr.DataArray) -> bool:
    """Return whether a variable holds decoded dates: datetime64 or cftime objects."""
    if np.issubdtype(variable.dtype, np.datetime64):
        return True
    if variable.dtype != object or variable.size == 0:
        return False
    first = np.asarray(variable.values).reshape(-1)[0]
    return hasattr(first, "calendar") and hasattr(first, "timetuple")


def find_coordinate(dataset: xr.Dataset, axis: str) -> str | None:
    """Return the name of the variable that holds an axis, or None.

    Parameters
    ----------
    dataset
        Any dataset.
    axis
        ``time``, ``level``, ``latitude`` or ``longitude``.

    Returns
    -------
    str or None
        One-dimensional variables come before scalars and two-dimensional ones; among them names come before
        standard names, and standard names before units. Maps of latitude and longitude come before
        one-dimensional axes along the same dimensions that differ from them, since these are nominal then.
    """
    if axis in _ANGLE_UNITS:
        return find_horizontal(dataset)[0 if axis == LATITUDE else 1]
    ranked = _ranked(dataset, axis)
    return min(ranked)[2] if ranked else None


def find_horizontal(dataset: xr.Dataset) -> tuple[str | None, str | None]:
    """Return the names of the variables that hold latitude and longitude; see `find_coordinate`."""
    ranked = [_ranked(dataset, axis) for axis in (LATITUDE, LONGITUDE)]
    best = tuple(min(names)[2] if names else None for names in ranked)
    flat = [[name for name in names if dataset.variables[name[2]].ndim == 1] for names in ranked]
    maps = [[name for name in names if dataset.variables[name[2]].ndim == 2] for names in ranked]
    if not all(flat) or not all(maps):
        return best[0], best[1]
    axes = [dataset.variables[min(names)[2]] for names in flat]
    _, _, wide = min(maps[0])
    beside = [n for n in maps[1] if set(dataset.variables[n[2]].dims) == set(dataset.variables[wide].dims)]
    if not beside:
        return best[0], best[1]
    pair = (wide, min(beside)[2])
    dims = dataset.variables[wide].dims
    if {axes[0].dims[0], axes[1].dims[0]} != set(dims):
        fields = [
            sum(need <= set(variable.dims) for variable in dataset.data_vars.values())
            for need in ({axes[0].dims[0], axes[1].dims[0]}, set(dims))
        ]
        return pair if fields[1] > fields[0] else (best[0], best[1])
    same = describes_the_same(*axes, *(dataset.variables[name] for name in pair))
    return (min(flat[0])[2], min(flat[1])[2]) if same else pair


def _ranked(dataset: xr.Dataset, axis: str) -> list[tuple[int, float, str]]:
    """Return candidates for an axis: dimensionality first, then how plainly they are said to be it."""
    bounds = bounds_names(dataset)
    ranked: list[tuple[int, float, str]] = []
    for name, variable in dataset.variables.items():
        name = str(name)
        if name in bounds or variable.ndim > 2:
            continue
        is_coordinate = name in dataset.coords or name in dataset.dims
        if not is_coordinate and variable.ndim == 0:
            continue
        lower = name.lower()
        units = _spaceless(variable.attrs.get("units", ""))
        standard_name = variable.attrs.get("standard_name")
        if not is_coordinate and lower not in _NAMES[axis][:4]:
            continue
        if axis == TIME and not is_time_like(variable):
            continue
        if axis == TIME and standard_name in ("forecast_reference_time", "forecast_period"):
            continue
        if axis in _ANGLE_UNITS and (
            not np.issubdtype(variable.dtype, np.number) or standard_name in _PROJECTED
        ):
            continue
        rank: float | None = None
        if lower in ("y", "x", "rlat", "rlon", "nlat", "nlon") and axis in _ANGLE_UNITS:
            # Projection and rotated coordinates are no geographical ones unless the units say so.
            rank = 2 if units in _ANGLE_UNITS[axis] else None
        elif lower in _NAMES[axis]:
            rank = _NAMES[axis].index(lower) / 100
        elif standard_name in _STANDARD_NAMES[axis]:
            rank = 1
        elif axis in _ANGLE_UNITS and units in _ANGLE_UNITS[axis]:
            rank = 2
        elif name in dataset.dims and axis in (TIME, LEVEL):
            rank = 3
        if axis == LEVEL and rank is not None and not _counts_pressure(dataset, name, variable):
            rank = None
        if rank is not None:
            # Scalars beside a dimension are left over from a selection.
            ranked.append(((1, 0, 2)[variable.ndim], rank, name))
    return ranked


def _spaceless(units: object) -> str:
    return str(units).strip().lower().replace(" ", "_").replace("°", "degrees").replace("degs_", "deg_")


def _counts_pressure(dataset: xr.Dataset, name: str, variable: xr.Variable) -> bool:
    """Whether a coordinate is pressure, and no nominal one along model levels."""
    if not vertical_of(name, variable).pressure:
        return False
    return not any(
        dim != name and vertical_of(dim, dataset.variables.get(dim)).words for dim in variable.dims
    )


def undecoded_time(dataset: xr.Dataset) -> str | None:
    """Return what a time coordinate of numbers says of its units, or that it holds texts; None where there is none."""
    for name in dataset.coords:
        variable = dataset.variables[name]
        if str(name).lower() not in _NAMES[TIME]:
            continue
        if variable.dtype.kind in "OUS" and variable.size and not is_time_like(variable):
            first = np.atleast_1d(variable.values).reshape(-1)[0]
            return f"{name}, which holds texts such as {(first.decode() if isinstance(first, bytes) else str(first))!r}"
        if np.issubdtype(variable.dtype, np.number):
            return f"{name} with the units {variable.attrs.get('units', 'none')!r}"
    return None


def reduced_grid_error(grid: str, source: str) -> CoordinateError:
    """Return the error about a source on a reduced Gaussian grid, such as O320."""
    full = int(grid[1:])
    return CoordinateError(
        f"it lies on the reduced Gaussian grid {grid}, whose rows have unequal numbers of points",
        where=source,
        remedy=f"Set ingest.reduced_grids to expand, which interpolates along each row to {4 * full} longitudes; or ask"
        f" MARS for grid=F{full}, or run `cdo setgridtype,regular`.",
    )


def standardise(
    dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None = None
) -> xr.Dataset:
    """Give the coordinates of one source their canonical names and units; nothing is loaded or reordered.

    Parameters
    ----------
    dataset
        As opened, with times decoded.
    source
        Its name for messages.
    findings
        Where to record what was noticed.

    Returns
    -------
    xarray.Dataset
        Dimensions renamed to ``time``, ``level``, ``latitude``, ``longitude`` where present; latitude and
        longitude float64 (those of curvilinear grids under the names of ``CURVILINEAR``), level float64 in hPa. Bounds and unused scalar coordinates are dropped. Scalar
        ``time`` and ``level`` coordinates stay as scalars.

    Raises
    ------
    CoordinateError
        Without latitude or longitude, or where they belong to single points.
    """
    if REDUCED in dataset.attrs:
        raise reduced_grid_error(dataset.attrs[REDUCED], source)
    dataset = dataset.drop_vars(bounds_names(dataset), errors="ignore")
    found = {axis: find_coordinate(dataset, axis) for axis in (TIME, LEVEL, LATITUDE, LONGITUDE)}
    for axis in (LATITUDE, LONGITUDE):
        if found[axis] is None:
            direction = "north" if axis == LATITUDE else "east"
            raise CoordinateError(
                f"no {axis} is found; the coordinates are {_names(dataset.coords)} and the dimensions"
                f" {_names(dataset.dims)}",
                where=source,
                remedy=f"Name it {axis}, or give it the units degrees_{direction}.",
            )
    for axis in (LATITUDE, LONGITUDE):
        require_angle(axis, str(found[axis]), dataset.variables[found[axis]], source)
        dataset = in_degrees(dataset, str(found[axis]))
    latitude, longitude = dataset[found[LATITUDE]], dataset[found[LONGITUDE]]
    if latitude.ndim == 1 and latitude.dims == longitude.dims:
        raise CoordinateError(
            f"latitude and longitude lie along one dimension, {latitude.dims[0]!r}: these are single points or a"
            " reduced grid, not a map",
            where=source,
            remedy="Set ingest.reduced_grids to expand if it is a reduced Gaussian grid; else interpolate to a"
            " latitude-longitude grid first (ECMWF's MARS and CDO do).",
        )
    if latitude.ndim == 2 and longitude.dims == latitude.dims[::-1]:
        longitude = longitude.transpose(*latitude.dims)
        dataset = dataset.assign_coords({found[LONGITUDE]: longitude})
    if latitude.ndim != longitude.ndim or (latitude.ndim == 2 and latitude.dims != longitude.dims):
        raise CoordinateError(
            f"latitude has the dimensions {latitude.dims}, longitude {longitude.dims}", where=source
        )
    others = problems(other_verticals(dataset), dataset.sizes)
    tell_scalar_levels(dataset, source, findings)
    if latitude.ndim == 1:
        said = any(coordinate.attrs.get(key) for coordinate in (latitude, longitude) for key in _SAID)
        if not {found[LATITUDE], found[LONGITUDE]} & {LATITUDE, LONGITUDE}:
            pair = (str(found[LATITUDE]), str(found[LONGITUDE]))
            require_true(pair, (latitude.variable, longitude.variable), source)
        require_degrees(latitude.values, longitude.values, said, source)
    coordinates = {}
    renames: dict[str, str] = {}
    for axis, name in found.items():
        if name is None:
            continue
        variable = dataset[name]
        if variable.ndim == 2 and axis in (LATITUDE, LONGITUDE):
            # One name cannot be that of a dimension and of a map: the dimensions take the plain names here.
            renames |= {str(variable.dims[0]): LATITUDE, str(variable.dims[1]): LONGITUDE}
            coordinates[CURVILINEAR[axis]] = variable
            continue
        if variable.ndim > 1:
            raise CoordinateError(
                f"{axis} ({name}) has the dimensions {variable.dims}, where one was expected", where=source
            )
        if variable.ndim == 1:
            renames[str(variable.dims[0])] = axis
        coordinates[axis] = variable
    dropped = [str(name) for name in dataset.coords]
    dataset = dataset.drop_vars(dropped)
    # Levels of another kind, and dimensions that say nothing, do not bear the names that axes have here.
    taken = {
        dim: f"{dim}{OF_FILE}"
        for dim in map(str, dataset.dims)
        if dim in _AXES and dim not in renames and (found[dim] is not None or dim in others)
    }
    dataset = dataset.rename_dims(taken)
    others = {taken.get(dim, dim): text for dim, text in others.items() if dim not in renames}
    dataset = dataset.rename_dims(
        {old: new for old, new in renames.items() if old != new and old in dataset.dims}
    )
    canonical = {}
    for axis, variable in coordinates.items():
        if variable.ndim == 2:
            plain = LATITUDE if axis == CURVILINEAR[LATITUDE] else LONGITUDE
            canonical[axis] = ((LATITUDE, LONGITUDE), _coordinate_values(plain, variable, source, findings))
            continue
        values = _coordinate_values(axis, variable, source, findings)
        canonical[axis] = (axis, values) if variable.ndim == 1 else ((), values.reshape(()))
    return dataset.assign_coords(canonical).assign_attrs({VERTICAL: others})


def _coordinate_values(axis, variable, source, findings) -> np.ndarray:
    if axis == LEVEL:
        return levels_in_hectopascals(variable, source, findings, str(variable.name))
    if axis == TIME:
        values = np.atleast_1d(variable.values)
        return values.astype("datetime64[ns]") if np.issubdtype(values.dtype, np.datetime64) else values
    values = np.atleast_1d(variable.values)
    if not np.all(np.isfinite(values)):
        raise CoordinateError(f"{axis} has missing values", where=source)
    if axis in (LATITUDE, LONGITUDE) and values.size == 0:
        raise CoordinateError(
            f"{axis} has no values",
            where=f"{source}:{variable.name}",
            remedy="The file was cut to nothing: take one with a grid.",
        )
    if axis == LATITUDE and np.abs(values).max() > 90.0 + 1e-4:
        raise CoordinateError(
            f"latitudes run from {values.min():g} to {values.max():g}, beyond the poles", where=source
        )
    if axis == LONGITUDE and np.abs(values).max() > 1080.0:
        raise CoordinateError(
            f"longitudes run from {values.min():g} to {values.max():g}, which are no degrees",
            where=source,
            remedy="Correct the longitudes in the file; undeclared fill values (1e20) are none.",
        )
    if values.ndim == 2:
        return values.astype(np.float64)
    return clean_angles(values, full_turn=axis == LONGITUDE)


def _names(mapping) -> str:
    return ", ".join(sorted(str(name) for name in mapping)) or "none"
