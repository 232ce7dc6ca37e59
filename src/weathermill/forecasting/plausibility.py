"""Whether states can be states: physical limits of every channel, before a forecast starts from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weathermill.errors import ImplausibleValueError
from weathermill.fields.plausibility import REMEDY, Limits, find_implausible
from weathermill.fields.value_counts import WRONG_SHARE, count_values


def judge_states(
    states: np.ndarray,
    names: Sequence[str],
    limits: Sequence[Limits],
    times: Sequence[str] | None = None,
    *,
    where: str | None = None,
    remedy: str | None = None,
) -> list[str]:
    """Refuse states with values that cannot be, and tell of those that hardly can.

    Parameters
    ----------
    states
        (n, channel, latitude, longitude), physical units; NaN is missing.
    names, limits
        Of the channels.
    times
        Of the states, for messages; their numbers without.
    where, remedy
        For errors; by default the parameters of the ingest stage that help.

    Returns
    -------
    list of str
        One sentence for each channel with values beyond its limits.

    Raises
    ------
    ImplausibleValueError
        If values are infinite or stand for missing ones, or more than `WRONG_SHARE` of a channel of a state lie beyond
        its limits.
    """
    notes = []
    for i, name in enumerate(names):
        for state, values in enumerate(states[:, i]):
            when = f"at {times[state]}" if times is not None else f"number {state}"
            if (found := find_implausible(values, limits[i])) is not None:
                count = int(found.where.sum())
                raise ImplausibleValueError(
                    f"{name} of the state {when} has {count} value{'s' * (count != 1)} {found.what}, of {values.size}",
                    where=where,
                    remedy=remedy or REMEDY % name,
                )
            counts = count_values(values, limits[i].low, limits[i].high, None, None)
            share = counts.outside[0] / max(1, counts.seen)
            if not share:
                continue
            text = (
                f"{name} of the state {when}: {100 * share:.3g} % of the values lie beyond the physical limits"
                f" {limits[i].low:g} to {limits[i].high:g}; they run from {counts.minimum[0]:.5g} to"
                f" {counts.maximum[0]:.5g}"
            )
            if share > WRONG_SHARE:
                raise ImplausibleValueError(
                    text,
                    where=where,
                    remedy=remedy
                    or f"Check the units of the state (ingest.units). If the values are right, give the limits:"
                    f" ingest.limits: {{{name}: [low, high]}}.",
                )
            notes.append(f"{text}.")
    return notes
