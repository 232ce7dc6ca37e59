"""A source as it is read further: with a user's names and choices, and times at which its fields are valid."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, ParameterError, TimeAxisError
from weathermill.fields.choices import (
    FILE_NAME,
    Choice,
    SourceOptions,
    choice_along,
    few,
    is_lead,
    position_of,
    rename,
    take_one,
)
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME, find_coordinate, is_time_like
from weathermill.fields.findings import Finding, tell
from weathermill.fields.fixed_maps import with_fixed_maps
from weathermill.fields.horizontal import in_degrees
from weathermill.fields.leads import to_valid_times
from weathermill.fields.timeaxis import first_text, missing_times
from weathermill.fields.timecoding import unblurred
from weathermill.fields.timemeans import tell_means

_AXES = (TIME, LEVEL, LATITUDE, LONGITUDE)
_INSTEAD = {
    TIME: "ingest.start and ingest.stop choose times",
    LEVEL: "ingest.levels chooses levels",
    LATITUDE: "the regrid stage chooses places",
    LONGITUDE: "the regrid stage chooses places",
}
# Longer dimensions (points of a mesh) have labels that nobody chooses by.
_MOST_CHOICES = 10_000


@dataclass(frozen=True)
class Arrangement:
    """A source after names, selections and lead times.

    Attributes
    ----------
    dataset
        Lazy, in the file's units and order.
    choices
        What there is to choose along its further dimensions.
    held
        Dimension -> labels along it, for the dimensions that were selected from.
    seen
        The names and dimensions of the options that it has, and ``name=`` where it holds the value to select.
    left_out
        Why nothing of it counts, or empty.
    """

    dataset: xr.Dataset
    choices: Mapping[str, Choice] = field(default_factory=dict)
    held: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    left_out: str = ""


def arrange(
    dataset: xr.Dataset,
    source: str,
    options: SourceOptions,
    findings: MutableSequence[Finding] | None = None,
) -> Arrangement:
    """Apply what a user says of a source, and make its times valid times; no field is read.

    Parameters
    ----------
    dataset
        As opened, with times decoded.
    source
        Its name for messages.
    options
        Names, units of coordinates, and values to select.
    findings
        Where to record what was done.

    Raises
    ------
    ParameterError
        Where an option cannot be meant so.
    CoordinateError, TimeAxisError
        Where lead times have no units, times are missing, or contradict each other.
    """
    dataset, seen = rename(dataset, source, options.names)
    dataset = with_fixed_maps(_with_units(dataset, options.units), source)
    dataset = _with_exact_times(dataset, source, findings)
    dataset, held, found, left_out = _selected(dataset, source, options, findings)
    seen |= found
    if left_out:
        tell(findings, "info", "ingest.select", f"{source} is left out: {left_out}")
        return Arrangement(dataset, {}, held, frozenset(seen), left_out)
    dataset = to_valid_times(dataset, source, options.units, findings)
    dataset = _without_missing_times(dataset, source, findings)
    _tell_scalar_times(dataset, source, findings)
    tell_means(dataset, source, findings)
    for axis in (LATITUDE, LONGITUDE):
        name = find_coordinate(dataset, axis)
        if name is not None:
            dataset = in_degrees(dataset, name)
    return Arrangement(dataset, _choices(dataset, source, options), held, frozenset(seen))


def _with_units(dataset: xr.Dataset, units: Mapping[str, str]) -> xr.Dataset:
    """Give coordinates the units that a user says they have."""
    result = dataset
    for key, said in units.items():
        names = [name for name in map(str, dataset.variables) if name == key and name in dataset.coords]
        if key in (LATITUDE, LONGITUDE) and not names:
            names = [name for name in [find_coordinate(dataset, key)] if name is not None]
        for name in names:
            variable = dataset.variables[name].copy(deep=False)
            variable.attrs = {**variable.attrs, "units": said}
            result = result.assign_coords({name: variable})
    result.encoding = dict(dataset.encoding)
    return result


def _with_exact_times(
    dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None
) -> xr.Dataset:
    exact = {}
    for name in dataset.coords:
        variable = dataset.variables[name]
        if variable.ndim <= 2 and is_time_like(variable):
            clear = unblurred(variable, str(name), source, findings)
            if clear is not variable:
                exact[name] = clear
    if not exact:
        return dataset
    result = dataset.assign_coords(exact)
    result.encoding = dict(dataset.encoding)
    return result


def _selected(dataset, source, options: SourceOptions, findings):
    """Take the values that are selected; returns the dataset, labels by dimension, what was found, why left out."""
    held: dict[str, tuple[str, ...]] = {}
    found: set[str] = set()
    for name, wanted in options.select.items():
        if name not in dataset.dims and (name not in dataset.coords or dataset.variables[name].ndim):
            continue
        if not is_lead(name, dataset.variables.get(name)):
            _refuse_axis(dataset, name, source)
        choice = choice_along(dataset, name, source, options.units)
        found.add(name)
        held[name] = choice.texts
        position = position_of(choice, wanted)
        if position is None:
            return dataset, held, found, f"it has no {name} of {wanted}, but {few(choice.texts)}"
        found.add(f"{name}=")
        if name in dataset.dims:
            if len(choice.texts) > 1:
                text = choice.texts[position]
                tell(findings, "info", name, f"{source}: {text} is taken of {few(choice.texts)}")
            dataset = take_one(dataset, name, position)
    return dataset, held, found, ""


def _refuse_axis(dataset: xr.Dataset, name: str, source: str) -> None:
    # One of several forecasts may be chosen by its initial time.
    forecasts = any(is_lead(str(dim), dataset.variables.get(dim)) for dim in dataset.dims)
    for axis in _AXES[1:] if forecasts else _AXES:
        coordinate = find_coordinate(dataset, axis)
        if coordinate is not None and name in (coordinate, *dataset.variables[coordinate].dims):
            raise ParameterError(
                f"ingest.select names {name}, which is the axis of {axis}",
                where=source,
                remedy=_INSTEAD[axis] + ".",
            )


def _without_missing_times(
    dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None
) -> xr.Dataset:
    """Leave out steps without a time that hold no value; refuse those that do."""
    name = find_coordinate(dataset, TIME)
    if name is None or dataset.variables[name].ndim > 1:
        return dataset
    variable = dataset.variables[name]
    missing = missing_times(np.atleast_1d(variable.values))
    if not missing.size:
        return dataset
    positions = ", ".join(map(str, missing[:8])) + (", …" if missing.size > 8 else "")
    what = (
        f"{missing.size} of {variable.size} times ({name}) are missing, at the positions {positions} (from 0)"
    )
    dim = variable.dims[0] if variable.dims else None
    if dim is None or missing.size == variable.size or _hold_values(dataset, dim, missing):
        raise TimeAxisError(
            f"{what}, and there are values at them",
            where=source,
            remedy="Give these steps their times in the file, or cut them out there.",
        )
    tell(findings, "warning", TIME, f"{source}: {what}; these steps hold no value and are left out")
    kept = np.setdiff1d(np.arange(variable.size), missing)
    result = dataset.isel(
        {dim: slice(int(kept[0]), int(kept[-1]) + 1) if np.ptp(kept) + 1 == kept.size else kept}
    )
    result.encoding = dict(dataset.encoding)
    return result


def _hold_values(dataset: xr.Dataset, dim: str, positions: np.ndarray) -> bool:
    """Whether any field has a value at steps without a time; these few steps are read."""
    for variable in dataset.data_vars.values():
        if dim in variable.dims and variable.ndim > 1 and variable.dtype.kind in "iuf":
            for position in positions:
                values = np.asarray(variable.isel({dim: int(position)}).values)
                if values.dtype.kind != "f" or not np.isnan(values).all():
                    return True
    return False


def _tell_scalar_times(dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None) -> None:
    """Tell of a single time beside the time axis, which it may contradict."""
    name = find_coordinate(dataset, TIME)
    if name is None or dataset.variables[name].ndim != 1:
        return
    for other in map(str, dataset.coords):
        variable = dataset.variables[other]
        plain = other.lower() in ("time", "valid_time", "date", "datetime")
        if plain and variable.ndim == 0 and is_time_like(variable):
            when = first_text(np.atleast_1d(variable.values)[0])
            tell(
                findings,
                "warning",
                TIME,
                f"{source} has a single {other} ({when}) beside the times along {name}, which count",
            )


def _choices(dataset: xr.Dataset, source: str, options: SourceOptions) -> dict[str, Choice]:
    """Return what there is to choose along dimensions beside time, level and place."""
    axes = set()
    for axis in _AXES:
        coordinate = find_coordinate(dataset, axis)
        axes |= set(dataset.variables[coordinate].dims) if coordinate is not None else set()
    choices = {}
    for dim in map(str, dataset.dims):
        variable = dataset.variables.get(dim)
        if dim in axes or not 1 < dataset.sizes[dim] <= _MOST_CHOICES:
            continue
        if variable is not None and (variable.ndim != 1 or FILE_NAME in variable.encoding):
            continue
        try:
            choices[dim] = choice_along(dataset, dim, source, options.units)
        except CoordinateError as error:
            if not any(dim in field.dims and field.ndim > 2 for field in dataset.data_vars.values()):
                continue
            raise error
    return choices
