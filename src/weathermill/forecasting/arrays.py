"""States as plain arrays with their coordinates beside them: into the network's order, grid and units."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from weathermill.errors import ModelError, UnitsError
from weathermill.fields.grids import build_grid
from weathermill.fields.units import linear_conversion
from weathermill.forecasting.forcings import Formulas, is_computable, require_agreement
from weathermill.forecasting.payloads import parse_times
from weathermill.models.forecaster import Forecaster
from weathermill.verification.times import add_hours


def read_array(
    forecaster: Forecaster,
    values: np.ndarray,
    count: int,
    *,
    channel: Sequence[str] = (),
    latitude: Sequence[float] = (),
    longitude: Sequence[float] = (),
    units: Sequence[str] = (),
    time: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, list[str]]:
    """Bring the states of an array into the network's order, grid and units, and compute the forcings of the steps.

    Parameters
    ----------
    forecaster
        The network.
    values
        From `as_array`.
    count
        Steps of the forecasts.
    channel, latitude, longitude, units, time
        See `weathermill.forecasting.requests.answer`.

    Returns
    -------
    states
        (n, dynamic channel, latitude, longitude), float32.
    forcings
        (n, count - 1, forcing, latitude, longitude) or None.
    times
        Initial times or None.
    notes
        What was added to the states.

    Raises
    ------
    ModelError
        If channels, shapes, grid, times or forcings do not fit.
    UnitsError
        If units cannot be converted.
    """
    table = [forecaster.channels[i] for i in forecaster.channels.dynamic]
    given = [str(name) for name in channel]
    # What the network computes itself need not be given.
    n_prognostic = forecaster.n_prognostic
    absent = [c.name for c in table[n_prognostic:] if c.name not in given and is_computable(c.name)]
    absent = absent if given or values.shape[1] == len(table) - len(absent) else []
    present = [c for c in table if c.name not in absent]
    names = [c.name for c in present]
    order = _channel_order(names, given) if given else list(range(len(names)))
    if values.shape[1] != (len(given) or len(names)):
        raise ModelError(
            f"the states have {values.shape[1]} channels, {'their names are' if given else 'the network takes'}"
            f" {len(given) or len(names)}: {', '.join(given or names)}",
            remedy=f"The network takes {', '.join(names)}.",
        )
    values = values[:, order]
    values = values[:, :, _latitude_order(forecaster, latitude, values.shape[2])]
    values = values[:, :, :, _longitude_order(forecaster, longitude, values.shape[3])]
    if len(units):
        if len(units) != (len(given) or len(names)):
            raise ModelError(
                f"{len(units)} units were given for {len(given) or len(names)} channels",
                remedy="Give one for each channel, in the order of the channels.",
            )
        values = _converted(values, [str(units[i]) for i in order], present)
    times = parse_times("time", list(time)) if len(time) else None
    if times is not None and len(times) != len(values):
        raise ModelError(
            f"{len(times)} times were given for {len(values)} states", remedy="Give one for each state."
        )
    values, forcings, notes = _with_forcings(forecaster, values, names, absent, times, count)
    return np.ascontiguousarray(values), forcings, times, notes


def as_array(states: Any) -> np.ndarray:
    """Make a float32 array (n, channel, latitude, longitude) of what was sent, or refuse it."""
    form = (
        "Give an array (n, channel, latitude, longitude), or a dataset as xarray.Dataset.to_dict() gives it."
    )
    try:
        values = np.asarray(states, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the states are no array of numbers: {error}", remedy=form) from error
    if values.ndim != 4 or not len(values):
        raise ModelError(
            f"the states have shape {values.shape}, not (n, channel, latitude, longitude) with n of at least 1",
            remedy=form,
        )
    return values


def _with_forcings(forecaster, values, names, absent, times, count):
    """Complete states by the forcings that are computed, and compute those of the steps to come."""
    wanted = [forecaster.channels[i].name for i in forecaster.channels.forcing]
    if not wanted or (count == 1 and not absent):
        return values, None, []
    unknown = [name for name in wanted if not is_computable(name)]
    if unknown:
        raise ModelError(
            f"the network needs forcings at every step ({', '.join(unknown)}), which an array does not give",
            remedy="Ask for one step, or send a dataset that holds them at all times up to the last step.",
        )
    if times is None:
        raise ModelError(
            f"the network's forcings ({', '.join(wanted)}) follow from the time, which the request does not say",
            remedy='Give the time of each state: params {"time": ["2001-01-31T06:00"]}.',
        )
    grid = build_grid(forecaster.latitude, forecaster.longitude)
    formulas, n = Formulas(wanted, grid, None, grid), len(values)
    hours = forecaster.time_step / 3600
    valid = np.concatenate([add_hours(times, hours * step) for step in range(count)])
    made = formulas.at(valid).reshape(count, n, len(wanted), *forecaster.grid_shape)
    given = [name for name in wanted if name in names]
    if given:
        places = [wanted.index(name) for name in given]
        std = forecaster.std[[forecaster.channels.index(name) for name in given]]
        difference = values[:, [names.index(name) for name in given]].astype(np.float64) - made[0][:, places]
        departures = np.sqrt((difference**2).mean(axis=(0, 2, 3))) / std
        require_agreement(given, departures, "the time given")
    columns = [
        values[:, names.index(name)] if name in names else made[0][:, position]
        for position, name in enumerate(wanted)
    ]
    states = np.concatenate([values[:, : forecaster.n_prognostic], np.stack(columns, axis=1)], axis=1)
    notes = [f"{', '.join(wanted)}: computed from time and place."]
    return states, made[1:].swapaxes(0, 1) if count > 1 else None, notes


def _channel_order(names: list[str], given: list[str]) -> list[int]:
    repeated = sorted({name for name in given if given.count(name) > 1})
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if repeated or missing or unknown:
        faults = []
        if missing:
            faults.append(f"missing are {', '.join(missing)}")
        for name in unknown:
            near = difflib.get_close_matches(name, names, n=1)
            faults.append(f"{name} is unknown" + (f" (did you mean {near[0]}?)" if near else ""))
        if repeated:
            faults.append(f"given twice are {', '.join(repeated)}")
        raise ModelError(
            f"the channels do not fit: {'; '.join(faults)}", remedy=f"The network takes {', '.join(names)}."
        )
    return [given.index(name) for name in names]


def _latitude_order(forecaster: Forecaster, given: Sequence[float], size: int) -> slice:
    wanted = forecaster.latitude
    if not len(given):
        _require_size("latitude", size, wanted)
        return slice(None)
    values = np.asarray(given, dtype=np.float64)
    tolerance = 1e-3 * np.abs(np.diff(wanted)).min()
    if values.shape == wanted.shape == (size,):
        for order in (slice(None), slice(None, None, -1)):
            if np.abs(values[order] - wanted).max() <= tolerance:
                return order
    raise _other_grid("latitude", values, size, wanted)


def _longitude_order(forecaster: Forecaster, given: Sequence[float], size: int) -> np.ndarray | slice:
    wanted = forecaster.longitude
    if not len(given):
        _require_size("longitude", size, wanted)
        return slice(None)
    values = np.asarray(given, dtype=np.float64)
    if values.shape == wanted.shape == (size,) and np.isfinite(values).all():
        tolerance = 1e-3 * np.abs(np.diff(wanted)).min()
        distance = np.abs((values[None, :] - wanted[:, None] + 180.0) % 360.0 - 180.0)
        order = distance.argmin(axis=1)
        if distance.min(axis=1).max() <= tolerance and len(set(order.tolist())) == size:
            return order
    raise _other_grid("longitude", values, size, wanted)


def _require_size(axis: str, size: int, wanted: np.ndarray) -> None:
    if size != wanted.size:
        raise _other_grid(axis, None, size, wanted)


def _other_grid(axis: str, values: np.ndarray | None, size: int, wanted: np.ndarray) -> ModelError:
    found = f"{size} points" if values is None or values.ndim != 1 else _span(values)
    if values is not None and values.size != size:
        found += f" for an axis of {size}"
    return ModelError(
        f"the grid does not fit: {axis} has {found}; the network takes {_span(wanted)}",
        remedy='Send a dataset, as xarray.Dataset.to_dict() gives it, with params {"regrid": "conservative"} or'
        ' "bilinear"; or regrid the states first.',
    )


def _span(values: np.ndarray) -> str:
    return f"{values.size} points from {values[0]:g} to {values[-1]:g}" if values.size else "no points"


def _converted(values: np.ndarray, units: list[str], table: list) -> np.ndarray:
    values = values.astype(np.float64)
    for position, (found, channel) in enumerate(zip(units, table, strict=True)):
        try:
            scale, offset = linear_conversion(found, channel.units)
        except UnitsError as error:
            raise UnitsError(
                f"{channel.name} was given in {found!r}, which cannot be converted to {channel.units!r}",
                remedy=f"Give {channel.name} in {channel.units}.",
            ) from error
        values[:, position] = values[:, position] * scale + offset
    return values.astype(np.float32)
