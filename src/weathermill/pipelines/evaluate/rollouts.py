"""Rollouts far beyond any skill, to see whether they stay possible states of the atmosphere."""

from __future__ import annotations

import logging

import numpy as np
import xarray as xr

from weathermill.models.forecaster import Forecaster
from weathermill.progress import Progress
from weathermill.tensors.store import TensorStore
from weathermill.verification import times as clock
from weathermill.verification.stability import StabilityMonitor

logger = logging.getLogger(__name__)


def follow_rollouts(
    store: TensorStore, forecaster: Forecaster, statistics: xr.Dataset, *, days: float, rollouts: int = 4
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

    Returns
    -------
    xarray.Dataset or None
        As ``StabilityMonitor.result``, with the coordinate ``init_time`` of the rollouts. None where the network
        takes forcings and the store does not hold them for so long.
    """
    n = forecaster.n_prognostic
    steps = max(1, round(days * 86400 / store.time_step))
    states = np.concatenate([np.arange(start, stop) for start, stop in store.splits["test"]])
    if store.channels.n_forcing:
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
    forcings = None
    if store.channels.n_forcing:
        picked = store.channels.forcing
        forcings = np.stack([store.physical(int(i) + 1, int(i) + steps)[:, picked] for i in chosen])
    monitor.update(0.0, initial[:, :n])
    hours = store.time_step / 3600
    with Progress("stability", steps, "steps") as progress:
        for step, state in enumerate(forecaster.rollout_physical(initial, steps, forcings), start=1):
            monitor.update(hours * step, state)
            progress.update()
    result = monitor.result()
    times = clock.from_seconds(store.times[chosen], store.calendar)
    return result.assign_coords(init_time=("rollout", times, {"long_name": "initial time"}))


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
