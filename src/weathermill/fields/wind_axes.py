"""Winds along a grid's axes: which they are, whether they can be used, and turning them to east and north."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, GridError
from weathermill.fields.cell_vertices import unit_vectors
from weathermill.fields.coordinates import CURVILINEAR, LATITUDE, find_coordinate
from weathermill.fields.findings import Finding, tell
from weathermill.fields.grid_angles import AxisDirections, grid_angle, turn
from weathermill.fields.vocabulary import WindAxes, split_flat_name
from weathermill.fields.wind_statements import is_component_along_grid, said_axes

if TYPE_CHECKING:
    from weathermill.fields.recognition import Offer
    from weathermill.fields.survey import Source

_EASTWARD, _NORTHWARD = "u_component_of_wind", "v_component_of_wind"

_X_NAMES = (
    "x",
    "i",
    "rlon",
    "west_east",
    "ni",
    "nx",
    "nlon",
    "xc",
    "xh",
    "lon",
    "longitude",
    "xi_rho",
    "x_0",
    "col",
)
_Y_NAMES = (
    "y",
    "j",
    "rlat",
    "south_north",
    "nj",
    "ny",
    "nlat",
    "yc",
    "yh",
    "lat",
    "latitude",
    "eta_rho",
    "y_0",
    "row",
)
_X_STANDARD_NAMES = ("projection_x_coordinate", "grid_longitude")
_Y_STANDARD_NAMES = ("projection_y_coordinate", "grid_latitude")

_SETTLE = (
    "Set ingest.winds to grid (along the axes of the grid) or to east_and_north, whichever holds; or give it in the file the"
    " standard name x_wind or y_wind, or eastward_wind or northward_wind."
)

_angles: OrderedDict[str, np.ndarray | GridError] = OrderedDict()


def partner_of(name: str) -> str | None:
    """Return the other component of a horizontal wind by its canonical or flat name, or None for other fields."""
    for mine, other in ((_EASTWARD, _NORTHWARD), (_NORTHWARD, _EASTWARD)):
        if mine in name:
            return name.replace(mine, other)
    return None


def settle_winds(
    surveyed: Sequence[Source],
    winds: WindAxes = "as_said",
    findings: MutableSequence[Finding] | None = None,
) -> None:
    """Give winds that lie along a grid's axes the angle to turn them by, or the reason why they cannot be used.

    Parameters
    ----------
    surveyed
        All sources; their offers are replaced. On latitude-longitude grids the axes are east and north already.
    winds
        Along which axes winds on curvilinear grids lie, whatever the sources say.
    findings
        Where to record what is passed over: winds along the grid beside the same to east and north.
    """
    faults: dict[str, Offer] = {}
    for source in surveyed:
        offers = []
        for offer in source.offers:
            judged = offer if offer.problem else _judged(offer, source, winds)
            if judged.problem and not offer.problem:
                faults.setdefault(judged.variable, judged)
            offers.append(judged)
        source.offers = _without_doubles(offers, findings)
    for source in surveyed:
        for offer in source.offers:
            if offer.angle is not None and offer.variable not in faults:
                problem, remedy = _problem_of_partner(offer, source, surveyed)
                if problem:
                    faults[offer.variable] = replace(offer, problem=problem, remedy=remedy)
                    faults.setdefault(str(partner_of(offer.variable)), faults[offer.variable])
    # A wind that one of its sources lacks would be short of that source's times, and nobody be told.
    for source in surveyed:
        source.offers = [
            replace(offer, problem=faults[offer.variable].problem, remedy=faults[offer.variable].remedy)
            if offer.variable in faults and not offer.problem
            else offer
            for offer in source.offers
        ]


def with_partners(names: Iterable[str], surveyed: Sequence[Source]) -> list[str]:
    """Return names to read, with the other component of each wind that must be turned."""
    names = list(names)
    along_grid = {offer.variable for s in surveyed for offer in s.offers if offer.angle is not None}
    for name in list(names):
        flat = split_flat_name(name)
        partner = partner_of(name)
        if (flat[0] if flat else name) in along_grid and partner and partner not in names:
            names.append(partner)
    return names


def turn_winds(
    fields: xr.Dataset,
    offers: Mapping[str, Sequence[Offer]],
    findings: MutableSequence[Finding] | None = None,
) -> xr.Dataset:
    """Turn winds along the grid's axes to east and north, lazily, block by block.

    Parameters
    ----------
    fields
        Canonical fields, with both components of each wind to turn.
    offers
        By canonical name, what the fields were made of.
    findings
        Where to record what was turned.

    Raises
    ------
    CoordinateError
        Where sources of one wind, or its two components, lie along different axes.
    """
    for name in [str(name) for name in fields.data_vars if _EASTWARD in str(name)]:
        partner = str(partner_of(name))
        pieces = [offer for component in (name, partner) for offer in offers.get(component, ())]
        angles = [offer.angle for offer in pieces if offer.angle is not None]
        if not angles or partner not in fields.data_vars:
            continue
        if len(angles) < len(pieces) or any(not np.allclose(a, angles[0], atol=1e-3) for a in angles[1:]):
            labels = list(dict.fromkeys(offer.label for offer in pieces))
            raise CoordinateError(
                f"{name} and {partner} lie along the axes of the grid in one source, and to east and north in another",
                where=", ".join(labels[:3]) + (", …" if len(labels) > 3 else ""),
                remedy=f"Ingest the sources one by one. {_SETTLE}",
            )
        degrees = np.degrees(angles[0])
        eastward, northward = turn(fields[name].data, fields[partner].data, angles[0])
        for component, array in ((name, eastward), (partner, northward)):
            attrs = fields[component].attrs | {
                "comment": "turned from the axes of the grid to east and north"
            }
            fields[component] = (fields[component].dims, array, attrs)
        tell(
            findings,
            "info",
            name,
            f"turned, with {partner}, from the axes of the grid to east and north, by {degrees.min():.3g} to"
            f" {degrees.max():.3g} degrees ({pieces[0].said_axes})",
        )
    return fields


def _judged(offer: Offer, source: Source, winds: WindAxes) -> Offer:
    """Return an offer with the angle of its grid, or with the problem that it has."""
    curvilinear = CURVILINEAR[LATITUDE] in source.dataset.coords
    if partner_of(offer.variable) is None:
        if curvilinear and is_component_along_grid(offer.array):
            return replace(
                offer,
                problem="it is a component of a vector along the axes of a curvilinear grid, and only winds that the"
                " vocabulary knows are turned to east and north",
                remedy="Turn it before, or leave it out.",
            )
        return offer
    mapping = _grid_mapping(offer.array, source.raw)
    if not curvilinear:
        if not _has_rotated_axes(offer, mapping):
            return offer
        return replace(
            offer,
            problem="its grid is said to have a rotated pole, while latitude and longitude are plain axes",
            remedy="Give the file true latitudes and longitudes (y, x), or remove the attribute grid_mapping.",
        )
    axes, said = said_axes(offer.array, source.attrs, offer.file_name)
    if winds != "as_said":
        axes, said = winds, f"ingest.winds: {winds}"
    if axes == "east_and_north":
        return offer
    if axes != "grid":
        if _runs_east(offer, source):
            return offer
        reason = f"the file contradicts itself ({said})" if said else "nothing says which"
        return replace(
            offer,
            problem="on its curvilinear grid it may lie along the axes of the grid or to east and north, and "
            + reason,
            remedy=_SETTLE,
        )
    try:
        return replace(offer, angle=_angle(offer, source, mapping), said_axes=said)
    except GridError as error:
        problem = f"it lies along the axes of the grid ({said}), and {error.what}"
        return replace(offer, problem=problem, remedy=error.remedy or "")


def _without_doubles(offers: Sequence[Offer], findings: MutableSequence[Finding] | None) -> list[Offer]:
    """Leave out winds along the grid where the same file has them to east and north too."""
    kept = []
    for offer in offers:
        ready = [
            other
            for other in offers
            if offer.angle is not None
            and other.angle is None
            and not other.problem
            and other.variable == offer.variable
            and _same_levels(other, offer)
        ]
        if ready:
            tell(
                findings,
                "info",
                offer.variable,
                f"{offer.label} lies along the axes of the grid and is passed over: {ready[0].file_name} lies to east and"
                " north",
            )
        else:
            kept.append(offer)
    return kept


def _same_levels(a: Offer, b: Offer) -> bool:
    if a.levels is None or b.levels is None:
        return a.levels is b.levels
    return np.array_equal(a.levels, b.levels)


def _runs_east(offer: Offer, source: Source) -> bool:
    """Whether the x axis of a curvilinear grid runs east everywhere, so that it does not matter which axes are meant."""
    directions = _directions(offer.array, source.raw) or AxisDirections()
    along = directions.x_dimension
    if np.ptp(source.order.latitude, axis=along).max() > 1e-4:
        return False
    steps = np.mod(np.diff(source.order.longitude, axis=along) + 180.0, 360.0) - 180.0
    return bool((steps * directions.x > 0).all())


def _has_rotated_axes(offer: Offer, mapping: Mapping[str, Any]) -> bool:
    """Whether the grid is said to be rotated, so that what is called latitude and longitude cannot be that."""
    if "rotated" in str(offer.array.attrs.get("GRIB_gridType", "")):
        return True
    pole = float(np.asarray(mapping.get("grid_north_pole_latitude", 90.0)).reshape(-1)[0])
    return mapping.get("grid_mapping_name") == "rotated_latitude_longitude" and pole < 90.0


def _grid_mapping(array: xr.DataArray, raw: xr.Dataset) -> Mapping[str, Any]:
    named = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping"))
    for name in re.split(r"[:\s]+", str(named)) if named else ():
        if name in raw.variables and "grid_mapping_name" in raw[name].attrs:
            return raw[name].attrs
    mappings = [v.attrs for v in raw.variables.values() if "grid_mapping_name" in v.attrs]
    return mappings[0] if len(mappings) == 1 else {}


def _angle(offer: Offer, source: Source, mapping: Mapping[str, Any]) -> np.ndarray:
    """Return the angle of a source's grid; many files of one grid share one array."""
    points = source.order.latitude, source.order.longitude
    directions = _directions(offer.array, source.raw)
    relevant = sorted((str(key), str(value)) for key, value in mapping.items())
    digest = hashlib.sha256(repr((points[0].shape, directions, relevant)).encode())
    for array in points:
        digest.update(np.ascontiguousarray(array).tobytes())
    key = digest.hexdigest()
    if key not in _angles:
        try:
            _angles[key] = grid_angle(*points, directions, mapping)
        except GridError as error:
            _angles[key] = error
        while len(_angles) > 4:
            _angles.popitem(last=False)
    found = _angles[key]
    if isinstance(found, GridError):
        raise found
    return found


def _directions(array: xr.DataArray, raw: xr.Dataset) -> AxisDirections | None:
    """Return which dimension of the coordinates is x and which way x and y grow, or None where nothing says so."""
    dims = [str(dim) for dim in raw[find_coordinate(raw, LATITUDE)].dims]
    kinds = [_kind_of_axis(dim, raw) for dim in dims]
    if "x" in kinds:
        x = kinds.index("x")
    elif "y" in kinds:
        x = 1 - kinds.index("y")
    else:
        return None
    ways = [_way(dim, raw) for dim in dims]
    if ways[x] == 0:
        ways[x] = -1 if int(array.attrs.get("GRIB_iScansNegatively", 0)) else 1
    return AxisDirections(x, ways[x], ways[1 - x])


def _kind_of_axis(dim: str, raw: xr.Dataset) -> str | None:
    attrs = raw[dim].attrs if dim in raw.variables else {}
    for kind, standard_names in (("x", _X_STANDARD_NAMES), ("y", _Y_STANDARD_NAMES)):
        if attrs.get("standard_name") in standard_names or str(attrs.get("axis", "")).lower() == kind:
            return kind
    return "x" if dim.lower() in _X_NAMES else ("y" if dim.lower() in _Y_NAMES else None)


def _way(dim: str, raw: xr.Dataset) -> int:
    """Return 1 or -1 as the values of a dimension's coordinate grow or fall along it, 0 without values."""
    if dim not in raw.variables or raw[dim].ndim != 1 or not np.issubdtype(raw[dim].dtype, np.number):
        return 0
    return int(np.sign(np.median(np.diff(raw[dim].values.astype(np.float64))))) if raw[dim].size > 1 else 0


def _problem_of_partner(offer: Offer, source: Source, surveyed: Sequence[Source]) -> tuple[str, str]:
    """Return why a wind cannot be turned for want of its other component, with the remedy, or empty strings."""
    partner = partner_of(offer.variable)
    others = [(o, s) for s in surveyed for o in s.offers if o.variable == partner]
    text = f"it lies along the axes of the grid ({offer.said_axes}), and turning it to east and north needs {partner}"
    if not others:
        return f"{text}, which no source has", f"Add the file that holds {partner}."
    if all(other.angle is None for other, _ in others):
        other = others[0][0]
        if other.problem:
            return f"{text}, which cannot be used: {other.problem}", other.remedy
        return f"{text}, which lies to east and north already", _SETTLE
    if not any(o.angle is not None and _same_points(s, source) for o, s in others):
        return (
            f"{text}, which lies on other points: the grid is staggered",
            "Bring both components to the same points first.",
        )
    return "", ""


def _same_points(a: Source, b: Source) -> bool:
    if a is b:
        return True
    if a.order.latitude.shape != b.order.latitude.shape:
        return False
    here, there = (unit_vectors(s.order.latitude, s.order.longitude) for s in (a, b))
    step = min(np.median(np.linalg.norm(np.diff(here, axis=axis), axis=-1)) for axis in (0, 1))
    return bool(np.linalg.norm(here - there, axis=-1).max() <= 0.01 * step)
