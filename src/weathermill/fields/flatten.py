"""Canonical fields to channels and back: one channel is one variable on one level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, MissingVariableError, ParameterError
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.vocabulary import CONVENTIONS, convention_for, flat_name, split_flat_name

CHANNEL = "channel"
ROLES = ("prognostic", "forcing", "static")


def channel_table(
    fields: xr.Dataset,
    *,
    prognostic: Sequence[str],
    forcing: Sequence[str] = (),
    static: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the channels that variables make, in order.

    Parameters
    ----------
    fields
        Canonical fields.
    prognostic, forcing, static
        Variable names. The order of the names is kept; levels of one variable ascend; prognostic channels come
        first, then forcings, then statics.

    Returns
    -------
    list of dict
        ``name`` (``geopotential_500``), ``variable``, ``level`` (hPa or None), ``role``, ``units``.

    Raises
    ------
    MissingVariableError
        Where a variable is not among the fields.
    ParameterError
        Where a variable is given twice, or none is prognostic.
    """
    names = [*prognostic, *forcing, *static]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ParameterError(f"variables have more than one role: {', '.join(repeated)}")
    if not prognostic:
        raise ParameterError("no variable is prognostic")
    table = []
    for role, group in zip(ROLES, (prognostic, forcing, static), strict=True):
        for name in group:
            if name not in fields.data_vars:
                raise MissingVariableError(
                    f"{name} is not among the fields: {', '.join(sorted(map(str, fields.data_vars)))}",
                    remedy="Name it among the variables of the ingest stage.",
                )
            table.extend(_channels_of(fields[name], role))
    return table


def _channels_of(field: xr.DataArray, role: str) -> list[dict[str, Any]]:
    name = str(field.name)
    expected = {LATITUDE, LONGITUDE} | (set() if role == "static" else {TIME})
    missing = expected - set(map(str, field.dims))
    extra = set(map(str, field.dims)) - expected - {LEVEL}
    if missing or extra:
        raise CoordinateError(
            f"{name} has the dimensions {field.dims}, which do not fit a {role} channel",
            remedy="A static field has no time; all others have one." if TIME in missing | extra else None,
        )
    units = str(field.attrs.get("units", ""))
    if LEVEL in field.dims:
        levels = [float(level) for level in field[LEVEL].values]
        return [
            {"name": flat_name(name, level), "variable": name, "level": level, "role": role, "units": units}
            for level in sorted(levels)
        ]
    flat = None if name in CONVENTIONS else split_flat_name(name)
    variable, level = flat if flat else (name, None)
    return [{"name": name, "variable": variable, "level": level, "role": role, "units": units}]


def to_channels(
    fields: xr.Dataset,
    *,
    prognostic: Sequence[str],
    forcing: Sequence[str] = (),
    static: Sequence[str] = (),
) -> tuple[xr.DataArray, list[dict[str, Any]]]:
    """Stack canonical fields into channels, lazily.

    Parameters
    ----------
    fields
        Canonical fields.
    prognostic, forcing, static
        Variable names; see :func:`channel_table`.

    Returns
    -------
    array
        (time, channel, latitude, longitude) float32 of the *dynamic* channels, prognostic before forcing, with
        the coordinates ``channel`` (names), ``role`` and ``level``. Static channels have no time and come from
        :func:`static_channels`. Backed by Dask with all channels in one chunk where the fields are.
    channels
        All channels, statics included, as dictionaries.
    """
    table = channel_table(fields, prognostic=prognostic, forcing=forcing, static=static)
    dynamic = [entry for entry in table if entry["role"] != "static"]
    parts = []
    for name in [*prognostic, *forcing]:
        field = fields[name]
        if LEVEL in field.dims:
            field = field.sortby(LEVEL).transpose(TIME, LEVEL, LATITUDE, LONGITUDE)
        else:
            field = field.transpose(TIME, LATITUDE, LONGITUDE).expand_dims(LEVEL, axis=1)
        parts.append(field.data)
    lazy = any(isinstance(part, da.Array) for part in parts)
    if lazy:
        chunks = next(part.chunks[0] for part in parts if isinstance(part, da.Array))
        parts = [_whole_maps(part, chunks) for part in parts]
        data = da.concatenate(parts, axis=1)
        data = data.rechunk({1: -1}).astype(np.float32)
    else:
        data = np.concatenate(parts, axis=1).astype(np.float32, copy=False)
    return _labelled(data, (TIME, CHANNEL, LATITUDE, LONGITUDE), fields, dynamic), table


def _whole_maps(part: Any, chunks: tuple[int, ...]) -> da.Array:
    part = da.asarray(part)
    return part.rechunk({0: chunks, 1: -1, 2: -1, 3: -1})


def static_channels(fields: xr.Dataset, *, static: Sequence[str]) -> xr.DataArray:
    """Return static fields as (channel, latitude, longitude) float32, loaded.

    Parameters
    ----------
    fields
        Canonical fields.
    static
        Names of fields without time.
    """
    shape = (fields.sizes[LATITUDE], fields.sizes[LONGITUDE])
    table: list[dict[str, Any]] = []
    maps = []
    for name in static:
        if name not in fields.data_vars:
            raise MissingVariableError(
                f"the static field {name} is not among the fields: {', '.join(map(str, fields.data_vars))}"
            )
        table.extend(_channels_of(fields[name], "static"))
        field = fields[name].sortby(LEVEL) if LEVEL in fields[name].dims else fields[name]
        maps.append(np.asarray(field.transpose(..., LATITUDE, LONGITUDE).values).reshape(-1, *shape))
    data = np.concatenate(maps).astype(np.float32) if maps else np.empty((0, *shape), dtype=np.float32)
    return _labelled(data, (CHANNEL, LATITUDE, LONGITUDE), fields, table)


def _labelled(data, dims, fields, table) -> xr.DataArray:
    coords: dict[str, Any] = {
        CHANNEL: [entry["name"] for entry in table],
        "role": (CHANNEL, [entry["role"] for entry in table]),
        "channel_level": (
            CHANNEL,
            np.array([np.nan if e["level"] is None else e["level"] for e in table], dtype=np.float64),
        ),
        LATITUDE: fields[LATITUDE],
        LONGITUDE: fields[LONGITUDE],
    }
    if TIME in dims:
        coords[TIME] = fields[TIME]
    return xr.DataArray(data, dims=dims, coords=coords, name="channels")


def from_channels(array: xr.DataArray, channels: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    """Return canonical fields from channels: the inverse of :func:`to_channels`.

    Parameters
    ----------
    array
        (..., channel, latitude, longitude); in front any dimensions, such as ``time`` or ``init_time`` and
        ``lead_time``. Its channels are the first ones of ``channels``, or carry names in a ``channel``
        coordinate.
    channels
        From :func:`to_channels`; those that the array lacks (statics, say) are passed over.

    Returns
    -------
    xarray.Dataset
        Each variable with its levels, ascending, units and names. Where variables of pressure levels differ in
        their levels, those that lack some become one field a level, named as their channels.

    Raises
    ------
    CoordinateError
        Where the array has more channels than there are names for.
    """
    if CHANNEL in array.coords:
        names = [str(name) for name in array[CHANNEL].values]
    else:
        if array.sizes[CHANNEL] > len(channels):
            raise CoordinateError(
                f"the array has {array.sizes[CHANNEL]} channels, the table only {len(channels)}"
            )
        names = [str(entry["name"]) for entry in channels[: array.sizes[CHANNEL]]]
    position = {name: i for i, name in enumerate(names)}
    array = array.drop_vars([c for c in array.coords if CHANNEL in array[c].dims])
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in channels:
        if entry["name"] in position:
            groups.setdefault(str(entry["variable"]), []).append(entry)
    unknown = set(position) - {str(entry["name"]) for entry in channels}
    if unknown:
        raise CoordinateError(f"channels are not in the table: {', '.join(sorted(unknown))}")
    full = _common_levels(groups)
    variables: dict[str, xr.DataArray] = {}
    for variable, entries in groups.items():
        levels = [entry["level"] for entry in entries]
        if None not in levels and set(levels) == full:
            ordered = sorted(entries, key=lambda entry: entry["level"])
            field = array.isel({CHANNEL: [position[e["name"]] for e in ordered]})
            field = field.rename({CHANNEL: LEVEL}).assign_coords({LEVEL: [e["level"] for e in ordered]})
            field[LEVEL].attrs.update(standard_name="air_pressure", units="hPa", positive="down")
            variables[variable] = _described(field, variable, ordered[0])
            continue
        for entry in entries:
            field = array.isel({CHANNEL: position[entry["name"]]})
            variables[str(entry["name"])] = _described(field, str(entry["name"]), entry)
    return xr.Dataset(variables, attrs={"Conventions": "CF-1.11"})


def _common_levels(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> set[float]:
    """Return the set of levels that most pressure variables have, the larger one on a tie."""
    sets = [
        frozenset(entry["level"] for entry in entries)
        for entries in groups.values()
        if all(entry["level"] is not None for entry in entries)
    ]
    return set(max(sets, key=lambda s: (sets.count(s), len(s)))) if sets else set()


def _described(field: xr.DataArray, name: str, entry: Mapping[str, Any]) -> xr.DataArray:
    convention = convention_for(name)
    attrs = {"units": str(entry.get("units", ""))}
    if convention is not None:
        attrs["long_name"] = convention.long_name
        if convention.standard_name:
            attrs["standard_name"] = convention.standard_name
    field = field.rename(name)
    field.attrs = attrs
    return field
