"""Which fields of GRIB files are one variable and which are not, and what each is called.

Messages that differ in step type, in the time that they cover, in the type of level or in the kind of ensemble product
are different fields, whatever their parameter. Where one of them is what the parameter's name stands for, it keeps that
name; the others are called after what sets them apart (``tp_accum_3h``, ``2t_max_6h``), and are taken for nothing else
unless `ingest.names` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weathermill.fields.findings import Finding, Severity
from weathermill.fields.grib_grids import GribGrid
from weathermill.fields.grib_intervals import Entry, Intervals, intervals_of
from weathermill.fields.grib_messages import FieldKey, FileIndex, Message
from weathermill.fields.recognition import GRIB_PARAMETER
from weathermill.fields.vocabulary import CONVENTIONS, VariableConvention, canonical_for_alias

PRESSURE = ("isobaricInhPa", "isobaricInPa")
SURFACES = (
    "surface",
    "meanSea",
    "heightAboveGround",
    "entireAtmosphere",
    "atmosphere",
    "atmosphereSingleLayer",
    "depthBelowLandLayer",
    "nominalTop",
)
_STATISTICS = {"accum": "sum", "avg": "mean", "max": "maximum", "min": "minimum"}


@dataclass
class Variant:
    """One variable as it is offered.

    Attributes
    ----------
    field, grid, window
        What all its entries have in common; ``window`` in seconds, 0 for instantaneous fields.
    entries
        One for each time, level and member.
    copies
        Entries for which there is another one with the same keys.
    name
        Of the variable in the dataset.
    attrs
        Units, long name and, where the name is the parameter's own, what recognises it.
    """

    field: FieldKey
    grid: GribGrid
    window: int
    entries: list[Entry]
    copies: list[Entry] = field(default_factory=list)
    name: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def on_pressure(self) -> bool:
        """Whether it lies on pressure levels."""
        return self.field.level_type in PRESSURE

    @property
    def covering(self) -> str:
        """The step type with the time covered: ``instant``, ``accum_6h``."""
        return self.field.statistic + (f"_{duration(self.window)}" if self.window else "")

    @property
    def place(self) -> str:
        """The type of level, pressure levels in Pa and hPa being one."""
        return "pressure" if self.on_pressure else self.field.level_type


def duration(seconds: int) -> str:
    """Return a time span as text without blanks: ``6h``, ``15min``."""
    if seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    return f"{seconds // 60}min" if seconds % 60 == 0 else f"{seconds}s"


def variants_of(
    indices: Sequence[FileIndex], findings: MutableSequence[Finding] | None = None
) -> list[Variant]:
    """Return the variables that files of one listing hold together.

    Parameters
    ----------
    indices
        Of the files, in their order.
    findings
        Where to record what is merged, set aside, differenced or called by another name.
    """
    groups: dict[tuple[FieldKey, str], list[Message]] = {}
    attributes: dict[FieldKey, dict[str, Any]] = {}
    for index in indices:
        for key, attrs in index.attributes.items():
            attributes.setdefault(key, attrs)
        for message in index.messages:
            groups.setdefault((message.field, message.grid.identity), []).append(message)
    notes: list[Finding] = []
    variants: list[Variant] = []
    for (key, _), messages in groups.items():
        variants.extend(_split(key, messages, notes))
    families: dict[tuple, list[Variant]] = {}
    for variant in variants:
        families.setdefault((variant.field.parameter, variant.on_pressure), []).append(variant)
    for family in families.values():
        _name(family, attributes, notes)
    if findings is not None:
        findings.extend(notes)
    return variants


def _note(notes: list[Finding], severity: Severity, subject: str, message: str, remedy: str = "") -> None:
    notes.append(Finding(severity, subject, message, remedy))


def _count(messages: Sequence[Any]) -> str:
    return f"{len(messages)} message{'s' * (len(messages) != 1)}"


def _split(key: FieldKey, messages: list[Message], notes: list[Finding]) -> list[Variant]:
    """Return the variants of messages that share everything but run, time covered, level and member."""
    first: dict[tuple, Message] = {}
    copies: list[tuple[tuple, Message]] = []
    for message in messages:
        place = (message.run, message.start, message.end, message.level, message.number, message.analysis)
        if place in first:
            copies.append((place, message))
        else:
            first[place] = message
    distinct = list(first.values())
    if key.statistic == "accum":
        intervals = intervals_of(distinct)
        _tell_intervals(key, intervals, notes)
        entries = intervals.entries
    else:
        entries = [Entry(m, 0 if key.statistic == "instant" else m.end - m.start) for m in distinct]
    by_window: dict[int, list[Entry]] = {}
    for entry in _latest(key, entries, notes):
        by_window.setdefault(entry.window, []).append(entry)
    of_message = {id(entry.message): entry for group in by_window.values() for entry in group}
    variants = {w: Variant(key, messages[0].grid, w, group) for w, group in sorted(by_window.items())}
    for place, message in copies:
        original = of_message.get(id(first[place]))
        if original is not None:
            copy = Entry(message, original.window, original.minus)
            variants[original.window].copies.append(copy)
    return list(variants.values())


def _tell_intervals(key: FieldKey, intervals: Intervals, notes: list[Finding]) -> None:
    if intervals.differenced:
        _note(
            notes,
            "info",
            key.name,
            f"its sums from the start of a forecast (or from the last reset) are differenced to intervals:"
            f" {intervals.differenced} of {len(intervals.entries)} fields",
        )
    for messages, why in (
        (intervals.empty, "sum over no time at all"),
        (intervals.redundant, "cover times that shorter sums cover too"),
        (intervals.aside, "are the first sum of a forecast, over a longer time than every step after it"),
    ):
        if messages:
            _note(notes, "info", key.name, f"{_count(messages)} {why}, and are not used")


def _latest(key: FieldKey, entries: list[Entry], notes: list[Finding]) -> list[Entry]:
    """Of several forecasts for one time keep the one from the latest start, and an analysis before all."""
    best: dict[tuple, Entry] = {}
    for entry in entries:
        message = entry.message
        place = (message.valid, message.level, message.number, entry.window)
        known = best.get(place)
        if known is None or (message.end, not message.analysis) < (
            known.message.end,
            not known.message.analysis,
        ):
            best[place] = entry
    lost = len(entries) - len(best)
    if lost:
        _note(
            notes,
            "info",
            key.name,
            f"{lost} of its {len(entries)} messages are forecasts for times that a later forecast, or an analysis, has"
            " too; the latest counts",
        )
    return list(best.values())


def _convention(field: FieldKey, on_pressure: bool) -> VariableConvention | None:
    """Return the vocabulary's entry for a parameter, or None."""
    matches = [
        entry
        for entry in CONVENTIONS.values()
        if field.parameter[0] in entry.param_id and (entry.kind == "pressure") == on_pressure
    ]
    if not matches:
        matches = [CONVENTIONS[name] for name in canonical_for_alias(field.name, on_levels=on_pressure)]
    return matches[0] if len(matches) == 1 else None


def _name(family: list[Variant], attributes: dict[FieldKey, dict[str, Any]], notes: list[Finding]) -> None:
    """Decide which of the variants of one parameter bears its name, and name the others."""
    convention = _convention(family[0].field, family[0].on_pressure)
    short = family[0].field.name
    usual = _usual(family, convention, notes)
    kinds = {(v.place, v.covering, v.field.product) for v in usual}
    plain = usual if len(kinds) == 1 else []
    for variant in family:
        own = variant in plain
        variant.name = short if own else _full_name(variant, family)
        variant.attrs = _attributes(variant, attributes[variant.field], own)
    others = sorted({v.name for v in family if v not in plain})
    if plain and convention is not None and convention.accumulated and plain[0].window:
        _note(notes, "info", convention.name, f"its fields in GRIB are {describe(plain[0])}")
    if not others:
        return
    known = "" if convention is None else f" as {convention.name}"
    if plain:
        what = f"{describe(plain[0])} is taken{known}; the files also hold {', '.join(others)}"
        _note(notes, "info", short, what)
        return
    choices = ", ".join(f"{name} ({describe(v)})" for name, v in sorted({v.name: v for v in family}.items()))
    what = f"it is there in forms that are not the same, each under a name of its own: {choices}"
    if convention is None:
        _note(notes, "info", short, what)
    else:
        remedy = f"Say by ingest.names which is {convention.name}, for instance {{{others[0]}: {convention.name}}}."
        settled_by = tuple(sorted({v.name for v in family}))
        notes.append(Finding("warning", short, what, remedy, settled_by))


def _usual(
    family: list[Variant], convention: VariableConvention | None, notes: list[Finding]
) -> list[Variant]:
    """Return the variants that may bear the parameter's name."""
    accumulated = convention is not None and convention.accumulated
    usual = [v for v in family if v.field.statistic == _statistic(v, convention, accumulated)]
    if not usual and len({v.field.statistic for v in family}) == 1:
        usual = _unusual_statistic(family, convention, accumulated, notes)
    products = {v.field.product for v in usual}
    if products - {"", "ens"} and (convention is not None or len(products) > 1):
        usual = [v for v in usual if v.field.product in ("", "ens")]
    if len({v.place for v in usual}) > 1:
        near = [v for v in usual if v.field.level_type in SURFACES]
        usual = near if len({v.place for v in near}) == 1 else usual
    return usual


def _statistic(variant: Variant, convention: VariableConvention | None, accumulated: bool) -> str:
    if accumulated:
        return "accum"
    # ECMWF's mean rates are means by their definition.
    if 235000 <= variant.field.parameter[0] < 236000:
        return "avg"
    return "instant"


def _unusual_statistic(
    family: list[Variant],
    convention: VariableConvention | None,
    accumulated: bool,
    notes: list[Finding],
) -> list[Variant]:
    statistic, short = family[0].field.statistic, family[0].field.name
    if convention is None:
        return family
    if accumulated and statistic == "instant":
        ends: dict[Any, set[int]] = {}
        for variant in family:
            for entry in variant.entries:
                ends.setdefault(entry.message.run, set()).add(entry.message.end)
        if max(len(steps) for steps in ends.values()) > 1:
            return []
        _note(
            notes,
            "warning",
            convention.name,
            f"the messages of {short} do not say over what time they sum; they are taken as they are",
        )
        return family
    if accumulated and statistic == "avg":
        # A mean is no sum, though the parameter is one.
        return []
    if statistic.startswith("avg") or statistic == "instant":
        _note(
            notes,
            "warning",
            convention.name,
            f"the messages of {short} hold {describe(family[0])}, not values at a time"
            if statistic != "instant"
            else f"the messages of {short} hold values at a time, not means",
        )
        return family
    return []


def describe(variant: Variant) -> str:
    """Return what a variant is, in words: ``the sum over 6h (surface)``."""
    statistic = variant.field.statistic
    if statistic == "instant":
        text = "the value at a time"
    else:
        text = f"the {_STATISTICS.get(statistic, statistic)}"
        text += f" over {duration(variant.window)}" if variant.window else ""
    product = {"": "", "ens": " of a member", "em": " of the ensemble mean", "es": " of the ensemble spread"}
    return (
        text
        + product.get(variant.field.product, f" ({variant.field.product})")
        + (" on pressure levels" if variant.on_pressure else f" ({variant.field.level_type})")
    )


def _full_name(variant: Variant, family: Sequence[Variant]) -> str:
    """Return the short name with what sets a variant apart from the rest of its family."""
    parts = [variant.field.name]
    if len({v.place for v in family}) > 1:
        parts.append(variant.place)
    if len({v.covering for v in family}) > 1 or variant.field.statistic != "instant":
        parts.append(variant.covering)
    if len({v.field.product for v in family}) > 1 or variant.field.product not in ("", "ens"):
        parts.append(variant.field.product or "single")
    if len(parts) == 1:
        parts.append(variant.covering)
    return "_".join(parts)


def _attributes(variant: Variant, base: dict[str, Any], own: bool) -> dict[str, Any]:
    attrs = dict(base)
    attrs[GRIB_PARAMETER] = "_".join(str(number) for number in variant.field.parameter)
    if variant.window and variant.field.statistic in _STATISTICS:
        attrs["cell_methods"] = (
            f"time: {_STATISTICS[variant.field.statistic]} (interval: {variant.window / 3600:g} hours)"
        )
    if not own:
        # Nothing but the name may recognise it, so that it is taken for nothing else.
        for key in ("GRIB_paramId", "GRIB_shortName", "standard_name"):
            attrs.pop(key, None)
        attrs["long_name"] = f"{attrs['long_name']}, {describe(variant)}"
    return attrs


def holes(entries: Sequence[Entry]) -> tuple[int, int, Message | None]:
    """Return how many of the combinations of time, level and member are not there, of how many, and one beside it."""
    times = {entry.message.valid for entry in entries}
    levels = {entry.message.level for entry in entries}
    numbers = {entry.message.number for entry in entries}
    full = len(times) * len(levels) * len(numbers)
    missing = full - len(entries)
    if not missing:
        return 0, full, None
    most = Counter(entry.message.valid for entry in entries)
    rarest = min(most, key=lambda time: (most[time], time))
    return missing, full, next(e.message for e in entries if e.message.valid == rarest)


def as_time(message: Message) -> str:
    """Return the valid time of a message to the minute."""
    return str(np.datetime_as_string(message.valid, "m"))
