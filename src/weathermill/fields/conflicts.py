"""Where sources hold one thing twice: merged where the values agree, refused where they do not."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from weathermill.errors import SourceConflictError, UnitsError
from weathermill.fields.assembly import Piece, level_positions
from weathermill.fields.comparison import compare, difference_text
from weathermill.fields.conversion import conversion_for
from weathermill.fields.coordinates import LONGITUDE, TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.layout import HorizontalOrder, finish_lazily
from weathermill.fields.recognition import Offer
from weathermill.fields.timeaxis import first_text
from weathermill.fields.units import normalise_spelling
from weathermill.fields.vocabulary import convention_for

if TYPE_CHECKING:
    from weathermill.fields.survey import Source

#: Time steps at which what should be the same at all times is compared, evenly spaced.
COMPARED_STEPS = 8


@dataclass(frozen=True)
class _Map:
    """One field without time, of an offer at a time or without one."""

    values: da.Array
    resolution: float
    label: str
    order: HorizontalOrder


def static_field(
    name: str,
    offers: Sequence[Offer],
    surveyed: Sequence[Source],
    units: str | None,
    findings: MutableSequence[Finding] | None = None,
) -> da.Array:
    """Return the static field that all sources hold, or refuse where they hold different ones.

    Nothing is read where there is one source without time. A source with times is compared with itself at
    ``COMPARED_STEPS`` of them.

    Parameters
    ----------
    name
        Canonical name.
    offers
        Of the variable, on one grid.
    surveyed
        All sources, by rank.
    units
        To take whatever the files say, or None.
    findings
        Where to record what was merged.

    Returns
    -------
    dask.array.Array
        (latitude, longitude), float32 in canonical units.

    Raises
    ------
    SourceConflictError
        Naming both sources, the place and the difference.
    """
    maps = [one for offer in offers for one in _maps(name, offer, surveyed[offer.rank], units, findings)]
    chosen = maps[0]
    if len(maps) == 1:
        return chosen.values
    kept = np.asarray(chosen.values)
    for other in maps[1:]:
        values = np.asarray(other.values)
        verdict = compare(kept, values, chosen.resolution + other.resolution)
        if verdict == "second":
            chosen, kept = other, values
        elif verdict == "differ":
            convention = convention_for(name)
            unit = "" if convention is None or convention.units == "1" else convention.units
            text = difference_text(kept, values, other.order, unit)
            raise SourceConflictError(
                f"{name} is static, and {chosen.label} and {other.label} hold different fields: {text}",
                where=" and ".join(dict.fromkeys((chosen.label, other.label))),
                remedy="Leave out the file with the wrong one; a field that changes in time belongs to surface_variables.",
            )
    if len(offers) > 1:
        tell(findings, "info", name, f"{len(offers)} sources hold it, and agree; it is taken once")
    return chosen.values


def _maps(name, offer, source, units, findings) -> list[_Map]:
    scale, offset, resolution = conversion_for(offer, name, units, np.array([0]), None, findings)
    array, positions = offer.array, [None]
    if TIME in array.dims:
        positions = list(_spread(array.sizes[TIME]))
    maps = []
    for position in positions:
        lazy = finish_lazily(
            array if position is None else array.isel({TIME: int(position)}),
            source.order,
            scale=scale,
            offset=offset,
            level_index=None,
            chunks=None,
            label=offer.label,
        )
        label = offer.label
        if len(positions) > 1:
            label += f" at {first_text(source.times[position])}"
        maps.append(_Map(lazy, resolution, label, source.order))
    return maps


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, COMPARED_STEPS)).round().astype(int))


def settle_repeated_levels(
    piece: Piece,
    name: str,
    levels: Sequence[float] | None,
    steps: int,
    findings: MutableSequence[Finding] | None = None,
) -> None:
    """Refuse a level that one source has twice with different values; equal ones count once, and are told.

    Parameters
    ----------
    piece
        A variable's part in one source.
    name
        Its canonical name.
    levels
        Wanted, in hPa; None for fields without a level.
    steps
        Time steps a chunk. Values are compared at ``COMPARED_STEPS`` times.
    findings
        Where to record what was merged.

    Raises
    ------
    SourceConflictError
        Naming the level, time, place and difference.
    """
    held = piece.offer.levels
    if levels is None or held is None or "level" not in piece.offer.array.dims or not piece.times.size:
        return
    for level in levels:
        places = np.flatnonzero(np.abs(held - level) <= 1e-4 * level)
        if places.size < 2:
            continue
        chosen = _spread(piece.times.size)
        versions = [
            np.asarray(piece.lazy(piece.positions[chosen], np.array([place]), steps)) for place in places
        ]
        for other in versions[1:]:
            for i, position in enumerate(chosen):
                if compare(versions[0][i], other[i], 2.0 * piece.resolution) != "same":
                    text = difference_text(versions[0][i], other[i], piece.order)
                    raise SourceConflictError(
                        f"{name} has the level {level:g} hPa {places.size} times, with different values at"
                        f" {first_text(piece.times[position])}: {text}",
                        where=piece.offer.label,
                        remedy="Correct the level coordinate of the file, or take the wrong level out of it.",
                    )
        tell(
            findings,
            "warning",
            name,
            f"{piece.offer.label} has the level {level:g} hPa {places.size} times, with the same values"
            f" ({chosen.size} of {piece.times.size} steps compared); it counts once",
        )


def refuse_unequal_meridians(piece: Piece, name: str, levels: Sequence[float] | None, steps: int) -> None:
    """Refuse a meridian that a source has twice, a full circle apart, with different values.

    The copy is left out of the fields; here one time step is read where there is one.

    Parameters
    ----------
    piece
        A variable's part in one source.
    name
        Its canonical name.
    levels
        Wanted, in hPa; None for fields without a level.
    steps
        Time steps a chunk.

    Raises
    ------
    SourceConflictError
        Naming the time, place and difference.
    """
    array, order = piece.offer.array, piece.order
    if order.longitude.ndim != 1 or order.columns.size == array.sizes[LONGITUDE] or not piece.times.size:
        return
    longitude = array[LONGITUDE].values
    columns = order.columns.copy()
    for copy in np.setdiff1d(np.arange(longitude.size), columns):
        turned = np.abs((longitude[columns] - longitude[copy] + 180.0) % 360.0 - 180.0)
        columns[int(np.argmin(turned))] = copy
    positions, index = piece.positions[:1], level_positions(piece.offer, levels)
    kept = np.asarray(piece.lazy(positions, index, steps))
    other = np.asarray(replace(piece, order=replace(order, columns=columns)).lazy(positions, index, steps))
    if compare(kept, other, 2.0 * piece.resolution) != "same":
        raise SourceConflictError(
            f"{name} has a meridian twice, a full circle apart, with different values at"
            f" {first_text(piece.times[0])}: {difference_text(kept, other, order)}",
            where=piece.offer.label,
            remedy="Take the last or the first longitude out of the file: `ncks -d lon,0,-2`, or isel in xarray.",
        )


def require_one_unit(name: str, offers: Sequence[Offer]) -> None:
    """Refuse a variable outside the vocabulary, which is taken as the files have it, in unequal units.

    Raises
    ------
    UnitsError
        Naming the units of each file.
    """
    if convention_for(name) is not None:
        return
    by_unit: dict[str, str] = {}
    for offer in offers:
        units = str(offer.array.attrs.get("units", "")).strip()
        by_unit.setdefault(normalise_spelling(units), f"{units or 'no units'} in {offer.label}")
    if len(by_unit) > 1:
        raise UnitsError(
            f"{name} is not in the vocabulary, so that its units are not converted, and the sources have it in"
            f" different ones: {', '.join(list(by_unit.values())[:4])}",
            where=", ".join(offer.label for offer in offers[:3]),
            remedy="Convert it in the files to one unit, or say by ingest.names which known variable it is.",
        )
