"""GRIB files through ecCodes: an index of all messages, and one lazy dataset for each variable.

Every message is accounted for: variables on unequal levels or steps stay apart instead of being dropped, time and
step become valid time, and no index file is left beside the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from weathermill.errors import UnreadableSourceError
from weathermill.fields.coordinates import REDUCED
from weathermill.fields.geometry import gaussian_latitudes
from weathermill.fields.rows import RowExpansion

_FILL = 1.0e30

# Grids that are no rectangle of latitudes and longitudes: what to do about them.
_OTHER_GRIDS = {
    "reduced_gg": "a part of a reduced Gaussian grid: ask MARS for `grid=F…`, or run `cdo setgridtype,regular`",
    "reduced_ll": "a reduced latitude-longitude grid: ask MARS for a regular `grid`, or run `cdo setgridtype,regular`",
    "sh": "spherical harmonics: ask MARS for a `grid`, or run `cdo sp2gp`",
    "unstructured_grid": "an unstructured grid: interpolate it with `cdo remapcon`",
}

_SURFACES = (
    "surface",
    "meanSea",
    "heightAboveGround",
    "entireAtmosphere",
    "depthBelowLandLayer",
    "nominalTop",
)


@dataclass(frozen=True)
class _Message:
    offset: int
    length: int
    time: np.datetime64
    step_hours: float
    level: float
    number: int


@dataclass
class _Group:
    """Messages of one variable on one type of level and one grid."""

    attrs: dict[str, Any]
    grid: dict[str, Any]
    level_type: str
    messages: list[_Message] = field(default_factory=list)


def open_grib(path: Path) -> list[tuple[str, xr.Dataset]]:
    """Open a GRIB file, edition 1 or 2, lazily.

    Parameters
    ----------
    path
        A local file.

    Returns
    -------
    list of (str, xarray.Dataset)
        The short name and type of level, and the dataset, of each variable.

    Raises
    ------
    UnreadableSourceError
        Where ecCodes is not installed, a message is damaged or cut off, or a grid is not rectangular.
    """
    try:
        import eccodes  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise UnreadableSourceError(
            "this is a GRIB file, and ecCodes is not installed",
            where=str(path),
            remedy="Install the package eccodes (extra grib), or convert the file to NetCDF.",
        ) from error
    groups: dict[tuple, _Group] = {}
    for handle, offset, length in _handles(path):
        _index(handle, offset, length, groups, path)
    if not groups:
        raise UnreadableSourceError("the GRIB file holds no message", where=str(path))
    return [
        (f"{group.attrs['GRIB_shortName']}@{group.level_type}", _dataset(path, group))
        for group in groups.values()
    ]


def _handles(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (handle, offset, length) of each message; the handle is released afterwards."""
    import eccodes

    count = 0
    with path.open("rb") as file:
        while True:
            try:
                handle = eccodes.codes_grib_new_from_file(file)
            except eccodes.CodesInternalError as error:
                raise UnreadableSourceError(
                    f"message {count + 1} of the GRIB file is damaged or cut off: {error}", where=str(path)
                ) from error
            if handle is None:
                return
            count += 1
            try:
                yield (
                    handle,
                    int(eccodes.codes_get(handle, "offset", int)),
                    int(eccodes.codes_get(handle, "totalLength", int)),
                )
            finally:
                eccodes.codes_release(handle)


def _get(handle: int, key: str, kind: type | None = None, default: Any = None) -> Any:
    import eccodes

    try:
        return eccodes.codes_get(handle, key, kind) if kind else eccodes.codes_get(handle, key)
    except eccodes.CodesInternalError:
        return default


def _index(handle: int, offset: int, length: int, groups: dict[tuple, _Group], path: Path) -> None:
    grid_type = str(_get(handle, "gridType", default="unknown"))
    name = str(_get(handle, "shortName", default="unknown"))
    expansion = _expansion(handle) if grid_type == "reduced_gg" else None
    if grid_type not in ("regular_ll", "regular_gg") and expansion is None:
        reason = _OTHER_GRIDS.get(
            grid_type, f"a grid of the type {grid_type}, which is no latitude-longitude grid"
        )
        raise UnreadableSourceError(
            f"the GRIB variable {name} is on {reason.split(':')[0]}",
            where=str(path),
            remedy=(reason.split(": ", 1)[1] if ": " in reason else "interpolate it first").capitalize()
            + ".",
        )
    keys = (
        "Ni",
        "Nj",
        "iScansNegatively",
        "jScansPositively",
        "jPointsAreConsecutive",
        "alternativeRowScanning",
    )
    grid = {"gridType": grid_type} | {key: int(_get(handle, key, int, 0)) for key in keys}
    for key in ("latitudeOfFirstGridPointInDegrees", "latitudeOfLastGridPointInDegrees"):
        grid[key] = float(_get(handle, key, float))
    for key in ("longitudeOfFirstGridPointInDegrees", "longitudeOfLastGridPointInDegrees"):
        grid[key] = float(_get(handle, key, float))
    grid["N"] = int(_get(handle, "N", int, 0) or 0)
    if expansion is not None:
        grid |= {"rows": expansion.counts, "Ni": expansion.columns, "Nj": len(expansion.counts)}
    level_type = str(_get(handle, "typeOfLevel", default="unknown"))
    key = (int(_get(handle, "paramId", int, 0)), name, level_type, tuple(sorted(grid.items())))
    group = groups.get(key)
    if group is None:
        attrs = {
            "GRIB_shortName": name,
            "GRIB_paramId": key[0],
            "GRIB_typeOfLevel": level_type,
            "GRIB_stepType": str(_get(handle, "stepType", default="instant")),
            "units": str(_get(handle, "units", default="")),
            "long_name": str(_get(handle, "name", default=name)),
        }
        standard_name = str(_get(handle, "cfName", default="unknown"))
        if standard_name != "unknown":
            attrs["standard_name"] = standard_name
        group = groups[key] = _Group(attrs, grid, level_type)
    date, clock = int(_get(handle, "validityDate", int)), int(_get(handle, "validityTime", int))
    text = (
        f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}T{clock // 100:02d}:{clock % 100:02d}"
    )
    group.messages.append(
        _Message(
            offset=offset,
            length=length,
            time=np.datetime64(text, "ns"),
            step_hours=float(_get(handle, "endStep", float, 0.0) or 0.0),
            level=float(_get(handle, "level", float, 0.0) or 0.0),
            number=int(_get(handle, "number", int, 0) or 0),
        )
    )


def _expansion(handle: int) -> RowExpansion | None:
    """Return how to expand a reduced Gaussian grid, or None where it is not the whole globe from the north pole on."""
    import eccodes

    try:
        expansion = RowExpansion(tuple(int(n) for n in eccodes.codes_get_array(handle, "pl")))
    except eccodes.CodesInternalError:
        return None
    whole = len(expansion.counts) == 2 * int(_get(handle, "N", int, 0) or 0)
    turned = _get(handle, "iScansNegatively", int, 0) or _get(handle, "jScansPositively", int, 0)
    points = int(_get(handle, "numberOfDataPoints", int, 0) or 0)
    return expansion if whole and not turned and points == expansion.points else None


def _dataset(path: Path, group: _Group) -> xr.Dataset:
    messages = group.messages
    times = np.unique(np.array([m.time for m in messages]))
    # Levels stay in the order of the file, members and times ascend.
    levels = list(dict.fromkeys(m.level for m in messages))
    numbers = sorted({m.number for m in messages})
    table: dict[tuple[int, int, int], _Message] = {}
    for message in messages:
        place = (
            numbers.index(message.number),
            int(np.searchsorted(times, message.time)),
            levels.index(message.level),
        )
        known = table.get(place)
        # Of several forecasts for one time the one from the latest start counts, an analysis before all.
        if known is None or message.step_hours < known.step_hours:
            table[place] = message
    on_levels = group.level_type not in _SURFACES or len(levels) > 1
    array = _GribArray(path, group.grid, table, (len(numbers), times.size, len(levels)))
    data = indexing.LazilyIndexedArray(array)
    level_name = {"isobaricInhPa": "level", "isobaricInPa": "level"}.get(group.level_type, group.level_type)
    level_units = {"isobaricInhPa": "hPa", "isobaricInPa": "Pa"}.get(group.level_type)
    latitude, longitude = _coordinates(group.grid, path)
    variable = xr.Variable(("number", "time", level_name, "latitude", "longitude"), data, group.attrs)
    # Selecting is lazy too: lengths of one are taken out where they say nothing.
    if len(numbers) == 1:
        variable = variable.isel(number=0)
    if not on_levels:
        variable = variable.isel({level_name: 0})
    coords: dict[str, Any] = {
        "time": times,
        "latitude": ("latitude", latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    if on_levels:
        attrs = {"units": level_units} if level_units else {}
        coords[level_name] = (level_name, np.array(levels), attrs)
    variable.encoding["preferred_chunks"] = {"time": 1}
    rows = group.grid.get("rows")
    attrs = {} if rows is None else {REDUCED: RowExpansion(rows).name}
    return xr.Dataset({group.attrs["GRIB_shortName"]: variable}, coords=coords, attrs=attrs)


def _coordinates(grid: dict[str, Any], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes and longitudes in the order in which the message has them."""
    first, last = grid["latitudeOfFirstGridPointInDegrees"], grid["latitudeOfLastGridPointInDegrees"]
    rows, columns = grid["Nj"], grid["Ni"]
    if "rows" in grid:
        return np.array(gaussian_latitudes(rows)[0]), np.arange(columns) * 360.0 / columns
    if grid["gridType"] == "regular_gg":
        gaussian, _ = gaussian_latitudes(2 * grid["N"])
        start = int(np.argmin(np.abs(gaussian - max(first, last))))
        latitude = np.array(gaussian[start : start + rows])
        if latitude.size != rows or abs(latitude[-1] - min(first, last)) > 1e-2:
            raise UnreadableSourceError(
                "the Gaussian latitudes of the GRIB file do not fit its grid", where=str(path)
            )
        if first < last:
            latitude = latitude[::-1].copy()
    else:
        latitude = np.linspace(first, last, rows)
    west, east = grid["longitudeOfFirstGridPointInDegrees"], grid["longitudeOfLastGridPointInDegrees"]
    if grid["iScansNegatively"]:
        west = west + 360.0 if west <= east else west
    elif east <= west:
        east += 360.0
    longitude = np.linspace(west, east, columns)
    # A full circle's step is exact, which the rounded last longitude of edition 1 is not.
    if columns > 2 and abs(abs(longitude[1] - longitude[0]) * columns - 360.0) < 0.1:
        longitude = west + np.sign(longitude[1] - longitude[0]) * 360.0 / columns * np.arange(columns)
    return latitude, longitude


class _GribArray(BackendArray):
    """(member, time, level, latitude, longitude) of one variable, whose messages are decoded when asked for."""

    def __init__(self, path: Path, grid: dict[str, Any], table: dict, leading: tuple[int, int, int]) -> None:
        self.path = path
        self.grid = grid
        self.table = table
        self.shape = (*leading, grid["Nj"], grid["Ni"])
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        chosen = [
            np.arange(n)[k] if not isinstance(k, int | np.integer) else np.array([int(k)])
            for k, n in zip(key, self.shape, strict=True)
        ]
        out = np.full([c.size for c in chosen], np.nan, dtype=self.dtype)
        with self.path.open("rb") as file:
            for i, member in enumerate(chosen[0]):
                for j, time in enumerate(chosen[1]):
                    for k, level in enumerate(chosen[2]):
                        message = self.table.get((int(member), int(time), int(level)))
                        if message is not None:
                            field = _decode(file, message, self.grid)
                            out[i, j, k] = field[np.ix_(chosen[3], chosen[4])]
        dropped = tuple(i for i, k in enumerate(key) if isinstance(k, int | np.integer))
        return out.squeeze(axis=dropped) if dropped else out


def _decode(file: Any, message: _Message, grid: dict[str, Any]) -> np.ndarray:
    """Return (latitude, longitude) float32 of one message, missing values as NaN."""
    import eccodes

    file.seek(message.offset)
    handle = eccodes.codes_new_from_message(file.read(message.length))
    try:
        eccodes.codes_set(handle, "missingValue", _FILL)
        values = eccodes.codes_get_values(handle)
    except eccodes.CodesInternalError as error:
        raise OSError(f"the GRIB message at byte {message.offset} cannot be decoded: {error}") from error
    finally:
        eccodes.codes_release(handle)
    if "rows" in grid:
        return RowExpansion(grid["rows"])(np.where(values == _FILL, np.nan, values)).astype(np.float32)
    if grid["jPointsAreConsecutive"]:
        field = values.reshape(grid["Ni"], grid["Nj"]).T
    else:
        field = values.reshape(grid["Nj"], grid["Ni"])
    if grid["alternativeRowScanning"]:
        field[1::2] = field[1::2, ::-1]
    return np.where(field == _FILL, np.nan, field).astype(np.float32)
