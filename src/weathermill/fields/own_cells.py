"""Cells of rectilinear grids whose corners a file says to lie elsewhere than midway between points, and their areas."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence

import numpy as np
import xarray as xr

from weathermill.errors import GridError
from weathermill.fields.coordinates import LATITUDE, LONGITUDE, find_coordinate
from weathermill.fields.file_cells import bounds_of
from weathermill.fields.findings import Finding, tell
from weathermill.fields.geometry import (
    area_weights,
    bounds_from,
    corners_of,
    latitude_corners,
    longitude_corners,
)
from weathermill.fields.layout import HorizontalOrder
from weathermill.fields.survey import Source

# Corners that lie closer together are equal but for rounding: of float32 degrees, and of decimals.
_ROUNDING_DEGREES, _ROUNDING_SHARE = 5e-5, 1e-3
_INFERRED = {LATITUDE: latitude_corners, LONGITUDE: longitude_corners}


def differing(corners: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """Return by how many degrees corners differ, (n + 1,) float64; None where by no more than rounding.

    Rounding is 5e-5 degrees and a thousandth of the smallest cell.
    """
    apart = np.abs(corners - others)
    return (
        apart if apart.max() > _ROUNDING_DEGREES + _ROUNDING_SHARE * np.abs(np.diff(others)).min() else None
    )


def with_own_cells(fields: xr.Dataset, corners: dict[str, np.ndarray]) -> xr.Dataset:
    """Add ``latitude_bounds`` and ``longitude_bounds`` (n, 2), in degrees, to fields where corners are not the inferred ones.

    Parameters
    ----------
    fields
        With one-dimensional latitude and longitude.
    corners
        Of an axis, by its name, (n + 1,) degrees.
    """
    for axis, given in corners.items():
        if fields[axis].size < 2 or differing(given, _INFERRED[axis](fields[axis].values)) is None:
            continue
        name = f"{axis}_bounds"
        fields = fields.assign_coords(
            {name: ((axis, "bounds"), bounds_from(given)), axis: fields[axis].assign_attrs(bounds=name)}
        )
    return fields


def corners_of_grid(grid: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the corners of both axes of a rectilinear grid, from its bounds; an axis without bounds is left out."""
    found = {}
    for axis in (LATITUDE, LONGITUDE):
        if f"{axis}_bounds" in grid.variables:
            given = corners_of(grid[f"{axis}_bounds"].values, grid[axis].values, axis=axis)
            found[axis] = np.clip(given, -90.0, 90.0) if axis == LATITUDE else given
    return found


def corners_of_sources(
    sources: Sequence[Source], order: HorizontalOrder, findings: MutableSequence[Finding] | None = None
) -> dict[str, np.ndarray]:
    """Return the corners that sources give for the cells of their common grid, in canonical order.

    Parameters
    ----------
    sources
        On one rectilinear grid. The first that has bounds is followed.
    order
        The grid.
    findings
        Where to record corners that are not those midway between points, that make no cells, or of which sources differ.

    Returns
    -------
    dict
        (n + 1,) degrees by axis; an axis without usable bounds is left out.
    """
    found: dict[str, np.ndarray] = {}
    for axis, centres in ((LATITUDE, order.latitude), (LONGITUDE, order.longitude)):
        if centres.size < 2:
            continue
        first = ""
        for source, given in _corners_by_source(axis, centres, sources, findings):
            if not first:
                found[axis], first = given, source
            elif (apart := differing(given, found[axis])) is not None:
                tell(
                    findings,
                    "warning",
                    "grid",
                    f"the cells of {source} differ from those of {first} by up to {apart.max():.3g} degrees of {axis}, though"
                    f" their points agree; those of {first} count",
                    "Correct the bounds of one of the files.",
                )
                break
        if first and (apart := differing(found[axis], _INFERRED[axis](centres))) is not None:
            at = int(np.argmax(apart))
            tell(
                findings,
                "info",
                "grid",
                f"the cells of {first} do not meet midway between its points: its bounds lie up to {apart.max():.3g} degrees"
                f" away, at {axis} {found[axis][at]:g}; they count in regridding and in area means",
            )
    return found


def _corners_by_source(
    axis: str, centres: np.ndarray, sources: Iterable[Source], findings: MutableSequence[Finding] | None
) -> Iterable[tuple[str, np.ndarray]]:
    told = False
    for source in sources:
        name = find_coordinate(source.raw, axis)
        bounds = None if name is None else bounds_of(source.raw, source.raw[name])
        if bounds is None:
            continue
        index = source.order.rows if axis == LATITUDE else source.order.columns
        try:
            given = corners_of(bounds[index], centres, axis=axis, where=source.name)
        except GridError as error:
            if not told:
                told = True
                tell(
                    findings,
                    "warning",
                    "grid",
                    f"{source.name}: {error.what}; cells are taken to meet midway between points",
                    error.remedy or "",
                )
            continue
        yield source.name, np.clip(given, -90.0, 90.0) if axis == LATITUDE else given


def same_points(grid: xr.Dataset, other: xr.Dataset) -> bool:
    """Return whether two rectilinear grids have the same points to 1e-6 degrees, whatever their cells are."""
    for axis in (LATITUDE, LONGITUDE):
        a, b = grid[axis], other[axis]
        if a.dims != (axis,) or b.dims != (axis,) or a.size != b.size:
            return False
        if not np.allclose(a.values, b.values, rtol=0.0, atol=1.5e-6):
            return False
    return True


def area_weights_of(fields: xr.Dataset) -> np.ndarray:
    """Return the weights of cells by their exact areas, with mean one, from bounds where fields have them.

    Parameters
    ----------
    fields
        With one-dimensional latitude and longitude in degrees.

    Returns
    -------
    numpy.ndarray
        (latitude,) float64; (latitude, longitude) where the widths of the columns differ by more than a thousandth.
    """
    corners = corners_of_grid(fields)
    rows = area_weights(fields[LATITUDE].values, latitude_bounds=corners.get(LATITUDE))
    longitude = fields[LONGITUDE].values
    if longitude.size < 2:
        return rows
    widths = np.abs(np.diff(corners[LONGITUDE] if LONGITUDE in corners else longitude_corners(longitude)))
    if np.ptp(widths) <= _ROUNDING_SHARE * widths.mean():
        return rows
    weights = rows[:, None] * widths
    return weights / weights.mean()
