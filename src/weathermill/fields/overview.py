"""What sources hold, in canonical terms, and the parameters that would ingest it; data is not read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import WeathermillError
from weathermill.extent import is_global_longitude, is_globe
from weathermill.fields.choices import Choice, SourceOptions, is_lead
from weathermill.fields.findings import Finding
from weathermill.fields.geometry import has_pole_points
from weathermill.fields.survey import DECODABLE, ONE_CALENDAR, Source, calendar_fault
from weathermill.fields.timeaxis import calendar_of, first_text, gaps, usual_step
from weathermill.fields.vocabulary import CONVENTIONS
from weathermill.fields.wind_axes import settle_winds


@dataclass
class HeldVariable:
    """One variable over all sources: canonical name, the files' names and units for it, its levels in hPa."""

    name: str
    known: bool
    kind: str
    file_names: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    sources: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Overview:
    """What sources hold.

    Attributes
    ----------
    variables
        In the order of the vocabulary, unknown ones last.
    time
        Steps, first, last, step, calendar, gaps, repeated; empty without a time axis.
    grids
        Each grid with the sources that lie on it.
    findings
        What was noticed, and sources that cannot be used.
    reduced
        Whether a source lies on a reduced Gaussian grid, which only a parameter admits.
    select
        What is taken along dimensions beside time, level and place, of several lead times or members.
    names, units
        What was said of the sources.
    """

    sources: list[str]
    variables: list[HeldVariable]
    time: dict[str, Any]
    grids: list[dict[str, Any]]
    findings: list[Finding]
    reduced: bool = False
    select: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Return the `ingest` parameters that take all known variables at all times and shared levels."""
        usable = [variable for variable in self.variables if variable.known and not variable.problems]
        pressure = [variable for variable in usable if variable.kind == "pressure"]
        shared = set.intersection(*(set(v.levels) for v in pressure)) if pressure else set()
        flat = [] if shared else [f"{v.name}_{level:g}" for v in pressure for level in v.levels]
        parameters: dict[str, Any] = {
            "variables": [v.name for v in pressure] if shared else [],
            "levels": [int(p) if p == int(p) else p for p in sorted(shared)] if shared else None,
            "surface_variables": [*flat, *(v.name for v in usable if v.kind == "surface")],
            "static_variables": [v.name for v in usable if v.kind == "static"],
        }
        parameters |= {
            key: dict(said)
            for key, said in (("units", self.units), ("names", self.names), ("select", self.select))
            if said
        }
        if self.time:
            parameters["start"] = self.time["first"]
        if self.reduced:
            parameters["reduced_grids"] = "expand"
        return parameters

    def to_text(self, *, with_findings: bool = True) -> str:
        """Return a few lines for a terminal, then an empty line and the parameters as YAML to paste."""
        lines = [f"{len(self.sources)} source{'s' * (len(self.sources) != 1)}: " + _few(self.sources)]
        if self.time:
            step = self.time["step_seconds"]
            lines.append(
                f"time      {self.time['steps']} steps, {self.time['first']} to {self.time['last']}"
                + (f", every {step / 3600:g} h" if step else "")
                + f", {self.time['calendar']}"
                + (f", {self.time['gaps']} gaps" if self.time["gaps"] else "")
                + (f", {self.time['repeated']} times repeated" if self.time["repeated"] else "")
            )
        for grid in self.grids:
            extent = grid["extent"]
            poles = ", points on the poles" if grid["poles"] else ""
            lines.append(
                f"grid      {grid['shape'][0]} x {grid['shape'][1]}, {extent}{poles}, latitude"
                f" {grid['latitude'][0]:g} to {grid['latitude'][1]:g}, longitude {grid['longitude'][0]:g} to"
                f" {grid['longitude'][1]:g}" + (f" ({_few(grid['sources'])})" if len(self.grids) > 1 else "")
            )
        width = max((len(variable.name) for variable in self.variables), default=0)
        for variable in self.variables:
            levels = f"  {', '.join(f'{p:g}' for p in variable.levels)} hPa" if variable.levels else ""
            called = [name for name in variable.file_names if name != variable.name]
            alias = f"  as {', '.join(called[:3])}" if called and variable.known else ""
            units = f"  [{' / '.join(variable.units)}]" if any(variable.units) else "  [no units]"
            problem = f"  cannot be used: {variable.problems[0]}" if variable.problems else ""
            unknown = "" if variable.known else "  (not in the vocabulary)"
            lines.append(
                f"  {variable.name:<{width}}  {variable.kind:<8}{units}{levels}{alias}{unknown}{problem}"
            )
        if with_findings:
            lines.extend(f"{f.severity}: {f.subject}: {f.message}" for f in self.findings)
        lines.extend(["", "ingest:", *yaml_lines(self.parameters())])
        return "\n".join(lines)


def _few(names: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def yaml_lines(parameters: dict[str, Any]) -> list[str]:
    """Return parameters as lines of YAML, indented by two."""
    lines = []
    for key, value in parameters.items():
        text = (
            "null"
            if value is None
            else (f"[{', '.join(map(str, value))}]" if isinstance(value, list) else f'"{value}"')
        )
        if isinstance(value, dict):
            text = "{" + ", ".join(f"{name}: {_quoted(chosen)}" for name, chosen in value.items()) + "}"
        lines.append(f"  {key}: {text}")
    return lines


def _quoted(text: str) -> str:
    """Quote a value for YAML unless it is a number, or a number with a unit."""
    return text if re.fullmatch(r"0|-?[1-9]\d*(\.\d+)?(h|min|s)?", text) else f'"{text}"'


def overview(
    sources: Sequence[xr.Dataset], source_names: Sequence[str], options: SourceOptions | None = None
) -> Overview:
    """Survey sources without reading their data.

    Parameters
    ----------
    sources, source_names
        From :func:`weathermill.fields.opening.open_sources`.
    options
        Names, units and values to select, which the proposed parameters repeat.

    Returns
    -------
    Overview
        Sources whose coordinates make no sense become findings instead of errors.
    """
    findings: list[Finding] = []
    options = options or SourceOptions()
    surveyed = _surveyed(sources, source_names, findings, options)
    choices = _to_choose(surveyed)
    select = {name: str(value) for name, value in options.select.items()}
    if choices:
        select |= {name: choice.texts[0] for name, choice in choices.items()}
        # Fields that could not be used without a choice are looked at with the one that is proposed.
        findings = [
            Finding("warning", name, f"there are {choice.what}; {select[name]} is proposed", choice.remedy)
            for name, choice in choices.items()
        ]
        surveyed = _surveyed(sources, source_names, findings, replace(options, select=select))
    findings.extend(_unusable(surveyed))
    grids = _grids(surveyed)
    if len(grids) > 1:
        findings.append(
            Finding(
                "error", "grid", f"the sources lie on {len(grids)} different grids", "Ingest them one by one."
            )
        )
    return Overview(
        sources=list(source_names),
        variables=_variables(surveyed),
        time=_time(surveyed, findings),
        grids=grids,
        findings=list(dict.fromkeys(findings)),
        select=select,
        names=dict(options.names),
        units=dict(options.units),
    )


def _to_choose(surveyed: Sequence[Source]) -> dict[str, Choice]:
    """Return the lead times and members of which one must be chosen before known variables can be used."""
    choices: dict[str, Choice] = {}
    for source in surveyed:
        for offer in source.offers:
            if not offer.problem or offer.variable not in CONVENTIONS:
                continue
            for dim in map(str, offer.array.dims):
                choice = source.arranged.choices.get(dim)
                if choice is not None and (choice.kind in ("lead", "member") or is_lead(dim, None)):
                    choices.setdefault(dim, choice)
    return choices


def _unusable(surveyed: Sequence[Source]) -> list[Finding]:
    """Return why known variables cannot be used, where something can be done about it."""
    return [
        Finding("warning", offer.variable, f"cannot be used: {offer.problem}", offer.remedy)
        for source in surveyed
        for offer in source.offers
        if offer.problem and offer.remedy and offer.variable in CONVENTIONS
    ]


def _surveyed(sources, source_names, findings: list[Finding], options: SourceOptions) -> list[Source]:
    surveyed: list[Source] = []
    for dataset, name in zip(sources, source_names, strict=True):
        try:
            surveyed.append(Source(dataset, name, len(surveyed), findings, options))
        except WeathermillError as error:
            findings.append(Finding("error", name, error.what, error.remedy or ""))
    settle_winds(surveyed, options.winds, findings)
    return surveyed


def _variables(surveyed: Sequence[Source]) -> list[HeldVariable]:
    held: dict[str, HeldVariable] = {}
    for source in surveyed:
        for offer in source.offers:
            convention = CONVENTIONS.get(offer.variable)
            kind = convention.kind if convention else ("pressure" if offer.levels is not None else "surface")
            entry = held.setdefault(
                offer.variable, HeldVariable(offer.variable, convention is not None, kind)
            )
            entry.sources += 1
            for values, value in (
                (entry.file_names, offer.file_name),
                (entry.units, str(offer.array.attrs.get("units", ""))),
            ):
                if value not in values:
                    values.append(value)
            if offer.levels is not None:
                entry.levels = sorted({*entry.levels, *map(float, offer.levels)})
            if offer.problem and offer.problem not in entry.problems:
                entry.problems.append(offer.problem)
    order = {name: i for i, name in enumerate(CONVENTIONS)}
    return sorted(held.values(), key=lambda entry: (order.get(entry.name, len(order)), entry.name))


def _time(surveyed: Sequence[Source], findings: list[Finding]) -> dict[str, Any]:
    axes = []
    for source in surveyed:
        if source.undecoded:
            findings.append(
                Finding("error", "time", f"{source.name}: cannot decode {source.undecoded}", DECODABLE)
            )
        if source.times.size:
            axes.append(source.times[source.positions(None, None)])
    if not axes:
        return {}
    if fault := calendar_fault(surveyed):
        findings.append(Finding("error", "time", fault, ONE_CALENDAR))
        return {}
    calendars = sorted({calendar_of(times) for times in axes if times.size})
    times, counts = np.unique(np.concatenate(axes), return_counts=True)
    # Files of different variables share their times; a time is repeated where one variable has it twice.
    repeated = int((counts > _most_offers(surveyed)).sum())
    return {
        "steps": int(times.size),
        "first": first_text(times[0]),
        "last": first_text(times[-1]),
        "step_seconds": usual_step(times),
        "calendar": calendars[0],
        "gaps": len(gaps(times)),
        "repeated": repeated,
    }


def _most_offers(surveyed: Sequence[Source]) -> int:
    """Return how many kinds of source (by the variables and levels they hold) there are."""
    kinds = {
        frozenset((o.variable, None if o.levels is None else tuple(o.levels)) for o in source.offers)
        for source in surveyed
        if source.times.size
    }
    return max(1, len(kinds))


def _extent(latitude: np.ndarray, longitude: np.ndarray) -> str:
    if latitude.ndim == 2:
        return "curvilinear"
    if is_globe(latitude, longitude):
        return "global"
    return "all longitudes" if is_global_longitude(longitude) else "a region"


def _grids(surveyed: Sequence[Source]) -> list[dict[str, Any]]:
    grids: dict[tuple, dict[str, Any]] = {}
    for source in surveyed:
        latitude, longitude = source.order.latitude, source.order.longitude
        key = (latitude.ndim, *np.round(latitude.ravel(), 3), None, *np.round(longitude.ravel(), 3))
        curvilinear = latitude.ndim == 2
        entry = grids.setdefault(
            key,
            {
                "shape": [source.order.rows.size, source.order.columns.size],
                "latitude": [float(latitude.flat[0]), float(latitude.flat[-1])],
                "longitude": [float(longitude.flat[0]), float(longitude.flat[-1])],
                "curvilinear": curvilinear,
                "extent": _extent(latitude, longitude),
                "poles": has_pole_points(latitude),
                "sources": [],
            },
        )
        entry["sources"].append(source.name)
    return list(grids.values())
