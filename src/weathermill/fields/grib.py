"""GRIB files through ecCodes: an index of all messages, and one lazy dataset for each variable and file.

Every message is accounted for: it is used, merged, or named in the findings with the reason. Variables on unequal
levels or steps stay apart instead of being dropped, time and step become valid time, and no index file is left beside
the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from weathermill.errors import UnreadableSourceError
from weathermill.fields.coordinates import REDUCED
from weathermill.fields.findings import Finding, attach
from weathermill.fields.grib_grids import GribGrid
from weathermill.fields.grib_intervals import Entry, difference
from weathermill.fields.grib_messages import Message, decode, index_file
from weathermill.fields.grib_variants import SURFACES, Variant, as_time, holes, variants_of

_LEVEL_NAMES = {"isobaricInhPa": "level", "isobaricInPa": "level"}
_LEVEL_UNITS = {"isobaricInhPa": "hPa", "isobaricInPa": "Pa"}


@dataclass(frozen=True)
class GribVariable:
    """One variable of one file.

    Attributes
    ----------
    name
        The variable with its type of level, and what else sets it apart in the file.
    dataset
        Lazy.
    paths
        The file, and others that its values need.
    """

    name: str
    dataset: xr.Dataset
    paths: tuple[Path, ...]


def open_grib(paths: Sequence[Path]) -> list[GribVariable]:
    """Open GRIB files, edition 1 or 2, lazily.

    Parameters
    ----------
    paths
        Local files, which are looked at together: steps of one forecast may be spread over them.

    Returns
    -------
    list of GribVariable
        In the order of the files. Findings are attached to the datasets.

    Raises
    ------
    UnreadableSourceError
        Where ecCodes is not installed, a message is damaged or cut off, or no message of a file lies on a grid that can
        be used.
    """
    indices = [index_file(path) for path in paths]
    for index in indices:
        if not index.messages:
            raise index.unusable[0][0]
    common: list[Finding] = []
    variants = variants_of(indices, common)
    opened: list[GribVariable] = []
    for path, index in zip(paths, indices, strict=True):
        own = [
            Finding(
                "warning", path.name, f"{error.what}: {count} messages are passed over", error.remedy or ""
            )
            for error, count in index.unusable
        ]
        found = _of_file(path, variants)
        if found:
            attach(found[0].dataset, own)
        else:
            common.append(
                Finding(
                    "info",
                    path.name,
                    "none of its messages is used: other files, or later forecasts, have them",
                )
            )
            common.extend(own)
        opened.extend(found)
    if paths and not opened:
        raise UnreadableSourceError(
            "no message of the GRIB files can be used: "
            + "; ".join(f"{finding.subject}: {finding.message}" for finding in common[:3]),
            where=", ".join(str(path) for path in paths[:3]),
            remedy="Add the files that hold the other steps of the forecast.",
        )
    attach(opened[0].dataset, common)
    return opened


def _of_file(path: Path, variants: Sequence[Variant]) -> list[GribVariable]:
    labelled: list[tuple[str, Variant, list[Entry]]] = []
    for variant in variants:
        label = f"{variant.name}@{variant.field.level_type}"
        mine = [entry for entry in variant.entries if entry.message.path == path]
        if mine:
            labelled.append((label, variant, mine))
        copies = [entry for entry in variant.copies if entry.message.path == path]
        labelled += [(label, variant, entries) for entries in _without_repetition(copies)]
    result, seen = [], {}
    for label, variant, entries in labelled:
        alike = [other for text, other, _ in labelled if text == label]
        own = (*variant.field.origin, variant.field.experiment)
        theirs = [(*other.field.origin, other.field.experiment) for other in alike]
        label += "".join(
            f",{part or 'none'}" for i, part in enumerate(own) if len({other[i] for other in theirs}) > 1
        )
        seen[label] = seen.get(label, 0) + 1
        name = label if seen[label] == 1 else f"{label}#{seen[label]}"
        used = dict.fromkeys([path, *(e.minus.path for e in entries if e.minus is not None)])
        result.append(GribVariable(name, _dataset(variant, entries), tuple(used)))
    return result


def _without_repetition(copies: Sequence[Entry]) -> list[list[Entry]]:
    """Return copies in groups that have each time, level and member once, and all combinations of them."""
    groups, remaining = [], list(copies)
    while remaining:
        unique: dict[tuple, Entry] = {}
        for entry in remaining:
            message = entry.message
            unique.setdefault((message.valid, message.level, message.number), entry)
        group = list(unique.values())
        if holes(group)[0]:
            # By level and member, or those without a copy would seem to be missing.
            by_place: dict[tuple, list[Entry]] = {}
            for entry in group:
                by_place.setdefault((entry.message.level, entry.message.number), []).append(entry)
            groups += list(by_place.values())
        else:
            groups.append(group)
        taken = {id(entry) for entry in group}
        remaining = [entry for entry in remaining if id(entry) not in taken]
    return groups


def _dataset(variant: Variant, entries: Sequence[Entry]) -> xr.Dataset:
    times = np.unique(np.array([entry.message.valid for entry in entries]))
    # Levels stay in the order of the file, members and times ascend.
    levels = list(dict.fromkeys(entry.message.level for entry in entries))
    numbers = sorted({entry.message.number for entry in entries})
    table: dict[tuple[int, int, int], Entry] = {}
    for entry in entries:
        message = entry.message
        place = (
            numbers.index(message.number),
            int(np.searchsorted(times, message.valid)),
            levels.index(message.level),
        )
        table[place] = entry
    kind = variant.field.level_type
    level_name = _LEVEL_NAMES.get(kind, kind)
    grid = variant.grid
    array = _GribArray(grid, table, (len(numbers), times.size, len(levels)))
    data = indexing.LazilyIndexedArray(array)
    rows, columns = ("latitude", "longitude") if grid.latitude.ndim == 1 else ("y", "x")
    variable = xr.Variable(("number", "time", level_name, rows, columns), data, variant.attrs)
    coords: dict[str, Any] = {
        "time": times,
        "latitude": ((rows, columns) if grid.latitude.ndim == 2 else rows, grid.latitude, _angle("north")),
        "longitude": (
            (rows, columns) if grid.longitude.ndim == 2 else columns,
            grid.longitude,
            _angle("east"),
        ),
    }
    # Selecting is lazy too: lengths of one are taken out where they say nothing.
    if len(numbers) == 1:
        variable = variable.isel(number=0)
    if variant.field.product == "ens":
        coords["number"] = ("number", np.array(numbers)) if len(numbers) > 1 else numbers[0]
    if kind in SURFACES and len(levels) == 1:
        variable = variable.isel({level_name: 0})
    else:
        attrs = {"units": _LEVEL_UNITS[kind]} if kind in _LEVEL_UNITS else {}
        coords[level_name] = (level_name, _level_values(levels), attrs)
    if variant.field.experiment:
        coords["expver"] = variant.field.experiment
    variable.encoding["preferred_chunks"] = {"time": 1}
    step = max(entry.step for entry in entries)
    if step:
        # How far apart two packed numbers are: what tells equal values from different ones.
        variable.encoding["scale_factor"] = step
    attrs = {} if grid.expansion is None else {REDUCED: grid.expansion.name}
    dataset = xr.Dataset({variant.name: variable}, coords=coords, attrs=attrs)
    missing, full, beside = holes(entries)
    if beside is not None:
        attach(
            dataset,
            [
                Finding(
                    "warning",
                    variant.name,
                    f"{missing} of {full} fields (times by levels and members) are not in the file, for instance at"
                    f" {as_time(beside)}; they are missing values",
                )
            ],
        )
    return dataset


def _angle(direction: str) -> dict[str, str]:
    return {
        "units": f"degrees_{direction}",
        "standard_name": "latitude" if direction == "north" else "longitude",
    }


def _level_values(levels: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Return the values of levels; of layers their tops, or their middles where several begin at the same top."""
    tops = np.array([level[0] for level in levels])
    return (
        tops if np.unique(tops).size == tops.size else np.array([float(np.mean(level)) for level in levels])
    )


class _GribArray(BackendArray):
    """(member, time, level, row, column) of one variable, whose messages are decoded when asked for."""

    def __init__(
        self, grid: GribGrid, table: dict[tuple[int, int, int], Entry], leading: tuple[int, int, int]
    ):
        self.table = table
        self.shape = (*leading, *grid.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        chosen = [
            np.arange(n)[k] if not isinstance(k, int | np.integer) else np.array([int(k)])
            for k, n in zip(key, self.shape, strict=True)
        ]
        out = np.full([c.size for c in chosen], np.nan, dtype=self.dtype)
        with _Reader() as reader:
            for i, member in enumerate(chosen[0]):
                for k, level in enumerate(chosen[2]):
                    for j, time in enumerate(chosen[1]):
                        entry = self.table.get((int(member), int(time), int(level)))
                        if entry is not None:
                            out[i, j, k] = reader.values(entry)[np.ix_(chosen[3], chosen[4])]
        dropped = tuple(i for i, k in enumerate(key) if isinstance(k, int | np.integer))
        return out.squeeze(axis=dropped) if dropped else out


class _Reader(ExitStack):
    """Decodes messages; keeps files open and the last message, of which the next interval is often made."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[Path, Any] = {}
        self._last: tuple[Message, np.ndarray] | None = None

    def values(self, entry: Entry) -> np.ndarray:
        """Return (rows, columns) float32 of an entry."""
        if entry.minus is None and not entry.window:
            return self._message(entry.message).astype(np.float32)
        earlier = None if entry.minus is None else self._message(entry.minus)
        later = self._message(entry.message)
        self._last = (entry.message, later)
        return (later if earlier is None else difference(entry, later, earlier)).astype(np.float32)

    def _message(self, message: Message) -> np.ndarray:
        if self._last is not None and self._last[0] is message:
            return self._last[1]
        if message.path not in self._files:
            self._files[message.path] = self.enter_context(message.path.open("rb"))
        return decode(self._files[message.path], message)
