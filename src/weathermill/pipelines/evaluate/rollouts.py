"""Rollouts far beyond any skill, to see whether they stay possible states of the atmosphere."""

from __future__ import annotations

import logging

import numpy as np
import xarray as xr

from weathermill.fields.grids import build_grid
from weathermill.fields.weights import RegridWeights
from weathermill.forecasting.forcings import TOLERANCE, Formulas, is_computable
from weathermill.models.forecaster import Forecaster
from weathermill.progress import Progress
from weathermill.tensors.store import TensorStore
from weathermill.verification import times as clock
from weathermill.verification.stability import StabilityMonitor

logger = logging.getLogger(__name__)


def follow_rollouts(
    store: TensorStore,
    forecaster: Forecaster,
    statistics: xr.Dataset,
    *,
    days: float,
    rollouts: int = 4,
    weights: RegridWeights | None = None,
) -> xr.Dataset | None:
    """Let forecasts run freely and follow them against the bounds of the training period.

    Parameters
    ----------
    store, forecaster
        The data and the network.
    statistics
        Of the training period: ``minimum`` and ``maximum`` of every channel, in physical units.
    days
        How long.
    rollouts
        How many, from initial times spread evenly over the test period.
    weights
        Those that the store was regridded with. With them, forcings of time and place are computed for as long as the
        rollouts go, if the store's own agree with their formulas; others must be in the store.

    Returns
    -------
    xarray.Dataset or None
        As ``StabilityMonitor.result``, with the coordinate ``init_time`` of the rollouts; where the network has hard
        constraints, ``correction`` (constraint, lead_time) and ``typical_change`` (constraint). None where the network
        takes forcings and the store does not hold them for so long.
    """
    n = forecaster.n_prognostic
    steps = max(1, round(days * 86400 / store.time_step))
    states = np.concatenate([np.arange(start, stop) for start, stop in store.splits["test"]])
    formulas = _formulas(store, weights, states)
    if store.channels.n_forcing and formulas is None:
        states = store.windows("test", steps)
        if not len(states):
            logger.warning("No long rollouts: the test period does not hold the forcings of %g days", days)
            return None
    chosen = np.unique(
        states[np.linspace(0, len(states) - 1, min(rollouts, len(states))).round().astype(int)]
    )
    channels = [store.channels[i] for i in store.channels.prognostic]
    names = [channel.name for channel in channels]
    bounds = statistics.sel(channel=names)
    monitor = StabilityMonitor(
        names,
        store.area_weights,
        minimum=bounds["minimum"].values,
        maximum=bounds["maximum"].values,
        std=bounds["std"].values,
        units=[channel.units for channel in channels],
    )
    initial = np.concatenate([store.physical(int(i), int(i) + 1) for i in chosen])
    times = clock.from_seconds(store.times[chosen], store.calendar)
    forcings = None
    if formulas is not None:
        later = [clock.add_hours(times, store.time_step / 3600 * step) for step in range(1, steps)]
        needed, inverse = np.unique(np.stack(later, axis=1), return_inverse=True)
        forcings = formulas.at(needed)[inverse.reshape(len(chosen), steps - 1)]
    elif store.channels.n_forcing:
        picked = store.channels.forcing
        forcings = np.stack([store.physical(int(i) + 1, int(i) + steps)[:, picked] for i in chosen])
    monitor.update(0.0, initial[:, :n])
    hours = store.time_step / 3600
    corrections: list[dict[str, float]] = []
    with Progress("stability", steps, "steps") as progress:
        for step, state in enumerate(forecaster.rollout_physical(initial, steps, forcings), start=1):
            monitor.update(hours * step, state)
            corrections.append(forecaster.constraints.corrections())
            progress.update()
    result = _with_corrections(monitor.result(), corrections, forecaster)
    return result.assign_coords(init_time=("rollout", times, {"long_name": "initial time"}))


def _with_corrections(
    stability: xr.Dataset, corrections: list[dict[str, float]], forecaster: Forecaster
) -> xr.Dataset:
    """Add what hard constraints corrected in each step, beside what each channel typically changes in one."""
    names = list(corrections[0])
    if not names:
        return stability
    values = np.array([[step[name] for step in corrections] for name in names])
    channels = [forecaster.channels.index(name.split("/", 1)[1]) for name in names]
    # There is no step before the initial state.
    stability["correction"] = (
        ("constraint", "lead_time"),
        np.concatenate([np.full((len(names), 1), np.nan), values], axis=1),
        {"long_name": "root mean square correction by hard constraints in a step, in units of the channel"},
    )
    stability["typical_change"] = (
        "constraint",
        forecaster.tendency_std[channels],
        {"long_name": "standard deviation of the change over a step in the training period"},
    )
    return stability.assign_coords(constraint=names)


def _formulas(store: TensorStore, weights: RegridWeights | None, states: np.ndarray) -> Formulas | None:
    """The formulas of all forcings of the store, if there are formulas and the store agrees with them."""
    forcing = store.channels.forcing
    names = [store.channels[i].name for i in forcing]
    if not names or weights is None or not all(is_computable(name) for name in names):
        return None
    formulas = Formulas.of_weights(names, weights, build_grid(store.latitude, store.longitude))
    # One state by day and one by night of the same place would do; a few more cost nothing.
    some = states[np.linspace(0, len(states) - 1, min(4, len(states))).round().astype(int)]
    held = np.concatenate([store.physical(int(i), int(i) + 1)[:, forcing] for i in some])
    times = clock.from_seconds(store.times[some], store.calendar)
    departures = formulas.departures(held, times, np.asarray(store.std)[forcing])
    for name, departure in zip(names, departures, strict=True):
        if not departure <= TOLERANCE:
            logger.warning(
                "%s of the store is not what its formula gives: they differ by %.2g standard deviations",
                name,
                departure,
            )
            return None
    return formulas


def stability_metrics(stability: xr.Dataset) -> dict[str, float]:
    """Flatten a verdict on stability to named numbers; none where there were no rollouts."""
    if "stable_until" not in stability:
        return {}
    last = float(stability["lead_time"].values[-1])
    return {
        "stability/followed_hours": last,
        "stability/inside_until_hours": float(stability["stable_until"].min()),
        "stability/outside_share_at_end": float(stability["outside"].isel(lead_time=-1).mean()),
    }
