"""From the offers of many sources to one lazy array a variable: pieces joined, duplicates judged."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, replace

import dask.array as da
import numpy as np

from weathermill.errors import TimeAxisError
from weathermill.fields.comparison import compare, difference_text
from weathermill.fields.findings import Finding, tell
from weathermill.fields.layout import HorizontalOrder, as_slice, finish_lazily, time_chunks
from weathermill.fields.recognition import Offer
from weathermill.fields.timeaxis import first_text


@dataclass(frozen=True)
class Piece:
    """A variable's part in one source: chosen time positions with their times, and how to convert it.

    ``resolution`` is half the step of the packing in canonical units: two values that differ by no more than
    the sum of their resolutions may stem from the same number. ``versions`` are ERA5's experiment versions of the
    chosen positions (1 for ERA5, 5 for its preliminary form ERA5T), where the file has them.
    """

    offer: Offer
    order: HorizontalOrder
    positions: np.ndarray
    times: np.ndarray
    scale: float
    offset: float
    resolution: float
    versions: np.ndarray | None = None

    def lazy(self, positions: np.ndarray, level_index: np.ndarray | None, steps: int) -> da.Array:
        """Return the chosen positions as a lazy canonical array."""
        array, chunks = self.offer.array, None
        if "time" in array.dims:
            array = array.isel(time=as_slice(positions))
            chunks = time_chunks(positions, steps, self.offer.native_time_chunk)
        lazy = finish_lazily(
            array,
            self.order,
            scale=self.scale,
            offset=self.offset,
            level_index=level_index,
            chunks=chunks,
            label=self.offer.label,
        )
        return lazy[None] if chunks is None else lazy


def level_positions(offer: Offer, levels: Sequence[float] | None) -> np.ndarray | None:
    """Return the positions of the wanted levels (hPa) in an offer, or None where it has no level axis."""
    if levels is None or offer.levels is None or "level" not in offer.array.dims:
        return None
    return np.array([int(np.argmin(np.abs(offer.levels - level))) for level in levels])


def holds_level(offer: Offer, level: float) -> bool:
    """Return whether an offer has a level, to 1e-4 of its value."""
    return offer.levels is not None and bool(np.any(np.abs(offer.levels - level) <= 1e-4 * level))


def give_way(pieces: Sequence[Piece], name: str) -> list[Piece]:
    """Return the pieces without the times of other forms of a variable that its own form has too.

    Parameters
    ----------
    pieces
        Of one variable in its own form and in another, such as geopotential and geopotential height, which rounding keeps
        from agreeing. All hold the levels that are wanted.
    name
        Of the own form.
    """
    own = {time for piece in pieces if piece.offer.variable == name for time in piece.times.tolist()}
    if not own:
        return list(pieces)
    kept = []
    for piece in pieces:
        if piece.offer.variable != name:
            left = np.array([time not in own for time in piece.times.tolist()], dtype=bool)
            versions = None if piece.versions is None else piece.versions[left]
            piece = replace(
                piece, positions=piece.positions[left], times=piece.times[left], versions=versions
            )
        if piece.times.size:
            kept.append(piece)
    return kept


def join_times(
    pieces: Sequence[Piece],
    levels: Sequence[float] | None,
    steps: int,
    findings: MutableSequence[Finding] | None = None,
) -> tuple[np.ndarray, da.Array]:
    """Join pieces along time.

    Parameters
    ----------
    pieces
        Of one variable, all holding ``levels``.
    levels
        hPa, ascending; None for fields without a level.
    steps
        Time steps a chunk.
    findings
        Where to record merged duplicates.

    Returns
    -------
    times
        Strictly ascending.
    array
        (time, [level,] latitude, longitude), lazy float32.

    Raises
    ------
    TimeAxisError
        Where one time occurs twice with different values.
    """
    times = np.concatenate([piece.times for piece in pieces])
    owner = np.concatenate([np.full(len(piece.times), i) for i, piece in enumerate(pieces)])
    positions = np.concatenate([piece.positions for piece in pieces])
    order = np.lexsort((owner, times)) if times.dtype.kind == "M" else _object_order(times, owner)
    times, owner, positions = times[order], owner[order], positions[order]
    new = np.ones(times.size, dtype=bool)
    new[1:] = times[1:] != times[:-1]
    chosen = np.flatnonzero(new)
    if not new.all():
        chosen = _judge_duplicates(pieces, times, owner, positions, new, levels, steps, findings)
    times, owner, positions = times[chosen], owner[chosen], positions[chosen]
    parts, places = [], []
    for i, piece in enumerate(pieces):
        mine = np.flatnonzero(owner == i)
        if mine.size:
            level_index = level_positions(piece.offer, levels)
            part = piece.lazy(positions[mine], level_index, steps)
            if levels is not None and part.ndim == 3:
                part = part[:, None]
            parts.append(part)
            places.append(mine)
    joined = parts[0] if len(parts) == 1 else da.concatenate(parts, axis=0)
    place = np.concatenate(places)
    if not np.all(np.diff(place) > 0):
        joined = da.take(joined, np.argsort(place), axis=0)
    return times, joined


def _object_order(times: np.ndarray, owner: np.ndarray) -> np.ndarray:
    calendars = {time.calendar for time in times}
    if len(calendars) > 1:
        raise TimeAxisError(f"the sources mix the calendars {sorted(calendars)}")
    return np.array(sorted(range(times.size), key=lambda i: (times[i], owner[i])), dtype=np.intp)


def _judge_duplicates(pieces, times, owner, positions, new, levels, steps, findings) -> np.ndarray:
    """Return the entries to keep: for each repeated time the first that has data, all being equal."""
    starts = np.flatnonzero(new)
    stops = np.append(starts[1:], times.size)
    keep = starts.copy()
    pairs: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for group, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for other in range(start + 1, stop):
            pairs.setdefault((int(owner[start]), int(owner[other])), []).append((group, start, other))
    variable = pieces[0].offer.variable
    version_of = {
        (i, int(position)): int(version)
        for i, piece in enumerate(pieces)
        if piece.versions is not None
        for position, version in zip(piece.positions, piece.versions, strict=True)
    }
    count = final = 0
    for (a, b), entries in pairs.items():
        for batch_start in range(0, len(entries), max(1, steps)):
            batch = entries[batch_start : batch_start + max(1, steps)]
            groups, firsts, others = (np.array(column) for column in zip(*batch, strict=True))
            left = _load(pieces[a], positions[firsts], levels, steps)
            right = _load(pieces[b], positions[others], levels, steps)
            for i, group in enumerate(groups):
                kept, first, resolution = int(keep[group]), left[i], pieces[a].resolution
                if kept != firsts[i]:
                    # Another one than the first is kept so far: it is the one that has to agree.
                    holder = pieces[int(owner[kept])]
                    first, resolution = _load(holder, positions[[kept]], levels, steps)[0], holder.resolution
                verdict = compare(first, right[i], resolution + pieces[b].resolution)
                if verdict == "second":
                    keep[group] = others[i]
                elif verdict == "differ":
                    held = version_of.get((int(owner[kept]), int(positions[kept])))
                    offered = version_of.get((b, int(positions[others[i]])))
                    if held is not None and offered is not None and held != offered:
                        # ERA5 takes the place of ERA5T, which it replaces after two or three months.
                        keep[group] = others[i] if offered < held else kept
                        final += 1
                        continue
                    raise TimeAxisError(
                        f"{variable} at {first_text(times[firsts[i]])} occurs twice with different values"
                        f" ({difference_text(first, right[i], pieces[b].order, levels=levels)})",
                        where=f"{pieces[int(owner[kept])].offer.label} and {pieces[b].offer.label}",
                        remedy="Leave one of the sources out, select times in which they do not overlap, or say by"
                        " ingest.names which variable is meant.",
                    )
                count += 1
    if count:
        tell(
            findings, "warning", variable, f"{count} repeated time steps hold the same values and are merged"
        )
    if final:
        tell(
            findings,
            "warning",
            variable,
            f"{final} time steps of ERA5T (experiment version 5) give way to those of ERA5 (1)",
        )
    return keep


def _load(piece: Piece, positions: np.ndarray, levels, steps: int) -> np.ndarray:
    ordered = np.argsort(positions, kind="stable")
    lazy = piece.lazy(positions[ordered], level_positions(piece.offer, levels), steps)
    loaded = np.asarray(lazy)
    back = np.empty_like(ordered)
    back[ordered] = np.arange(ordered.size)
    return loaded[back]


def common_times(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the times that all axes have, in the order of the first."""
    common = axes[0]
    for times in axes[1:]:
        if times.size == common.size and np.all(times == common):
            continue
        lookup = set(times.tolist())
        common = common[[time in lookup for time in common.tolist()]]
    return common


def at_times(array: da.Array, have: np.ndarray, wanted: np.ndarray) -> da.Array:
    """Return an array (time, ...) at some of the times that it has."""
    if have.size == wanted.size:
        return array
    lookup = {time: i for i, time in enumerate(have.tolist())}
    return da.take(array, np.array([lookup[time] for time in wanted.tolist()]), axis=0)
