"""The grid of a GRIB message: its coordinates, and the order in which its values come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weathermill.errors import UnreadableSourceError
from weathermill.fields.geometry import gaussian_latitudes
from weathermill.fields.projections import (
    Figure,
    lambert,
    mercator_latitudes,
    polar_stereographic,
    rotated,
)
from weathermill.fields.rows import RowExpansion

# Grids that are no rectangle of points: what they are, and what to do about them.
_OTHER_GRIDS = {
    "reduced_gg": (
        "a part of a reduced Gaussian grid",
        "Ask MARS for `grid=F…`, or run `cdo setgridtype,regular`.",
    ),
    "reduced_ll": (
        "a reduced latitude-longitude grid",
        "Ask MARS for a regular `grid`, or run `cdo setgridtype,regular`.",
    ),
    "sh": ("spherical harmonics", "Ask MARS for a `grid`, or run `cdo sp2gp`."),
    "unstructured_grid": ("an unstructured grid", "Interpolate it with `cdo remapcon`."),
    "healpix": ("a HEALPix grid", "Interpolate it with `cdo remapcon`."),
}
_PROJECTED = ("lambert", "polar_stereographic", "mercator", "rotated_ll")


@dataclass(frozen=True, eq=False)
class GribGrid:
    """Coordinates in the order of the values, once these are arranged.

    Attributes
    ----------
    shape
        Rows and columns.
    latitude, longitude
        Degrees: (rows,) and (columns,), or both (rows, columns).
    columns_first
        Whether points of one column follow each other in the message.
    alternating
        Whether every second row (or column) runs backwards.
    expansion
        Of a reduced Gaussian grid, or None.
    winds_along_grid
        Whether vector components are along the grid's own axes instead of east and north.
    """

    shape: tuple[int, int]
    latitude: np.ndarray
    longitude: np.ndarray
    columns_first: bool = False
    alternating: bool = False
    expansion: RowExpansion | None = None
    winds_along_grid: bool = False

    @cached_property
    def identity(self) -> str:
        """A digest of the coordinates in their order."""
        digest = hashlib.sha256(str((self.shape, self.latitude.ndim, self.winds_along_grid)).encode())
        digest.update(np.ascontiguousarray(self.latitude).tobytes())
        digest.update(np.ascontiguousarray(self.longitude).tobytes())
        return digest.hexdigest()

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Return the values of a message, float64 with NaN where missing, as (rows, columns)."""
        if self.expansion is not None:
            return self.expansion(values)
        rows, columns = self.shape
        field = values.reshape((columns, rows) if self.columns_first else (rows, columns))
        if self.alternating:
            field = field.copy()
            field[1::2] = field[1::2, ::-1]
        return field.T if self.columns_first else field


def read_grid(handle: int, path: Path, name: str) -> GribGrid | UnreadableSourceError:
    """Return the grid of a message, or why its values cannot be used.

    Parameters
    ----------
    handle
        ecCodes's.
    path, name
        The file and the variable, for messages.

    Raises
    ------
    UnreadableSourceError
        Where a grid of a known type contradicts itself.
    """
    kind = str(get(handle, "gridType", str, "unknown"))
    winds = bool(int(get(handle, "resolutionAndComponentFlags", int, 0) or 0) & 0x08)
    if kind == "reduced_gg":
        expansion = _expansion(handle)
        if expansion is not None:
            rows, columns = len(expansion.counts), expansion.columns
            latitude = np.array(gaussian_latitudes(rows)[0])
            longitude = np.arange(columns) * 360.0 / columns
            return GribGrid((rows, columns), latitude, longitude, expansion=expansion)
    if kind not in ("regular_ll", "regular_gg", *_PROJECTED):
        what, remedy = _OTHER_GRIDS.get(
            kind, (f"a grid of the type {kind}, which is not supported", "Interpolate it first.")
        )
        return UnreadableSourceError(f"the GRIB variable {name} is on {what}", where=str(path), remedy=remedy)
    if kind == "mercator" and _degrees(handle, "orientationOfTheGrid"):
        return UnreadableSourceError(
            f"the GRIB variable {name} is on a Mercator grid that is turned against the equator",
            where=str(path),
            remedy="Interpolate it first, with `cdo remapbil` or wgrib2's `-new_grid`.",
        )
    shape = int(get(handle, "Nj", int, 0)), int(get(handle, "Ni", int, 0))
    if kind == "regular_ll":
        latitude, longitude = _regular_latitudes(handle, shape[0]), _longitudes(handle, shape[1])
    elif kind == "regular_gg":
        latitude, longitude = _gaussian_latitudes(handle, shape[0], path), _longitudes(handle, shape[1])
    else:
        latitude, longitude = _projected(handle, kind, shape)
    return GribGrid(
        shape,
        latitude,
        longitude,
        columns_first=bool(get(handle, "jPointsAreConsecutive", int, 0)),
        alternating=bool(get(handle, "alternativeRowScanning", int, 0)),
        winds_along_grid=winds,
    )


def get(handle: int, key: str, kind: type, default: Any = None) -> Any:
    """Return a key of a message, or the default where it is not there."""
    import eccodes

    try:
        return eccodes.codes_get(handle, key, kind)
    except eccodes.CodesInternalError:
        return default


def _expansion(handle: int) -> RowExpansion | None:
    """Return how to expand a reduced Gaussian grid, or None where it is not the whole globe from the north pole on."""
    import eccodes

    try:
        expansion = RowExpansion(tuple(int(n) for n in eccodes.codes_get_array(handle, "pl")))
    except eccodes.CodesInternalError:
        return None
    whole = len(expansion.counts) == 2 * int(get(handle, "N", int, 0) or 0)
    turned = get(handle, "iScansNegatively", int, 0) or get(handle, "jScansPositively", int, 0)
    points = int(get(handle, "numberOfDataPoints", int, 0) or 0)
    return expansion if whole and not turned and points == expansion.points else None


def _degrees(handle: int, key: str) -> float:
    return float(get(handle, f"{key}InDegrees", float, 0.0))


def _regular_latitudes(handle: int, rows: int) -> np.ndarray:
    first, last = (_degrees(handle, f"latitudeOf{end}GridPoint") for end in ("First", "Last"))
    return np.linspace(first, last, rows)


def _gaussian_latitudes(handle: int, rows: int, path: Path) -> np.ndarray:
    first, last = (_degrees(handle, f"latitudeOf{end}GridPoint") for end in ("First", "Last"))
    gaussian, _ = gaussian_latitudes(2 * int(get(handle, "N", int, 0) or 0))
    start = int(np.argmin(np.abs(gaussian - max(first, last))))
    latitude = np.array(gaussian[start : start + rows])
    if latitude.size != rows or abs(latitude[-1] - min(first, last)) > 1e-2:
        raise UnreadableSourceError(
            "the Gaussian latitudes of the GRIB file do not fit its grid", where=str(path)
        )
    return latitude[::-1].copy() if first < last else latitude


def _longitudes(handle: int, columns: int) -> np.ndarray:
    first, last = (_degrees(handle, f"longitudeOf{end}GridPoint") for end in ("First", "Last"))
    if get(handle, "iScansNegatively", int, 0):
        first = first + 360.0 if first <= last else first
    elif last <= first and columns > 1:
        last += 360.0
    longitude = np.linspace(first, last, columns)
    # A full circle's step is exact, which the rounded last longitude of edition 1 is not.
    if columns > 2 and abs(abs(longitude[1] - longitude[0]) * columns - 360.0) < 0.1:
        longitude = first + np.sign(longitude[1] - longitude[0]) * 360.0 / columns * np.arange(columns)
    return longitude


def _figure(handle: int) -> Figure:
    if get(handle, "earthIsOblate", int, 0):
        major, minor = (
            float(get(handle, f"earth{axis}AxisInMetres", float, 0.0) or 0.0) for axis in ("Major", "Minor")
        )
        return Figure.of_axes(major, minor) if major and minor else Figure.of_axes(6378160.0, 6356775.0)
    return Figure(float(get(handle, "radius", float, 6367470.0) or 6367470.0))


def _projected(handle: int, kind: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes and longitudes of a projected grid in the order of its scanning.

    ecCodes's own iterator lets x and y always ascend from the first point, whatever the scanning mode.
    """
    rows, columns = shape
    first = _degrees(handle, "latitudeOfFirstGridPoint"), _degrees(handle, "longitudeOfFirstGridPoint")
    if kind == "rotated_ll":
        grid = np.meshgrid(_regular_latitudes(handle, rows), _longitudes(handle, columns), indexing="ij")
        pole = _degrees(handle, "latitudeOfSouthernPole"), _degrees(handle, "longitudeOfSouthernPole")
        return rotated(grid[0], grid[1], pole, float(get(handle, "angleOfRotationInDegrees", float, 0.0)))
    figure = _figure(handle)
    prefix = "Di", "Dj"
    if kind != "mercator":
        prefix = "Dx", "Dy"
    dx, dy = (float(get(handle, f"{name}InMetres", float, 0.0)) for name in prefix)
    dx = -dx if get(handle, "iScansNegatively", int, 0) else dx
    dy = dy if get(handle, "jScansPositively", int, 0) else -dy
    true_scale = _degrees(handle, "LaD")
    if kind == "mercator":
        # Columns are even in longitude, rows are not in latitude.
        return mercator_latitudes(figure, true_scale, first[0], dy, rows), _longitudes(handle, columns)
    if kind == "lambert":
        parallels = _degrees(handle, "Latin1"), _degrees(handle, "Latin2")
        projection = lambert(figure, _degrees(handle, "LoV"), *parallels)
    else:
        south = bool(int(get(handle, "projectionCentreFlag", int, 0) or 0) & 0x80)
        orientation = _degrees(handle, "orientationOfTheGrid")
        projection = polar_stereographic(figure, orientation, true_scale, south=south)
    x, y = projection.forward(*first)
    return projection.inverse(*np.meshgrid(x + dx * np.arange(columns), y + dy * np.arange(rows)))
