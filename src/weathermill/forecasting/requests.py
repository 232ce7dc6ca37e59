"""Requests for forecasts, as datasets or plain arrays: checked against the network, put into its form, answered.

What a served model gets comes from programs that know nothing of this package. Every request that does not fit is
refused with what was found and what would do.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import ModelError, UnitsError
from weathermill.fields.coordinates import find_coordinate
from weathermill.fields.grids import build_grid
from weathermill.fields.units import linear_conversion
from weathermill.fields.weight_making import grid_shape
from weathermill.forecasting.batches import label, step_count
from weathermill.forecasting.forcings import Formulas, is_computable, require_agreement
from weathermill.forecasting.payloads import parse_times, to_dataset, with_times
from weathermill.forecasting.states import StateReader
from weathermill.models.forecaster import Forecaster
from weathermill.verification.times import add_hours, time_key

#: An area mean further from that of the training period than this many standard deviations is no state of this
#: atmosphere, but one in other units or one that is normalised.
IMPLAUSIBLE_STD = 8.0
#: The largest answer, as float32; a server must not be brought down by one request.
MOST_BYTES = 2 * 2**30


def answer(
    forecaster: Forecaster,
    states: Any,
    *,
    steps: int | None = None,
    lead_time_hours: float | None = None,
    channel: Sequence[str] = (),
    latitude: Sequence[float] = (),
    longitude: Sequence[float] = (),
    units: Sequence[str] = (),
    time: Sequence[str] = (),
    regrid: str = "",
    form: str = "",
) -> dict[str, Any]:
    """Forecast from every state of a request.

    Parameters
    ----------
    forecaster
        The network.
    states
        A dataset (``xarray.Dataset`` or what its ``to_dict`` gives) in any naming, order and units that can be
        ingested; or an array (n, channel, latitude, longitude) in physical units, without coordinates in the channels'
        order and on the grid of the network.
    steps, lead_time_hours
        How far, in time steps or in hours (rounded up to a step); one step by default.
    channel, units
        Of an array: names of its channels, in any order, and the units of each; those that can be converted are.
    latitude, longitude
        Of an array: degrees; either order, any wrap.
    time
        ISO 8601. Of an array: the time of each state. Of a dataset: which of its times to forecast from, all by default.
    regrid
        "bilinear" or "conservative": how a dataset on another grid is regridded; without it, it is refused.
    form
        "arrays" (the default) or "dataset".

    Returns
    -------
    dict
        ``forecast`` (n, lead, channel, latitude, longitude) float32 in physical units on the grid of the network,
        ``lead_time_hours``, ``channel``, ``units``, ``latitude`` and ``longitude``, ``init_time`` where times are known,
        and ``notes``: what was done to the states. For "dataset", the forecast as ``xarray.Dataset.to_dict`` gives it,
        with times as ISO 8601.

    Raises
    ------
    ModelError
        If shapes, channels, grid or the number of steps do not fit, or values cannot be in these units.
    UnitsError
        If units cannot be converted.
    WeathermillError
        What `weathermill.forecasting.states.StateReader` raises of datasets.
    """
    count = _steps(forecaster, steps, lead_time_hours)
    _require_choice("regrid", regrid, ("bilinear", "conservative"))
    _require_choice("form", form, ("arrays", "dataset"))
    if isinstance(states, Mapping | xr.Dataset):
        given = {"channel": channel, "units": units, "latitude": latitude, "longitude": longitude}
        superfluous = [name for name, value in given.items() if len(value)]
        if superfluous:
            raise ModelError(
                f"{', '.join(superfluous)} were given beside a dataset, which has its own",
                remedy="Leave them out.",
            )
        request = read_dataset(forecaster, states, count, time=time, regrid=regrid)
    else:
        request = _read_array(forecaster, states, count, channel, latitude, longitude, units, time)
    stacked = np.stack(list(forecaster.rollout_physical(request.states, count, request.forcings)), axis=1)
    if form == "dataset":
        return _as_dataset(forecaster, stacked, request)
    prognostic = [forecaster.channels[i] for i in forecaster.channels.prognostic]
    hours = forecaster.time_step / 3600
    known = {} if request.times is None else {"init_time": [time_key(time) for time in request.times]}
    return {
        "forecast": stacked,
        "lead_time_hours": [hours * step for step in range(1, count + 1)],
        "channel": [c.name for c in prognostic],
        "units": [c.units for c in prognostic],
        "latitude": forecaster.latitude.tolist(),
        "longitude": forecaster.longitude.tolist(),
        **known,
        "notes": request.notes,
    }


@dataclass(frozen=True)
class Request:
    """What a forecast is made from.

    Attributes
    ----------
    states
        (n, dynamic channel, latitude, longitude), float32, physical units.
    forcings
        (n, step, forcing, latitude, longitude) of the steps after the first, or None.
    times
        Initial times, or None where nobody said them.
    notes
        What was done to the states.
    """

    states: np.ndarray
    forcings: np.ndarray | None
    times: np.ndarray | None
    notes: list[str]


def read_dataset(
    forecaster: Forecaster,
    payload: Mapping[str, Any] | xr.Dataset,
    count: int,
    *,
    time: Sequence[str] = (),
    regrid: str = "",
) -> Request:
    """Read the states of a dataset, and the forcings of ``count`` steps; see `answer`."""
    dataset = payload if isinstance(payload, xr.Dataset) else to_dataset(payload)
    has_times = find_coordinate(dataset, "time") is not None
    dataset = with_times(dataset, time)
    reader = StateReader([dataset], forecaster, names=["the request"], method=regrid or None)
    positions = reader.choose(list(time) if has_times and len(time) else None)
    _require_size_of_answer(forecaster, len(positions), count)
    states = reader.read(positions).values
    _require_plausible(forecaster, states, [forecaster.channels[i] for i in forecaster.channels.dynamic])
    notes = []
    if reader.regrids:
        sizes = [
            " x ".join(map(str, shape)) for shape in (grid_shape(reader.source_grid), forecaster.grid_shape)
        ]
        notes.append(f"The states were regridded from {sizes[0]} to {sizes[1]} points ({regrid}).")
    forcings = reader.forcings(positions, count)
    return Request(states, forcings, reader.times[positions], [*notes, *reader.notes])


def _as_dataset(forecaster: Forecaster, states: np.ndarray, request: Request) -> dict[str, Any]:
    if request.times is None:
        raise ModelError(
            "a dataset of forecasts needs initial times, which the request does not say",
            remedy='Give the time of each state: params {"time": ["2001-01-31T06:00"]}.',
        )
    result = label(forecaster, states, request.times)
    for name in ("init_time", "time"):
        coordinate = result[name]
        texts = np.array([time_key(time) for time in coordinate.values.reshape(-1)]).reshape(coordinate.shape)
        result = result.assign_coords({name: (coordinate.dims, texts, coordinate.attrs)})
    if request.notes:
        result.attrs["comment"] = " ".join(request.notes)
    return result.to_dict()


def _require_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value and value not in known:
        raise ModelError(f"{name} is {value!r}", remedy=f"It is one of {', '.join(known)}; or leave it out.")


def _require_size_of_answer(forecaster: Forecaster, n_states: int, count: int) -> None:
    size = 4 * n_states * count * forecaster.n_prognostic * math.prod(forecaster.grid_shape)
    if size > MOST_BYTES:
        raise ModelError(
            f"the answer to {n_states} states and {count} steps would take {size / 2**30:.1f} GiB, more than"
            f" {MOST_BYTES / 2**30:g} GiB",
            remedy="Ask for fewer states or steps at once.",
        )


def _steps(forecaster: Forecaster, steps: int | None, lead_time_hours: float | None) -> int:
    if steps and lead_time_hours:
        raise ModelError("steps and lead_time_hours were both given", remedy="Give one of them.")
    for name, value in (("steps", steps), ("lead_time_hours", lead_time_hours)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ModelError(
                f"{name} is {value}, which is no positive number", remedy="Give a positive number."
            )
    if lead_time_hours:
        return step_count(forecaster, float(lead_time_hours))
    return int(steps or 1)


def _read_array(forecaster, states, count, channel, latitude, longitude, units, time) -> Request:
    values = _as_array(states)
    _require_size_of_answer(forecaster, len(values), count)
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
    _require_plausible(forecaster, values, present)
    times = parse_times("time", list(time)) if len(time) else None
    if times is not None and len(times) != len(values):
        raise ModelError(
            f"{len(times)} times were given for {len(values)} states", remedy="Give one for each state."
        )
    values, forcings, notes = _with_forcings(forecaster, values, names, absent, times, count)
    return Request(np.ascontiguousarray(values), forcings, times, notes)


def _as_array(states: Any) -> np.ndarray:
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


def _require_plausible(forecaster: Forecaster, values: np.ndarray, table: list) -> None:
    bad = forecaster.missing.unexpected(values, [channel.name for channel in table])
    if bad:
        what = "; ".join(f"{name} has {count} values" for name, count in bad.items())
        gaps = ", ".join(forecaster.missing.names)
        raise ModelError(
            f"{what} that are missing or not finite",
            remedy=f"Fill them in; only {gaps} may be missing, and that where they were in training."
            if gaps
            else "Fill them in; a network needs whole fields.",
        )
    for position, channel in enumerate(table):
        here = values[:, position].astype(np.float64)
        here = np.ma.masked_invalid(here) if channel.may_be_missing else here
        index = forecaster.channels.index(channel.name)
        mean, std = forecaster.mean[index], forecaster.std[index]
        means = here.mean(axis=(1, 2))
        worst = means[np.abs(means - mean).argmax()]
        if channel.role == "prognostic" and abs(worst - mean) > IMPLAUSIBLE_STD * std:
            raise ModelError(
                f"{channel.name} has a mean of {worst:.5g}, which cannot be in {channel.units}: over the training period"
                f" it was {mean:.5g} with a standard deviation of {std:.3g}",
                remedy=f"Give {channel.name} in {channel.units} (physical units, not normalised), or say its units.",
            )
