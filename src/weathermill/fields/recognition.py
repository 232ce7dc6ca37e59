"""Which canonical variables a source offers, and on which levels."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import xarray as xr

from weathermill.fields.choices import FILE_NAME, Choice
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, OF_FILE, TIME, VERTICAL
from weathermill.fields.findings import Finding
from weathermill.fields.vocabulary import (
    ALONG_GRID,
    CONVENTIONS,
    VariableConvention,
    canonical_for_alias,
    split_flat_name,
)

EXPVER = "expver"
#: Attribute by which forms of one GRIB parameter are known under whatever name.
GRIB_PARAMETER = "GRIB_parameter"


@dataclass(frozen=True)
class Offer:
    """One variable of one source, under its canonical name.

    Attributes
    ----------
    variable
        Canonical name, or the file's own where the vocabulary does not have it.
    array
        Still as in the file: units, order and data type; dimensions renamed, those of length one dropped.
    source
        Name of the source, for messages.
    rank
        The place of the source among all sources.
    levels
        hPa, in the file's order; None without a level. One level for a flat name or a scalar coordinate.
    native_time_chunk
        How many time steps the file stores together; 1 where it does not say.
    problem
        Why it cannot be used, or empty.
    remedy
        What to do about the problem; may be empty.
    angle
        For winds along the axes of a grid, the angle from east to the x axis (latitude, longitude) in radians.
    said_axes
        What says that they lie so.
    """

    variable: str
    array: xr.DataArray
    source: str
    rank: int
    levels: np.ndarray | None
    native_time_chunk: int = 1
    problem: str = ""
    remedy: str = ""
    angle: np.ndarray | None = None
    said_axes: str = ""

    @property
    def convention(self) -> VariableConvention | None:
        """The vocabulary's entry, or None."""
        return CONVENTIONS.get(self.variable)

    @property
    def file_name(self) -> str:
        """The file's name for it."""
        return str(self.array.encoding.get(FILE_NAME, self.array.name))

    @property
    def label(self) -> str:
        """The file's name for it, with the source."""
        return f"{self.source}:{self.file_name}"


def recognise(name: str, array: xr.DataArray, on_levels: bool) -> str | None:
    """Return the canonical name of a variable, or None.

    What names it, in this order: the canonical name itself, the GRIB parameter number, the GRIB or
    WeatherBench short name, the variable's name as an alias, the standard name.
    """
    if name in CONVENTIONS and (CONVENTIONS[name].kind == "pressure") == on_levels:
        return name
    attrs = array.attrs
    param_id = attrs.get("GRIB_paramId")
    if param_id is not None:
        matches = [
            entry.name
            for entry in CONVENTIONS.values()
            if int(param_id) in entry.param_id and (entry.kind == "pressure") == on_levels
        ]
        if len(matches) == 1:
            return matches[0]
    for alias in (attrs.get("GRIB_shortName"), attrs.get("short_name"), name):
        if isinstance(alias, str):
            matches = canonical_for_alias(alias, on_levels=on_levels)
            if len(matches) == 1:
                return matches[0]
    standard_name = attrs.get("standard_name")
    standard_name = ALONG_GRID.get(standard_name, standard_name)
    if standard_name:
        matches = [
            entry.name
            for entry in CONVENTIONS.values()
            if entry.standard_name == standard_name and (entry.kind == "pressure") == on_levels
        ]
        # Near the ground one standard name covers several heights, so that it says too little by itself.
        if len(matches) == 1 and (on_levels or not matches[0].startswith(("2m_", "10m_", "100m_"))):
            return matches[0]
    return None


def offers_of(
    dataset: xr.Dataset,
    source: str,
    rank: int,
    findings: MutableSequence[Finding] | None = None,
    choices: Mapping[str, Choice] = MappingProxyType({}),
) -> list[Offer]:
    """Return what one source offers; data is not read.

    Parameters
    ----------
    dataset
        From :func:`weathermill.fields.coordinates.standardise`.
    source, rank
        Its name and its place among all sources.
    findings
        Where to record what was noticed.
    choices
        What there is to choose along dimensions beside time, level and place.
    """
    offers: list[Offer] = []
    for name, array in dataset.data_vars.items():
        if LATITUDE not in array.dims or LONGITUDE not in array.dims:
            continue
        if array.dtype.kind in "fiub":
            # One variable under two names stays two offers: whether they agree is seen where they are joined.
            offers.append(_offer(str(name), array, dataset, source, rank, choices))
    return offers


def without_displaced(offers: Sequence[Offer]) -> list[Offer]:
    """Leave out offers of a variable for which a user's table names another one of the same file.

    Parameters
    ----------
    offers
        Of one variable. What is only recognised gives way where the same file has a named one with a level in common,
        and where the named one is another form (step type, time covered) of the same GRIB parameter in any file.
    """
    named = [offer for offer in offers if FILE_NAME in offer.array.encoding]
    return [
        offer
        for offer in offers
        if FILE_NAME in offer.array.encoding or not any(_displaces(other, offer) for other in named)
    ]


def _displaces(named: Offer, other: Offer) -> bool:
    parameters = [offer.array.attrs.get(GRIB_PARAMETER) for offer in (named, other)]
    same_file = named.source.split("!")[0] == other.source.split("!")[0]
    if not same_file and (parameters[0] is None or parameters[0] != parameters[1]):
        return False
    if named.levels is None or other.levels is None:
        return True
    return bool(np.isclose(named.levels[:, None], other.levels[None], rtol=1e-4).any())


def _offer(
    name: str,
    array: xr.DataArray,
    dataset: xr.Dataset,
    source: str,
    rank: int,
    choices: Mapping[str, Choice],
) -> Offer:
    time_chunk = _native_time_chunk(array)
    problem = remedy = ""
    levels: np.ndarray | None = None
    vertical = dataset.attrs.get(VERTICAL, {})
    for dim in [str(d) for d in array.dims]:
        if dim in (TIME, LEVEL, LATITUDE, LONGITUDE, EXPVER):
            continue
        choice = choices.get(dim)
        if array.sizes[dim] == 1:
            array = array.isel({dim: 0}, drop=True)
        elif dim in vertical:
            problem, remedy = vertical[dim]
            if choice is not None and dim not in ("level", "time"):
                remedy += f" {choice.remedy}"
            levels = np.array([])
        elif choice is not None:
            problem, remedy = f"it has {choice.what}", choice.remedy
        else:
            problem = (
                f"it has the dimension {dim.removesuffix(OF_FILE)!r} of length {array.sizes[dim]} beside time,"
                " level and place"
            )
    if LEVEL in array.dims:
        if LEVEL in dataset.coords:
            levels = dataset[LEVEL].values
        else:
            problem = "its level dimension has no values"
    flat = split_flat_name(name)
    if levels is None and flat is not None:
        return Offer(flat[0], array, source, rank, np.array([flat[1]]), time_chunk, problem, remedy)
    scalar_level = LEVEL in dataset.coords and dataset[LEVEL].ndim == 0
    # A scalar level may stand beside fields of the surface, whose names then mean nothing on a level.
    if levels is None and scalar_level and recognise(name, array, on_levels=True):
        levels = dataset[LEVEL].values.reshape(1)
    if FILE_NAME in array.encoding:
        # A user's table names it, which no recognition may overrule.
        variable = flat[0] if flat is not None else name
        on_levels = CONVENTIONS[variable].kind == "pressure" and flat is None
        if not problem and on_levels != (levels is not None):
            problem = f"ingest.names calls it {name}, " + (
                "which is on pressure levels, and it has none"
                if levels is None
                else "which has no levels, and it is on pressure levels"
            )
            remedy = "Correct ingest.names; a field on one level is called after it, as geopotential_500."
    else:
        known = recognise(name, array, on_levels=levels is not None)
        if known is None and levels is not None and not levels.size:
            # On heights there may be a variable of the surface, such as the temperature at 2 m and 10 m.
            known = recognise(name, array, on_levels=False)
            levels = levels if known is None else None
        variable = known or name
    return Offer(variable, array, source, rank, levels, time_chunk, problem, remedy)


def _native_time_chunk(array: xr.DataArray) -> int:
    chunks = array.encoding.get("shards") or array.encoding.get("chunks") or array.encoding.get("chunksizes")
    if TIME not in array.dims or not chunks or len(chunks) != array.ndim:
        return 1
    return max(1, int(chunks[array.dims.index(TIME)]))


def describe_offers(offers: list[Offer]) -> str:
    """Return one line of what is offered: each variable with its file name and levels."""
    parts: dict[str, set] = {}
    names: dict[str, str] = {}
    for offer in offers:
        names.setdefault(offer.variable, offer.file_name)
        parts.setdefault(offer.variable, set()).update(() if offer.levels is None else offer.levels)
    texts = []
    for variable, levels in sorted(parts.items()):
        alias = "" if names[variable] == variable or levels else f" ({names[variable]})"
        if levels:
            alias = f" at {', '.join(f'{level:g}' for level in sorted(levels))} hPa"
        texts.append(variable + alias)
    return "; ".join(texts) or "no gridded variable"
