"""The baselines that forecasts are scored against, made from the training period of the store."""

from __future__ import annotations

import logging
import math

import numpy as np

from weathermill.progress import Progress
from weathermill.tensors.store import TensorStore
from weathermill.verification import times as clock
from weathermill.verification.baselines import Climatology, climatology
from weathermill.verification.regression import DAMPED, LinearRegression, fit_regression

logger = logging.getLogger(__name__)

#: What "auto" may read for the regression, as float32; decades of a coarse grid and months of a fine one fit.
CHEAP_BYTES = 16 * 2**30
#: Initial states that a regression is fitted from: more of them tell little new, fewer are a rough fit.
MOST_STATES, FEWEST_STATES = 500, 20


def make_climatology(store: TensorStore, kind: str = "auto") -> Climatology:
    """The climatology of the training period, in physical units."""
    n = store.channels.n_prognostic
    return climatology(
        lambda i: store.physical(i, i + 1)[0, :n],
        clock.from_seconds(store.times, store.calendar),
        store.splits["train"],
        kind=kind,
    )


def make_regression(
    store: TensorStore, reference: Climatology, *, steps: int, kind: str = "auto"
) -> LinearRegression | None:
    """Fit a regression on the initial state for every lead time, from at most `MOST_STATES` training states.

    Parameters
    ----------
    store
        The data.
    reference
        The climatology that anomalies are departures from.
    steps
        The longest lead time, in time steps.
    kind
        "damped", "multivariate", "none", or "auto": damped persistence where the fit reads no more than
        `CHEAP_BYTES` and the training period is longer than the longest lead time.

    Returns
    -------
    LinearRegression or None
        None for "none", and where "auto" leaves it out, which is told.

    Raises
    ------
    SplitError
        If a regression is demanded and no part of the training period is longer than the longest lead time.
    """
    if kind == "none":
        return None
    starts = store.windows("train", steps)
    every = max(1, math.ceil(len(starts) / MOST_STATES))
    if kind == "auto":
        n_starts = math.ceil(len(starts) / every)
        state = 4 * store.channels.n_prognostic * math.prod(store.grid_shape)
        needed = min(n_starts * (steps + 1), len(starts) + steps) * state
        if n_starts < FEWEST_STATES or needed > CHEAP_BYTES:
            logger.info(
                "No regression baseline: it would be fitted from %d states, reading %.3g GiB"
                " (evaluate.regression=damped insists)",
                n_starts,
                needed / 2**30,
            )
            return None
        kind = DAMPED
    n = store.channels.n_prognostic
    count = sum(len(range(a, b - steps, every)) for a, b in store.splits["train"] if b - steps > a)
    with Progress("regression", count, "training states") as progress:

        def counted(indices):
            for index in indices:
                yield index
                progress.update()

        return fit_regression(
            lambda i: store.physical(i, i + 1)[0, :n],
            clock.from_seconds(store.times, store.calendar),
            store.splits["train"],
            reference,
            np.arange(1, steps + 1).tolist(),
            store.time_step / 3600,
            store.area_weights,
            kind=kind,
            every=every,
            progress=counted,
        )
