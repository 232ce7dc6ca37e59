"""Requests for forecasts, as datasets or plain arrays: checked against the network, put into its form, answered.

What a served model gets comes from programs that know nothing of this package. Every request that does not fit is
refused with what was found and what would do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import ModelError
from weathermill.fields.coordinates import find_coordinate
from weathermill.fields.weight_making import grid_shape
from weathermill.forecasting.arrays import as_array, read_array
from weathermill.forecasting.batches import label, step_count
from weathermill.forecasting.instability import ATTRIBUTE, InstabilityCheck
from weathermill.forecasting.options import ReadOptions
from weathermill.forecasting.payloads import to_dataset, with_times
from weathermill.forecasting.plausibility import judge_states
from weathermill.forecasting.states import StateReader
from weathermill.models.forecaster import Forecaster
from weathermill.verification.times import time_key

logger = logging.getLogger(__name__)

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
        and ``notes``: what was done to the states, and whether the forecasts are unstable. For "dataset", the forecast as ``xarray.Dataset.to_dict`` gives it,
        with times as ISO 8601.

    Raises
    ------
    ModelError
        If shapes, channels, grid or the number of steps do not fit, or values cannot be in these units.
    UnitsError
        If units cannot be converted.
    ImplausibleValueError
        If values are fill values, or more than one per cent of a channel lie beyond its physical limits.
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
        values = as_array(states)
        _require_size_of_answer(forecaster, len(values), count)
        given = {
            "channel": channel,
            "latitude": latitude,
            "longitude": longitude,
            "units": units,
            "time": time,
        }
        request = Request(*read_array(forecaster, values, count, **given))
    _require_plausible(
        forecaster, request.states, [forecaster.channels[i] for i in forecaster.channels.dynamic]
    )
    request.notes.extend(_judged(forecaster, request))
    check = InstabilityCheck(forecaster)
    check.begin(request.states, request.times)
    made = []
    for step, state in enumerate(
        forecaster.rollout_physical(request.states, count, request.forcings), start=1
    ):
        check.look(state, step)
        made.append(state)
    stacked = np.stack(made, axis=1)
    if warning := check.tell():
        request.notes.append(warning)
    if form == "dataset":
        return _as_dataset(forecaster, stacked, request, warning)
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
    try:
        dataset = with_times(dataset, time)
        reader = StateReader([dataset], forecaster, names=["the request"], method=regrid or None)
        positions = reader.choose(list(time) if has_times and len(time) else None)
        _require_size_of_answer(forecaster, len(positions), count)
        states, forcings = reader.read(positions, judge=False).values, reader.forcings(positions, count)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # Contradictions that nobody thought of, in what anybody may send, are no fault of the server.
        logger.info("A request could not be read", exc_info=True)
        raise ModelError(
            f"the dataset contradicts itself: {' '.join(str(error).split())[:300]}",
            where="the request",
            remedy="Look at the dimensions and coordinates of the dataset.",
        ) from error
    notes = []
    if reader.regrids:
        sizes = [
            " x ".join(map(str, shape)) for shape in (grid_shape(reader.source_grid), forecaster.grid_shape)
        ]
        notes.append(f"The states were regridded from {sizes[0]} to {sizes[1]} points ({regrid}).")
    return Request(states, forcings, reader.times[positions], [*notes, *reader.notes])


def _judged(forecaster: Forecaster, request: Request) -> list[str]:
    table = [forecaster.channels[i] for i in forecaster.channels.dynamic]
    times = None if request.times is None else [time_key(time) for time in request.times]
    limits = [ReadOptions().limits_of(channel.variable, channel.level) for channel in table]
    return judge_states(
        request.states,
        [c.name for c in table],
        limits,
        times,
        where="the request",
        remedy="Give states in physical units, and null where there is no value and the network may lack one.",
    )


def _as_dataset(
    forecaster: Forecaster, states: np.ndarray, request: Request, warning: str | None
) -> dict[str, Any]:
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
    if warning is not None:
        result.attrs[ATTRIBUTE] = warning
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
