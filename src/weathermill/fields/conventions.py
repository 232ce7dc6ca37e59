"""From any naming (CF, ERA5, WeatherBench, CMIP, GRIB) to canonical fields: names, units, orders, calendar.

Canonical fields have the dimensions ``time``, ``level`` (hPa, ascending), ``latitude`` (descending) and
``longitude`` (ascending in [0, 360)), ERA5's long names, SI units as CF strings, float32 values and NaN
where data is missing. Everything stays lazy: what is read here is coordinates, repeated time steps (to see
that they agree) and, for variables without units, one time step.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import (
    CoordinateError,
    EmptySelectionError,
    MissingLevelError,
    ParameterError,
)
from weathermill.fields.assembly import (
    Piece,
    at_times,
    common_times,
    give_way,
    holds_level,
    join_times,
    level_positions,
)
from weathermill.fields.choices import SourceOptions, WindAxes
from weathermill.fields.conflicts import (
    refuse_unequal_meridians,
    require_one_unit,
    settle_repeated_levels,
    static_field,
)
from weathermill.fields.conversion import conversion_for
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.derived import derive, plan_derivations
from weathermill.fields.findings import Finding, Held, tell, tell_together
from weathermill.fields.grids import grid_of
from weathermill.fields.layout import HorizontalOrder, level_reading, steps_per_chunk
from weathermill.fields.other_times import tell_other_times
from weathermill.fields.own_cells import corners_of_sources, with_own_cells
from weathermill.fields.recognition import GRIB_PARAMETER, Offer
from weathermill.fields.survey import (
    DECODABLE,
    Source,
    find_offers,
    level_text,
    require_one_calendar,
    survey,
    where_text,
)
from weathermill.fields.timeaxis import first_text, require_some
from weathermill.fields.vocabulary import CONVENTIONS, VariableConvention, convention_for, split_flat_name
from weathermill.fields.wind_axes import turn_winds, with_partners

__all__ = ["CONVENTIONS", "VariableConvention", "canonicalise"]

#: Aimed-at size of one block in memory.
BLOCK_BYTES = 16 * 2**20

_KEPT_ATTRIBUTES = ("title", "institution", "source", "references", "comment", "license", "licence")


def canonicalise(
    sources: Sequence[xr.Dataset],
    *,
    variables: Sequence[str] = (),
    surface_variables: Sequence[str] = (),
    static_variables: Sequence[str] = (),
    levels: Sequence[float] | None = None,
    start: Any = None,
    stop: Any = None,
    source_names: Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    select: Mapping[str, Any] | None = None,
    strict: bool = True,
    winds: WindAxes = "as_said",
    block_bytes: int = BLOCK_BYTES,
    findings: MutableSequence[Finding] | None = None,
) -> xr.Dataset:
    """Return canonical fields from any sources, lazily.

    Parameters
    ----------
    sources
        Datasets as opened, with or without Dask; see :func:`weathermill.fields.opening.open_sources`.
    variables
        Canonical names on pressure levels. A name with its level (``geopotential_500``) is a field without a
        level axis, for sources in which variables differ in their levels.
    surface_variables, static_variables
        Canonical names of fields without a level; static ones also without time. A name outside the
        vocabulary is taken as the file has it, units included. What no source has but other fields, or time
        and place, determine is derived: see :data:`weathermill.fields.derived.DERIVATIONS`.
    levels
        hPa. By default all that every one of ``variables`` has.
    start, stop
        ISO 8601 dates or datetimes of the file's calendar: ``[start, stop)``.
    source_names
        For messages.
    units
        Canonical name -> units to take for a variable, whatever the file says; also of coordinates, by the file's name.
    names, select, strict, winds
        See :class:`weathermill.fields.choices.SourceOptions`.
    block_bytes
        Aimed-at size of a block in memory.
    findings
        Where to record what was noticed, beside the log.

    Returns
    -------
    xarray.Dataset
        Dask arrays of float32, chunked along time only, with equal chunks for all variables; times are those
        that every variable has. Fields on a curvilinear grid keep its dimensions as ``y`` and ``x``, with
        latitude and longitude as maps, and need regridding before anything else. Cells that do not meet midway between
        points have ``latitude_bounds`` and ``longitude_bounds``.

    Raises
    ------
    MissingVariableError, MissingLevelError
        Naming what the sources offer.
    ParameterError
        Where ``names`` or ``select`` name what no source has.
    UnitsError
        Where units are missing and the values do not tell, or cannot be converted.
    SourceConflictError
        Where static fields, or a level or meridian that occurs twice, differ.
    EmptySelectionError
        Where no time is left.
    CoordinateError
        Where sources differ in their grid, or a coordinate is missing.
    TimeAxisError
        Where a time occurs twice with different values, or calendars are mixed.
    """
    options = SourceOptions(names or {}, select or {}, units or {}, strict, winds)
    surveyed = survey(sources, source_names, findings, options)
    _require_distinct([*variables, *surface_variables, *static_variables])
    flat = [name for name in variables if name not in CONVENTIONS and split_flat_name(name)]
    pressure = [name for name in variables if name not in flat]
    plan = plan_derivations(pressure, surface_variables, surveyed)
    asked = [*pressure, *flat, *surface_variables, *static_variables]
    pressure = with_partners(plan.pressure, surveyed)
    two_dimensional = with_partners([*flat, *plan.surface], surveyed)
    if not (pressure or two_dimensional) and plan.made:
        raise ParameterError(
            f"{', '.join(plan.made)} can be made at the times of other fields only; ask for one of a source too"
        )
    offers = {
        name: find_offers(name, surveyed, on_levels=name in pressure)
        for name in [*pressure, *two_dimensional, *static_variables]
    }
    for name, group in offers.items():
        require_one_unit(name, group)
    used = [offer for group in offers.values() for offer in group]
    order = _common_grid(surveyed, {offer.rank for offer in used})
    chosen_levels = _choose_levels(pressure, offers, levels, findings) if pressure else None
    overrides = dict(units or {})

    per_map = order.rows.size * order.columns.size
    largest = per_map * max(_bytes_per_point(offer, chosen_levels) for offer in used)
    native = max((offer.native_time_chunk for offer in used), default=1)
    steps = steps_per_chunk(largest, block_bytes, native)

    require_one_calendar(
        surveyed[rank] for rank in {o.rank for n in (*pressure, *two_dimensional) for o in offers[n]}
    )
    arrays: dict[str, tuple[np.ndarray, da.Array, tuple[str, ...]]] = {}
    for name in [*pressure, *two_dimensional]:
        wanted = chosen_levels if name in pressure else None
        if (parts := split_flat_name(name)) and name not in CONVENTIONS:
            wanted = [parts[1]]
        held = [Held(offer.label) for offer in offers[name]]
        pieces = [
            _piece(offer, surveyed[offer.rank], name, start, stop, wanted, overrides, notes)
            for offer, notes in zip(offers[name], held, strict=True)
        ]
        tell_together(findings, held)
        all_times = np.sort(np.concatenate([surveyed[p.offer.rank].times for p in pieces]))
        require_some(sum(len(piece.times) for piece in pieces), name, start, stop, all_times)
        for piece in pieces:
            settle_repeated_levels(piece, name, wanted, steps, findings)
            refuse_unequal_meridians(piece, name, wanted, steps)
        times, array = _join(pieces, name, wanted, steps, findings)
        tell_other_times(name, times, surveyed, (start, stop), findings)
        dims = (TIME, LEVEL, LATITUDE, LONGITUDE) if name in pressure else (TIME, LATITUDE, LONGITUDE)
        if array.ndim == 4 and len(dims) == 3:
            array = array[:, 0]
        arrays[name] = (times, array, dims)

    fields = _dataset(arrays, chosen_levels, order, steps, findings)
    fields = turn_winds(fields, offers, findings)
    for name in static_variables:
        static = static_field(name, offers[name], surveyed, overrides.get(name), findings)
        fields[name] = ((LATITUDE, LONGITUDE), static)
    for name in fields.data_vars:
        fields[name].attrs.update(_attributes(str(name), offers[str(name)][0]))
    grid = None
    if order.latitude.ndim == 2:
        grid = grid_of(surveyed[used[0].rank].raw, findings=findings)
        fields = fields.rename_dims({LATITUDE: "y", LONGITUDE: "x"}).assign_coords(grid.coords)
    fields = derive(fields, plan.made, findings)[asked]
    if grid is None:
        using = [surveyed[rank] for rank in sorted({offer.rank for offer in used})]
        fields = with_own_cells(fields, corners_of_sources(using, order, findings))
    else:
        # Choosing variables leaves behind the vertices of cells, which have a dimension of their own.
        fields = fields.assign_coords(grid.coords)
    fields.attrs.update(_global_attributes(surveyed, {offer.rank for offer in used}))
    return fields


def _bytes_per_point(offer: Offer, levels: Sequence[float] | None) -> int:
    """Return the memory that one place and time of an offer takes while it is read: unpacked, with its levels."""
    size = 8 if offer.array.dtype.itemsize > 4 or offer.array.dtype.kind in "iub" else 4
    positions = level_positions(offer, levels)
    if positions is None:
        return size
    read, _ = level_reading(positions)
    return size * len(range(offer.levels.size)[read] if isinstance(read, slice) else read)


def _require_distinct(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1}) if names else []
    if repeated:
        raise ParameterError(f"variables are asked for twice: {', '.join(repeated)}")
    if not names:
        raise ParameterError("no variable is asked for")


def _common_grid(surveyed: Sequence[Source], ranks: set[int]) -> HorizontalOrder:
    """Return the horizontal grid of the sources in use, which must be one and the same."""
    first = surveyed[min(ranks)]
    for rank in sorted(ranks):
        other = surveyed[rank]
        for axis in (LATITUDE, LONGITUDE):
            a, b = getattr(first.order, axis), getattr(other.order, axis)
            spacing = np.abs(np.diff(a)).min() if a.ndim == 1 and a.size > 1 else first.order.spacing
            if a.shape != b.shape or np.abs(a - b).max() > 1e-3 * spacing:
                a, b = a.ravel(), b.ravel()
                raise CoordinateError(
                    f"the sources lie on different grids: {axis} has {a.size} points from {a[0]:g} to"
                    f" {a[-1]:g} in {first.name}, {b.size} points from {b[0]:g} to {b[-1]:g} in {other.name}",
                    remedy="Ingest them one by one, and regrid them to one grid.",
                )
    return first.order


def _choose_levels(names, offers, levels, findings) -> list[float]:
    held = {
        name: sorted({round(float(v), 6) for offer in offers[name] for v in offer.levels}) for name in names
    }
    if levels is not None:
        if len(levels) == 0:
            raise ParameterError("the list of levels is empty")
        wanted = sorted({float(level) for level in levels})
        for name in names:
            missing = [p for p in wanted if not any(holds_level(offer, p) for offer in offers[name])]
            if missing:
                raise MissingLevelError(
                    f"{name} has no level {', '.join(f'{p:g}' for p in missing)} hPa; it is offered at"
                    f" {level_text(offers[name])} hPa",
                    where=where_text(offers[name]),
                )
        return wanted
    common = [p for p in held[names[0]] if all(any(holds_level(o, p) for o in offers[n]) for n in names)]
    if not common:
        raise MissingLevelError(
            "the variables have no level in common: "
            + "; ".join(f"{name} at {level_text(offers[name])} hPa" for name in names)
        )
    for name in names:
        left_out = sorted(set(held[name]) - set(common))
        if left_out:
            tell(
                findings,
                "warning",
                name,
                f"its levels {', '.join(f'{p:g}' for p in left_out)} hPa are left out: others lack them",
            )
    return common


def _piece(offer, source, name, start, stop, levels, overrides, findings) -> Piece:
    if source.undecoded is not None:
        raise CoordinateError(
            f"the times of {name} cannot be decoded: {source.undecoded}",
            where=offer.label,
            remedy=DECODABLE,
        )
    if source.times.size == 0:
        raise CoordinateError(
            f"{name} has no time",
            where=offer.label,
            remedy="Name it among static_variables, or give the file a time coordinate.",
        )
    positions = source.positions(start, stop)
    scale, offset, resolution = conversion_for(
        offer, name, overrides.get(name), positions[:1], levels, findings
    )
    versions = source.experiment_versions(positions)
    return Piece(offer, source.order, positions, source.times[positions], scale, offset, resolution, versions)


def _join(pieces, name, levels, steps, findings) -> tuple[np.ndarray, da.Array]:
    """Join pieces in time, and along levels where different sources hold different levels."""
    pieces = [piece for piece in pieces if piece.times.size]
    convention = convention_for(name)
    own = name if convention is None else convention.name
    if levels is None:
        return join_times(pieces, None, steps, findings)
    groups: dict[tuple[int, ...], list[float]] = {}
    for level in levels:
        holders = tuple(i for i, piece in enumerate(pieces) if holds_level(piece.offer, level))
        if not holders:
            raise EmptySelectionError(
                f"level {level:g} hPa is in no source that overlaps the times asked for"
            )
        groups.setdefault(holders, []).append(level)
    joined = [
        (group, *join_times(give_way([pieces[i] for i in holders], own), group, steps, findings))
        for holders, group in groups.items()
    ]
    if len(joined) == 1:
        return joined[0][1], joined[0][2]
    times = common_times([times for _, times, _ in joined])
    stacked = [at_times(array, have, times) for _, have, array in joined]
    array = da.concatenate(stacked, axis=1).rechunk({0: steps, 1: -1})
    held = np.concatenate([group for group, _, _ in joined])
    rank = np.argsort(held, kind="stable")
    return times, array if np.all(np.diff(rank) == 1) else da.take(array, rank, axis=1)


def _dataset(arrays, levels, order, steps, findings) -> xr.Dataset:
    coords: dict[str, Any] = {}
    if order.latitude.ndim == 1:
        coords = {
            LATITUDE: (LATITUDE, order.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            LONGITUDE: (LONGITUDE, order.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
        }
    if levels is not None:
        attrs = {"standard_name": "air_pressure", "units": "hPa", "positive": "down"}
        coords[LEVEL] = (LEVEL, np.asarray(levels, dtype=np.float64), attrs)
    if not arrays:
        return xr.Dataset(coords=coords)
    times = common_times([times for times, _, _ in arrays.values()])
    if times.size == 0:
        spans = "; ".join(
            f"{name} from {first_text(t[0])} to {first_text(t[-1])}" for name, (t, _, _) in arrays.items()
        )
        raise EmptySelectionError(f"the variables have no time in common: {spans}")
    for name, (have, _, _) in arrays.items():
        if have.size > times.size:
            tell(
                findings,
                "warning",
                name,
                f"{have.size - times.size} of its {have.size} time steps are left out: others lack them",
            )
    coords[TIME] = (TIME, times, {"standard_name": "time", "long_name": "time"})
    variables = {}
    for name, (have, array, dims) in arrays.items():
        lazy = at_times(array, have, times)
        variables[name] = (dims, lazy.rechunk({0: min(steps, times.size)}))
    return xr.Dataset(variables, coords=coords)


def _attributes(name: str, offer: Offer) -> dict[str, str]:
    convention = convention_for(name)
    if convention is None:
        kept = ("units", "standard_name", "long_name")
        return {key: str(offer.array.attrs[key]) for key in kept if key in offer.array.attrs}
    flat = None if name in CONVENTIONS else split_flat_name(name)
    long_name = convention.long_name + (f" at {flat[1]:g} hPa" if flat else "")
    attrs = {"long_name": long_name, "units": convention.units}
    if convention.standard_name:
        attrs["standard_name"] = convention.standard_name
    if convention.accumulated:
        # The reader of GRIB knows the window of each sum; what other files say of theirs is the interval of sampling.
        said = str(offer.array.attrs.get("cell_methods", "")) if GRIB_PARAMETER in offer.array.attrs else ""
        attrs["cell_methods"] = said if said.startswith("time: sum") else "time: sum"
    return attrs


def _global_attributes(surveyed: Sequence[Source], ranks: set[int]) -> dict[str, str]:
    attrs = {"Conventions": "CF-1.11"}
    for key in _KEPT_ATTRIBUTES:
        texts = list(
            dict.fromkeys(str(surveyed[r].attrs[key]) for r in sorted(ranks) if key in surveyed[r].attrs)
        )
        if texts:
            attrs[key] = " | ".join(texts[:5])
    return attrs
