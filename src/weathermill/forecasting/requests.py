"""Requests for forecasts as plain arrays: checked against the network, put into its order and units, answered.

What a served model gets comes from programs that know nothing of this package. Every request that does not fit is
refused with what was found and what would do.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from weathermill.errors import ModelError, UnitsError
from weathermill.fields.units import linear_conversion
from weathermill.forecasting.batches import step_count
from weathermill.models.forecaster import Forecaster

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
) -> dict[str, Any]:
    """Forecast from every state of a request.

    Parameters
    ----------
    forecaster
        The network.
    states
        (n, channel, latitude, longitude) in physical units; without coordinates, in the channels' order and on the
        grid of the network.
    steps, lead_time_hours
        How far, in time steps or in hours (rounded up to a step); one step by default.
    channel
        Names of the channels of ``states``, in any order.
    latitude, longitude
        Degrees; either order, any wrap.
    units
        Of each channel; those that can be converted are.

    Returns
    -------
    dict
        ``forecast`` (n, lead, channel, latitude, longitude) float32 in physical units on the grid of the network,
        ``lead_time_hours``, ``channel``, ``units``, ``latitude`` and ``longitude``.

    Raises
    ------
    ModelError
        If shapes, channels, grid or the number of steps do not fit, or values cannot be in these units.
    UnitsError
        If units cannot be converted.
    """
    count = _steps(forecaster, steps, lead_time_hours)
    values = _checked_states(forecaster, states, channel, latitude, longitude, units)
    prognostic = [forecaster.channels[i] for i in forecaster.channels.prognostic]
    size = 4 * len(values) * count * len(prognostic) * math.prod(forecaster.grid_shape)
    if size > MOST_BYTES:
        raise ModelError(
            f"the answer to {len(values)} states and {count} steps would take {size / 2**30:.1f} GiB, more than"
            f" {MOST_BYTES / 2**30:g} GiB",
            remedy="Ask for fewer states or steps at once.",
        )
    if forecaster.n_forcing and count > 1:
        raise ModelError(
            "the network needs forcings at every step, which a request does not give",
            remedy="Ask for one step.",
        )
    hours = forecaster.time_step / 3600
    return {
        "forecast": np.stack(list(forecaster.rollout_physical(values, count)), axis=1),
        "lead_time_hours": [hours * step for step in range(1, count + 1)],
        "channel": [c.name for c in prognostic],
        "units": [c.units for c in prognostic],
        "latitude": forecaster.latitude.tolist(),
        "longitude": forecaster.longitude.tolist(),
    }


def _steps(forecaster: Forecaster, steps: int | None, lead_time_hours: float | None) -> int:
    if steps and lead_time_hours:
        raise ModelError("steps and lead_time_hours were both given", remedy="Give one of them.")
    for name, value in (("steps", steps), ("lead_time_hours", lead_time_hours)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ModelError(f"{name} is {value}, which is no positive number")
    if lead_time_hours:
        return step_count(forecaster, float(lead_time_hours))
    return int(steps or 1)


def _checked_states(forecaster, states, channel, latitude, longitude, units) -> np.ndarray:
    table = [forecaster.channels[i] for i in forecaster.channels.dynamic]
    names = [c.name for c in table]
    try:
        values = np.asarray(states, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the states are no array of numbers: {error}") from error
    if values.ndim != 4 or not len(values):
        raise ModelError(
            f"the states have shape {values.shape}, not (n, channel, latitude, longitude) with n of at least 1"
        )
    given = [str(name) for name in channel]
    order = _channel_order(names, given) if given else list(range(len(names)))
    if values.shape[1] != (len(given) or len(names)):
        raise ModelError(
            f"the states have {values.shape[1]} channels, {'their names are' if given else 'the network takes'}"
            f" {len(given) or len(names)}: {', '.join(given or names)}"
        )
    values = values[:, order]
    values = values[:, :, _latitude_order(forecaster, latitude, values.shape[2])]
    values = values[:, :, :, _longitude_order(forecaster, longitude, values.shape[3])]
    if len(units):
        if len(units) != (len(given) or len(names)):
            raise ModelError(f"{len(units)} units were given for {len(given) or len(names)} channels")
        values = _converted(values, [str(units[i]) for i in order], table)
    _require_plausible(forecaster, values, table)
    return np.ascontiguousarray(values)


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
        remedy="Regrid the states first; weathermill.forecasting.forecast does it.",
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
    for position, channel in enumerate(table):
        here = values[:, position].astype(np.float64)
        bad = int((~np.isfinite(here)).sum())
        if bad:
            raise ModelError(f"{channel.name} has {bad} values that are missing or not finite")
        mean, std = forecaster.mean[position], forecaster.std[position]
        means = here.mean(axis=(1, 2))
        worst = means[np.abs(means - mean).argmax()]
        if channel.role == "prognostic" and abs(worst - mean) > IMPLAUSIBLE_STD * std:
            raise ModelError(
                f"{channel.name} has a mean of {worst:.5g}, which cannot be in {channel.units}: over the training period"
                f" it was {mean:.5g} with a standard deviation of {std:.3g}",
                remedy=f"Give {channel.name} in {channel.units} (physical units, not normalised), or say its units.",
            )
