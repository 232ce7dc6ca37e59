"""Sums over time in GRIB files: from the start of a forecast to each step, or to the next reset, made into intervals.

Messages of an accumulation say from which step to which they run. Those that begin at the same step of one forecast are
differenced one after the other: 0-3, 0-6, 0-9 become 0-3, 3-6, 6-9, and 0-3, 0-6, 6-9, 6-12 too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from weathermill.errors import SourceConflictError
from weathermill.fields.grib_messages import Message

# Parameters that cannot fall while they are summed: precipitation of all kinds, downward and solar radiation, runoff,
# melt, sunshine (paramId of ECMWF's parameter database; 3062, 3063 and 228228 are those of NCEP).
_NON_NEGATIVE = frozenset(
    {8, 9, 45, 47, 50, 57, 58, 142, 143, 144, 169, 175, 176, 178, 182, 189, 205, 208, 210, 212, 228, 239, 240}
    | {3062, 3063, 228021, 228022, 228080, 228129, 228130, 228144, 228228, 231001, 231002, 231003}
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A field as it is offered: a message, less another one where sums are differenced.

    ``window`` is the time covered, in seconds up to the valid time; 0 for an instantaneous field.
    """

    message: Message
    window: int
    minus: Message | None = None

    @property
    def step(self) -> float:
        """The smallest difference of two values that the packing tells apart."""
        return self.message.step + (0.0 if self.minus is None else self.minus.step)


@dataclass
class Intervals:
    """What sums are made into.

    Attributes
    ----------
    entries
        One for each interval, member and level.
    empty
        Sums over no time at all, which are zero by definition.
    redundant
        Sums over a time that others cover with a smaller sum.
    aside
        First sums of a forecast over a longer time than all its steps after.
    """

    entries: list[Entry] = field(default_factory=list)
    empty: list[Message] = field(default_factory=list)
    redundant: list[Message] = field(default_factory=list)
    aside: list[Message] = field(default_factory=list)

    @property
    def differenced(self) -> int:
        """How many entries are differences."""
        return sum(entry.minus is not None for entry in self.entries)


def intervals_of(messages: Sequence[Message]) -> Intervals:
    """Difference the sums of each forecast.

    Parameters
    ----------
    messages
        Of one kind of field, all accumulated; of the same run, start, end, level and member there is one.
    """
    found = Intervals()
    chains: dict[tuple, list[Message]] = {}
    for message in messages:
        if message.end == message.start:
            found.empty.append(message)
        else:
            key = (message.run, message.number, message.level, message.start)
            chains.setdefault(key, []).append(message)
    best: dict[tuple, Entry] = {}
    for key in sorted(chains, key=lambda key: key[3]):
        chain = sorted(chains[key], key=lambda message: message.end)
        entries = [Entry(chain[0], chain[0].end - chain[0].start)]
        entries += [Entry(later, later.end - earlier.end, earlier) for earlier, later in pairwise(chain)]
        lengths = Counter(entry.window for entry in entries[1:])
        if lengths and entries[0].window not in lengths and max(lengths.values()) > 1:
            found.aside.append(entries.pop(0).message)
        for entry in entries:
            place = (*key[:3], entry.message.end, entry.window)
            known = best.get(place)
            # A message of its own is more exact than a difference, and small sums than large ones.
            if known is None or known.minus is not None:
                if known is not None:
                    found.redundant.append(known.message)
                best[place] = entry
            else:
                found.redundant.append(entry.message)
    found.entries = list(best.values())
    used = {id(m) for e in found.entries for m in (e.message, e.minus)}
    found.redundant = [message for message in found.redundant if id(message) not in used]
    return found


def difference(entry: Entry, later: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Return the sum over an interval from the sums to its end and to its begin.

    Parameters
    ----------
    entry
        The interval.
    later, earlier
        (rows, columns) float64.

    Raises
    ------
    SourceConflictError
        Where sums of what cannot be negative fall by more than packing and interpolation explain: four of its steps,
        or a thousandth of the largest sum. Smaller falls become zero.
    """
    result = later - earlier
    if entry.message.field.parameter[0] not in _NON_NEGATIVE or not np.isfinite(result).any():
        return result
    lowest = float(np.nanmin(result))
    if lowest >= 0.0:
        return result
    allowed = max(4.0 * entry.step, 1e-3 * float(np.nanmax(np.abs(earlier))))
    if lowest < -allowed and entry.minus is not None:
        row, column = np.unravel_index(int(np.nanargmin(result)), result.shape)
        before, after = entry.minus, entry.message
        raise SourceConflictError(
            f"{after.field.name} of the forecast of {np.datetime_as_string(after.run, 'm')} is said to be summed from"
            f" {after.start / 3600:g} h on, and falls by {-lowest:.4g} between {before.end / 3600:g} h and"
            f" {after.end / 3600:g} h (row {row}, column {column})",
            where=" and ".join(dict.fromkeys(m.path.name for m in (before, after))),
            remedy="These are no sums from one start: correct stepRange with grib_set, or leave the field out.",
        )
    return np.where(result < 0.0, 0.0, result)
