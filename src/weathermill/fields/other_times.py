"""Times at which no source has a field, though it could be made of others."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any

import numpy as np

from weathermill.errors import WeathermillError
from weathermill.fields.derived import DERIVATIONS
from weathermill.fields.findings import Finding, tell
from weathermill.fields.survey import Source, find_offers


def tell_other_times(
    name: str,
    have: np.ndarray,
    surveyed: Sequence[Source],
    period: tuple[Any, Any],
    findings: MutableSequence[Finding] | None = None,
) -> None:
    """Warn where a field that is read could be made of others at times at which no source has it.

    Parameters
    ----------
    name
        Canonical; nothing is told of fields that are not made of others.
    have
        (time,) at which it is read.
    surveyed
        From :func:`weathermill.fields.survey.survey`.
    period
        [start, stop) that was asked for.
    """
    derivation = DERIVATIONS.get(name)
    if derivation is None or not (derivation.pressure_needs or derivation.surface_needs):
        return
    common: set[Any] | None = None
    for needs, on_levels in ((derivation.pressure_needs, True), (derivation.surface_needs, False)):
        for need in needs:
            try:
                ranks = {offer.rank for offer in find_offers(need, surveyed, on_levels=on_levels)}
            except WeathermillError:
                return
            times = {
                time
                for rank in ranks
                for time in surveyed[rank].times[surveyed[rank].positions(*period)].tolist()
            }
            common = times if common is None else common & times
    more = (common or set()) - set(have.tolist())
    if more:
        tell(
            findings,
            "warning",
            name,
            f"it is read at {have.size} times; at {len(more)} others no source has it, though it could be made"
            f" {derivation.note}: these are left out",
            f"Leave out the files that hold {name}, so that it is made at all times, or ingest the two as cases of their own.",
        )
