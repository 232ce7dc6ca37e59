"""What each source offers in canonical terms, and finding in it what is asked for."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, MissingLevelError, MissingVariableError, TimeAxisError
from weathermill.fields.arrangement import arrange
from weathermill.fields.assembly import holds_level
from weathermill.fields.choices import SourceOptions, few, require_known
from weathermill.fields.conversion import EQUIVALENTS
from weathermill.fields.coordinates import TIME, standardise, undecoded_time
from weathermill.fields.findings import Finding, Held, attached, tell, tell_together
from weathermill.fields.layout import HorizontalOrder, horizontal_order
from weathermill.fields.recognition import EXPVER, Offer, describe_offers, offers_of, without_displaced
from weathermill.fields.timeaxis import calendar_of, selection
from weathermill.fields.vocabulary import CONVENTIONS, canonical_for_alias, split_flat_name
from weathermill.fields.wind_axes import settle_winds

_AS_THEY_ARE = SourceOptions()

#: What to do about times that cannot be decoded, and about sources of several calendars.
DECODABLE = "Give the time units of the form `hours since 1900-01-01`."
ONE_CALENDAR = "Ingest the sources of each calendar by themselves, as cases of their own."


class Source:
    """One dataset with standardised coordinates, its horizontal order and its offers.

    Attributes
    ----------
    raw
        The dataset with what the options and its lead time make of it, in the file's order and units.
    left_out
        Why nothing of it is offered (it does not hold what is selected), or empty.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        name: str,
        rank: int,
        findings: MutableSequence[Finding] | None = None,
        options: SourceOptions = _AS_THEY_ARE,
    ) -> None:
        self.name = name
        self.attrs = dict(dataset.attrs)
        for noticed in attached(dataset):
            if not set(noticed.settled_by).isdisjoint(options.names):
                continue
            tell(findings, noticed.severity, noticed.subject, noticed.message, noticed.remedy)
        arranged = arrange(dataset, name, options, findings)
        self.arranged = arranged
        self.left_out = arranged.left_out
        self.raw = dataset = arranged.dataset
        self.dataset = standardise(dataset, name, findings)
        self.order: HorizontalOrder = horizontal_order(self.dataset, name, findings)
        self.offers: list[Offer] = []
        self.times = np.array([], dtype="datetime64[ns]")
        self.undecoded: str | None = None
        if not self.left_out:
            self.offers = offers_of(self.dataset, name, rank, findings, arranged.choices)
            self.times = self._times()
            self.undecoded = None if self.times.size else undecoded_time(dataset)

    def _times(self) -> np.ndarray:
        if TIME not in self.dataset.coords:
            return np.array([], dtype="datetime64[ns]")
        times = np.atleast_1d(self.dataset[TIME].values)
        try:
            calendar_of(times) if times.size else None
        except TimeAxisError as error:
            raise TimeAxisError(error.what, where=self.name, remedy=error.remedy) from error
        return times

    def positions(self, start: Any, stop: Any) -> np.ndarray:
        """Return the time positions in ``[start, stop)`` that the source declares valid, in time order."""
        chosen = selection(self.times, start, stop)
        # ARCO-ERA5 allocates its time axis up to 2050; attributes say what is filled, the last day included.
        first, last = self.attrs.get("valid_time_start"), self.attrs.get("valid_time_stop")
        if first is not None and last is not None and self.times.dtype.kind == "M":
            low = np.datetime64(str(first)[:10], "D")
            high = np.datetime64(str(last)[:10], "D") + np.timedelta64(1, "D")
            chosen = chosen[(self.times[chosen] >= low) & (self.times[chosen] < high)]
        return chosen

    def experiment_versions(self, positions: np.ndarray) -> np.ndarray | None:
        """Return ERA5's experiment versions at time positions, int, or None where the source says none."""
        if EXPVER not in self.raw.variables:
            return None
        variable = self.raw[EXPVER]
        if variable.size == 0 or variable.shape not in ((), self.times.shape):
            return None
        try:
            versions = np.array([int(version) for version in np.atleast_1d(variable.values)])
        except (ValueError, TypeError):
            return None
        return np.broadcast_to(versions, self.times.shape)[positions]


def survey(
    sources: Sequence[xr.Dataset],
    source_names: Sequence[str] | None = None,
    findings: MutableSequence[Finding] | None = None,
    options: SourceOptions = _AS_THEY_ARE,
) -> list[Source]:
    """Return what each source offers in canonical terms; data is not read.

    Parameters
    ----------
    sources
        Datasets as opened.
    source_names
        For messages; ``source 0`` and so on by default.
    findings
        Where to record what was noticed.
    options
        Names, units and values to select, beyond what the sources say.

    Raises
    ------
    ParameterError
        Where no source has a name of the options, or a value to select.
    """
    names = list(source_names) if source_names is not None else [f"source {i}" for i in range(len(sources))]
    held = [Held(name) for name in names]
    surveyed = [
        Source(dataset, name, rank, held[rank], options)
        for rank, (dataset, name) in enumerate(zip(sources, names, strict=True))
    ]
    tell_together(findings, held)
    require_options(surveyed, sources, options)
    settle_winds(surveyed, options.winds, findings)
    return surveyed


def require_options(
    surveyed: Sequence[Source], sources: Sequence[xr.Dataset], options: SourceOptions
) -> None:
    """Refuse options of which no source has the name or the value.

    Raises
    ------
    ParameterError
        With what there is.
    """
    held: dict[str, dict[str, None]] = {}
    for source in surveyed:
        for dimension, texts in source.arranged.held.items():
            held.setdefault(dimension, {}).update(dict.fromkeys(texts))
    seen = {name for source in surveyed for name in source.arranged.seen}
    offered = (str(name) for dataset in sources for name in [*dataset.variables, *dataset.dims])
    require_known(options, seen, held, offered)


def calendar_fault(sources: Iterable[Source]) -> str:
    """Return which sources have times of which calendar where there are several calendars; else an empty text."""
    holders: dict[str, list[str]] = {}
    for source in sources:
        if source.times.size:
            holders.setdefault(calendar_of(source.times), []).append(source.name)
    if len(holders) < 2:
        return ""
    return f"the sources have times of {len(holders)} calendars: " + ", ".join(
        f"{calendar} ({few(names, 3)})" for calendar, names in sorted(holders.items())
    )


def require_one_calendar(sources: Iterable[Source]) -> None:
    """Refuse sources of several calendars, whose times cannot be compared.

    Raises
    ------
    TimeAxisError
        With the sources of each calendar.
    """
    if fault := calendar_fault(sources):
        raise TimeAxisError(fault, remedy=ONE_CALENDAR)


def find_offers(name: str, surveyed: Sequence[Source], *, on_levels: bool) -> list[Offer]:
    """Return the offers of one variable, in the order of the sources.

    Behind them come offers of its other form (``EQUIVALENTS``: geopotential and geopotential height) of sources that have
    times or levels which it lacks. :func:`weathermill.fields.assembly.give_way` keeps them to these.

    Parameters
    ----------
    name
        A canonical or flat name.
    surveyed
        From :func:`survey`.
    on_levels
        Whether it is wanted on pressure levels.

    Raises
    ------
    MissingVariableError, MissingLevelError, CoordinateError
        Where none can be used, with what is offered.
    """
    every = [offer for source in surveyed for offer in source.offers]
    flat = None if name in CONVENTIONS else split_flat_name(name)
    base = flat[0] if flat else name
    levelled = on_levels or flat is not None
    found: list[Offer] = []
    usable: list[Offer] = []
    elsewhere: list[Offer] = []
    for wanted in [base, *([EQUIVALENTS[base][0]] if base in EQUIVALENTS else [])]:
        kind = [
            offer for offer in every if offer.variable == wanted and (offer.levels is not None) == levelled
        ]
        if flat:
            elsewhere += kind
            kind = [offer for offer in kind if offer.problem or holds_level(offer, flat[1])]
        free = without_displaced([offer for offer in kind if not offer.problem])
        if usable and levelled:
            # The other form of the same field counts at times and levels that the form asked for lacks.
            usable += _beyond(free, usable, surveyed, None if flat is None else flat[1])
        elif not found:
            found, usable = kind, free
    if flat and elsewhere and not found:
        raise MissingLevelError(
            f"{flat[0]} has no level {flat[1]:g} hPa; it is offered at {level_text(elsewhere)} hPa",
            where=where_text(elsewhere),
        )
    if usable:
        return usable
    if found:
        raise CoordinateError(
            f"{name} cannot be used: {found[0].problem}",
            where=found[0].label,
            remedy=found[0].remedy or None,
        )
    raise MissingVariableError(
        f"{name} is in none of the sources, which offer {describe_offers(every)}",
        where=", ".join(source.name for source in surveyed[:5]) + (", …" if len(surveyed) > 5 else ""),
        remedy=_advice(name, every, on_levels),
    )


def _beyond(
    offers: Sequence[Offer], first: Sequence[Offer], surveyed: Sequence[Source], level: float | None
) -> list[Offer]:
    """Return the offers, on levels, that have a time at one of them (or at one level, hPa) which none of the first has."""
    covered: dict[tuple[int, ...], set[Any]] = {}
    added = []
    for offer in offers:
        own = set(surveyed[offer.rank].times.tolist())
        for each in offer.levels if level is None else [level]:
            ranks = tuple(sorted({other.rank for other in first if holds_level(other, float(each))}))
            if ranks not in covered:
                covered[ranks] = {time for rank in ranks for time in surveyed[rank].times.tolist()}
            if not own <= covered[ranks]:
                added.append(offer)
                break
    return added


def _advice(name: str, offers: Sequence[Offer], on_levels: bool) -> str | None:
    meant = [canonical for canonical in canonical_for_alias(name) if canonical != name]
    if meant:
        return f"Ask for it by its canonical name: {' or '.join(meant)}."
    elsewhere = [offer for offer in offers if offer.variable == name]
    if elsewhere:
        place = "surface_variables (it has no levels)" if on_levels else "variables (it is on levels)"
        return f"Name it among {place}."
    return None


def where_text(offers: Sequence[Offer]) -> str:
    """Return the labels of a few offers, for messages."""
    labels = list(dict.fromkeys(offer.label for offer in offers))
    return ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")


def level_text(offers: Sequence[Offer]) -> str:
    """Return the levels of offers in hPa, for messages."""
    levels = sorted({float(level) for offer in offers if offer.levels is not None for level in offer.levels})
    return ", ".join(f"{level:g}" for level in levels)
