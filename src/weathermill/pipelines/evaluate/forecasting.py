"""Forecasts of the test period, scored while they run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from weathermill.errors import SplitError
from weathermill.fields.flatten import from_channels
from weathermill.forecasting.instability import ATTRIBUTE, InstabilityCheck
from weathermill.models.forecaster import Forecaster
from weathermill.pipelines.evaluate.fitting import require_fitting
from weathermill.progress import Progress
from weathermill.tensors.store import TensorStore
from weathermill.verification import times as clock
from weathermill.verification.baselines import Climatology
from weathermill.verification.metrics import headline_leads
from weathermill.verification.regions import Region, standard_regions
from weathermill.verification.regression import LinearRegression
from weathermill.verification.scores import FORECAST, ScoreAccumulator
from weathermill.verification.spectra import SpectrumAccumulator

logger = logging.getLogger(__name__)


def lead_steps(store: TensorStore, lead_time_hours: float, split: str = "test") -> int:
    """How many steps forecasts go: to ``lead_time_hours``, or as far as the split reaches, which is told.

    Raises
    ------
    SplitError
        If the split does not even hold two consecutive states.
    """
    wanted = max(1, round(lead_time_hours * 3600 / store.time_step))
    longest = max((stop - start for start, stop in store.splits[split]), default=0) - 1
    if longest < 1:
        raise SplitError(f"the {split} period has no two consecutive states", remedy="Widen it in `splits`.")
    if longest < wanted:
        hours = store.time_step / 3600
        logger.warning(
            "The %s period holds %d consecutive states: forecasts go to %g h instead of %g h",
            split,
            longest + 1,
            longest * hours,
            lead_time_hours,
        )
    return min(wanted, longest)


def score_forecasts(
    store: TensorStore,
    forecaster: Forecaster,
    reference: Climatology,
    *,
    steps: int,
    initial_step: int = 1,
    batch_size: int = 16,
    regression: LinearRegression | None = None,
    boxes: Sequence[Region] = (),
) -> tuple[xr.Dataset, xr.Dataset]:
    """Forecast from the states of the test period and score against truth and the baselines.

    Parameters
    ----------
    store, forecaster, reference
        The data, the network and the climatology.
    steps
        Steps of every forecast.
    initial_step
        Every how many states a forecast starts.
    batch_size
        Forecasts at once.
    regression
        A further baseline, scored as source "regression".
    boxes
        Regions besides the standard ones.

    Returns
    -------
    scores
        As ``ScoreAccumulator.result``; where forecasts are unstable, that is logged once, and the attribute
        ``forecast_warning`` says it.
    spectra
        As ``SpectrumAccumulator.result``, at the headline lead times.

    Raises
    ------
    ModelError
        If the network was trained for other channels, another grid or time step than the store's.
    """
    require_fitting(store, forecaster)
    n = forecaster.n_prognostic
    hours = store.time_step / 3600
    leads = [hours * (step + 1) for step in range(steps)]
    channels = [store.channels[i] for i in store.channels.prognostic]
    accumulator = ScoreAccumulator(
        [c.name for c in channels],
        leads,
        store.area_weights,
        latitude=store.latitude,
        longitude=store.longitude,
        units=[c.units for c in channels],
        regions=[*standard_regions(store.latitude, store.longitude), *boxes],
        attrs=reference.attrs,
    )
    spectra = SpectrumAccumulator(
        [c.name for c in channels],
        headline_leads(leads),
        store.area_weights,
        store.latitude,
        store.longitude,
        units=[c.units for c in channels],
    )
    all_times = clock.from_seconds(store.times, store.calendar)
    check = InstabilityCheck(forecaster)
    starts = store.windows("test", steps)[::initial_step]
    with Progress("evaluate", len(starts) * steps, "forecast steps") as progress:
        for first in range(0, len(starts), batch_size):
            batch = starts[first : first + batch_size]
            initial = np.concatenate([store.physical(i, i + 1) for i in batch])
            forcings = _forcings(store, batch, steps)
            check.begin(initial, all_times[batch])
            for step, forecast in enumerate(forecaster.rollout_physical(initial, steps, forcings)):
                check.look(forecast, step + 1)
                truth = np.concatenate([store.physical(i + step + 1, i + step + 2)[:, :n] for i in batch])
                sources = {FORECAST: forecast[:, None]}
                if regression is not None:
                    sources["regression"] = regression.forecast(
                        initial[:, :n], all_times[batch], [leads[step]]
                    )
                accumulator.update(
                    sources,
                    truth[:, None],
                    reference,
                    all_times[batch],
                    persistence=initial[:, :n],
                    lead_times=[leads[step]],
                )
                spectra.update(forecast[:, None], truth[:, None], lead_times=[leads[step]])
                progress.update(len(batch))
    scores = accumulator.result()
    if warning := check.tell():
        scores.attrs[ATTRIBUTE] = warning
    return scores, spectra.result()


def example_forecast(store: TensorStore, forecaster: Forecaster, *, steps: int) -> xr.Dataset:
    """One forecast from the middle of the test period, with its truth.

    Returns
    -------
    xarray.Dataset
        Canonical variables with dimensions (source, lead_time, [level,] latitude, longitude), where source is
        "forecast", "truth" or "initial" (the initial state at every lead time, that is, persistence).
    """
    starts = store.windows("test", steps)
    start = int(starts[len(starts) // 2])
    n = forecaster.n_prognostic
    initial = store.physical(start, start + 1)
    forecast = np.concatenate(
        list(forecaster.rollout_physical(initial, steps, _forcings(store, [start], steps)))
    )
    truth = store.physical(start + 1, start + 1 + steps)[:, :n]
    channels = [store.channels.to_dicts()[i] for i in store.channels.prognostic]
    hours = store.time_step / 3600
    array = xr.DataArray(
        np.stack([forecast, truth, np.broadcast_to(initial[:, :n], truth.shape)]),
        dims=("source", "lead_time", "channel", "latitude", "longitude"),
        coords={
            "source": ["forecast", "truth", "initial"],
            "lead_time": ("lead_time", [hours * (s + 1) for s in range(steps)], {"units": "h"}),
            "channel": [c["name"] for c in channels],
            "latitude": store.latitude,
            "longitude": store.longitude,
            "init_time": clock.from_seconds(store.times[[start]], store.calendar)[0],
        },
    )
    result = from_channels(array, channels)
    check = InstabilityCheck(forecaster)
    check.begin(initial, [array["init_time"].values[()]])
    for step, state in enumerate(forecast, start=1):
        check.look(state[None], step)
    if check.warning is not None:
        result.attrs[ATTRIBUTE] = check.warning
    return result


def _forcings(store: TensorStore, starts: Sequence[int] | np.ndarray, steps: int) -> np.ndarray | None:
    if not store.channels.n_forcing or steps < 2:
        return None
    chosen = store.channels.forcing
    return np.stack([store.physical(int(i) + 1, int(i) + steps)[:, chosen] for i in starts])
