"""Latitudes and longitudes as files write them: which of several coordinates is true, and in what units."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError

_RADIANS = re.compile(r"^rad(ian)?s?([_ ](north|east))?$")
# Rows and columns of maps that are compared with axes.
_SAMPLE = 100
# CF knows such units of neither; files with negative western longitudes have them as well as files with positive ones.
_BACKWARDS = re.compile(r"(?i:[ _][sw]|south|west)$|[a-z°º]W$|[eg°º]S$")
_ONWARD = {"latitude": "north", "longitude": "east"}
_DEGREES = re.compile(r"deg|°|º", re.IGNORECASE)


def is_radian(units: object) -> bool:
    """Return whether units of an angle are radians."""
    return bool(_RADIANS.match(str(units).strip().lower()))


def require_angle(axis: str, name: str, variable: xr.Variable | xr.DataArray, source: str) -> None:
    """Refuse a latitude or longitude in units of no angle, such as the metres of a projection.

    Raises
    ------
    CoordinateError
        With the units.
    """
    units = str(variable.attrs.get("units", "")).strip()
    if _BACKWARDS.search(units):
        raise CoordinateError(
            f"{axis} ({name}) is in {units!r}, and whether its numbers increase to the west or south is not certain",
            where=source,
            remedy=f"If they increase to the {_ONWARD[axis]}, set ingest.units to {{{name}: degrees_{_ONWARD[axis]}}}; if"
            " not, change their sign in the file.",
        )
    if not units or is_radian(units) or _DEGREES.search(units) or units in ("1", "none", "unknown"):
        return
    # A unit that is no length, such as "grid", may be a slip of the pen beside a standard name.
    if variable.attrs.get("standard_name") == axis and units.lower() not in (
        "m",
        "km",
        "metre",
        "meter",
        "meters",
    ):
        return
    raise CoordinateError(
        f"{axis} ({name}) is in {units!r}, which is no angle",
        where=source,
        remedy=f"Give the file a {axis} in degrees; if these are degrees, set ingest.units to {{{name}: degrees}}.",
    )


def require_true(names: tuple[str, str], variables: tuple[xr.Variable, xr.Variable], source: str) -> None:
    """Refuse axes that call themselves nominal: the true places are in maps, which the file lacks.

    Raises
    ------
    CoordinateError
        With the way to take them all the same.
    """
    if any("nominal" in str(variable.attrs.get("long_name", "")).lower() for variable in variables):
        raise CoordinateError(
            f"{names[0]} and {names[1]} are nominal latitudes and longitudes, and there are no maps of the true ones",
            where=source,
            remedy="Add the coordinates from the model's static file (geolat and geolon) to the fields; or, where the"
            f" nominal ones are true, set ingest.names to {{{names[0]}: latitude, {names[1]}: longitude}}.",
        )


def in_degrees(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Convert an angle in radians, and its cell bounds, to degrees; a dataset without radians comes back as it is."""
    variable = dataset.variables[name]
    if not is_radian(variable.attrs.get("units", "")):
        return dataset
    bounds = variable.attrs.get("bounds", variable.encoding.get("bounds"))
    converted = {}
    for key in (name, bounds):
        if not isinstance(key, str) or key not in dataset.variables:
            continue
        held = dataset.variables[key]
        # Bounds without units have those of their coordinate (CF 7.1).
        if key != name and held.attrs.get("units") and not is_radian(held.attrs["units"]):
            continue
        # Rounding of the conversion (1e-14) would keep 90 degrees from being 90; float32 holds 1e-5.
        digits = 5 if held.dtype.itemsize < 8 else 10
        values = np.round(np.degrees(np.asarray(held.values, dtype=np.float64)), digits)
        if digits == 5:
            values = values.astype(np.float32)
        converted[key] = xr.Variable(held.dims, values, {**held.attrs, "units": "degrees"}, held.encoding)
    result = dataset.assign_coords({key: v for key, v in converted.items() if key in dataset.coords})
    result = result.assign({key: v for key, v in converted.items() if key not in dataset.coords})
    result.encoding = dict(dataset.encoding)
    return result


def describes_the_same(
    latitude: xr.Variable, longitude: xr.Variable, latitudes: xr.Variable, longitudes: xr.Variable
) -> bool:
    """Return whether maps of latitude and longitude say the same as one-dimensional axes along their dimensions.

    They do to a thousandth of a degree, and to whole turns of longitude. Of large maps a sample is read.
    """
    sample = {
        dim: np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int))
        for dim, n in latitudes.sizes.items()
    }
    scale = [np.pi / 180.0 if is_radian(v.attrs.get("units", "")) else 1.0 for v in (latitude, latitudes)]
    for axis, maps, turn in ((latitude, latitudes, False), (longitude, longitudes, True)):
        values = np.asarray(axis.values, dtype=np.float64)[sample[axis.dims[0]]] / scale[0]
        wide = np.asarray(maps.isel(sample).values, dtype=np.float64) / scale[1]
        shape = [-1 if dim == axis.dims[0] else 1 for dim in maps.dims]
        apart = wide - values.reshape(shape)
        if turn:
            apart = np.mod(apart + 180.0, 360.0) - 180.0
        if not np.nanmax(np.abs(apart), initial=0.0) < 1e-3 or np.isnan(apart).all():
            return False
    return True


def require_degrees(latitude: np.ndarray, longitude: np.ndarray, said: bool, source: str) -> None:
    """Refuse one-dimensional axes whose values can hardly be degrees: indices, shares of one, radians, metres.

    Parameters
    ----------
    latitude, longitude
        (n,) and (m,), as read, degrees if anything.
    said
        Whether units or standard names say that they are.
    source
        For messages.

    Raises
    ------
    CoordinateError
        With what they look like.
    """
    spans = [float(np.ptp(axis)) if axis.size else 0.0 for axis in (latitude, longitude)]
    found = None
    steps = np.diff(longitude)
    onward = steps.size > 0 and bool(np.all(steps > 0) or np.all(steps < 0))
    around = onward and spans[1] > 360.0 + 2.5 * _step(longitude)
    if around or np.abs(longitude).max(initial=0.0) > 1080.0:
        found = f"longitudes run from {longitude.min():g} to {longitude.max():g}, more than once round"
    elif min(latitude.size, longitude.size) >= 3:
        west, step = float(longitude.min()), _step(longitude)
        whole = abs(spans[1] + step - 2.0 * np.pi) < 0.01 and (
            abs(west) < step or abs(west + np.pi) < 1.1 * step
        )
        upright = abs(spans[0] - np.pi) < 0.15 and abs(latitude.min() + latitude.max()) < 1e-3
        if whole and upright:
            found = "latitudes span pi and longitudes twice that, as radians do"
        elif not said and all(_is_count(axis) for axis in (latitude, longitude)) and longitude.size != 360:
            found = (
                f"latitudes and longitudes count from {latitude.min():g} to {latitude.max():g} and from"
                f" {longitude.min():g} to {longitude.max():g} without units, as indices do"
            )
        elif not said and all(a.min() >= 0.0 and a.max() <= 1.0 for a in (latitude, longitude)):
            found = "latitudes and longitudes lie between 0 and 1 without units, as shares of an extent do"
    if found is not None:
        raise CoordinateError(
            f"{found}, so that they are no degrees",
            where=source,
            remedy="Correct the coordinates in the file; if their units are radians, set ingest.units to"
            " {latitude: radian, longitude: radian}, and if they are degrees after all, to degrees_north and"
            " degrees_east.",
        )


def _step(axis: np.ndarray) -> float:
    return float(np.ptp(axis)) / (axis.size - 1) if axis.size > 1 else 0.0


def _is_count(axis: np.ndarray) -> bool:
    return bool(axis[0] in (0, 1) and np.array_equal(axis, axis[0] + np.arange(axis.size)))


def clean_angles(values: np.ndarray, full_turn: bool) -> np.ndarray:
    """Return coordinates in degrees as float64 with the rounding of float32 taken out.

    Values that float32 could not hold are left alone. Others, if evenly spaced to within its rounding, become
    exactly so, and a full circle's step becomes exactly 360/n.

    Parameters
    ----------
    values
        (n,) degrees, in any order.
    full_turn
        True for longitudes.
    """
    original = np.asarray(values)
    exact = original.astype(np.float64)
    if not np.array_equal(exact, exact.astype(np.float32)):
        return exact
    exact = np.round(exact, 6)
    n = exact.size
    if n < 3:
        return exact
    step = (exact[-1] - exact[0]) / (n - 1)
    if step == 0.0:
        return exact
    if full_turn and abs(abs(step) * n - 360.0) < 1e-3:
        step = np.sign(step) * 360.0 / n
    regular = exact[0] + step * np.arange(n)
    tolerance = max(2e-6, 2.0 * float(np.finfo(np.float32).eps) * np.abs(exact).max())
    return regular if np.abs(regular - exact).max() <= tolerance else exact
