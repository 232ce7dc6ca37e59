"""Linear regression on the initial state: the statistical baseline between persistence and a network.

The anomaly at lead time t is predicted from the initial anomalies at the same place, with coefficients that
are the same all over the globe: from the same channel alone (damped persistence, the AR(1) forecast) or from
all channels there. Coefficients are area-weighted least squares over the training period, by streaming sums
whose size does not depend on its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weathermill.errors import ParameterError, SplitError
from weathermill.verification import times as clock
from weathermill.verification.baselines import Climatology

DAMPED, MULTIVARIATE = "damped", "multivariate"


@dataclass(frozen=True)
class LinearRegression:
    """Fitted coefficients, and the climatology that they are departures from.

    Parameters
    ----------
    climatology
        The climatology.
    lead_times
        Lead times in hours.
    coefficients
        float64 (lead, channel, channel): ``anomaly(t0 + lead) = coefficients @ anomaly(t0)``; diagonal for
        damped persistence.
    """

    climatology: Climatology
    lead_times: np.ndarray
    coefficients: np.ndarray

    def forecast(
        self, initial: np.ndarray, init_times: Any, lead_times: Sequence[float] | None = None
    ) -> np.ndarray:
        """Forecast from some initial states.

        Parameters
        ----------
        initial
            (init, channel, latitude, longitude), physical units.
        init_times
            Their times.
        lead_times
            Hours; all that were fitted by default.

        Returns
        -------
        numpy.ndarray
            float32 (init, lead, channel, latitude, longitude), physical units.

        Raises
        ------
        ParameterError
            If a lead time was not fitted.
        """
        leads = self.lead_times if lead_times is None else np.atleast_1d(np.asarray(lead_times, dtype=float))
        known = self.lead_times.tolist()
        for lead in leads:
            if float(lead) not in known:
                raise ParameterError(f"the regression was not fitted for {lead:g} h, but for {known}")
        init_times = clock.as_times(init_times)
        initial = np.asarray(initial, dtype=np.float32)
        anomaly = initial - self.climatology.at(init_times)
        result = np.empty((len(initial), len(leads), *initial.shape[1:]), dtype=np.float32)
        for position, lead in enumerate(leads):
            matrix = self.coefficients[known.index(float(lead))].astype(np.float32)
            result[:, position] = self.climatology.at(clock.add_hours(init_times, float(lead)))
            if np.count_nonzero(matrix - np.diag(np.diag(matrix))):
                result[:, position] += np.einsum("cd,ndhw->nchw", matrix, anomaly, optimize=True)
            else:
                result[:, position] += np.diag(matrix)[:, None, None] * anomaly
        return result


def fit_regression(
    read: Callable[[int], np.ndarray] | np.ndarray,
    times: Any,
    training_runs: Iterable[tuple[int, int]],
    climatology: Climatology,
    lead_steps: Sequence[int],
    step_hours: float,
    area_weights: np.ndarray,
    *,
    kind: str = DAMPED,
    every: int = 1,
    ridge: float = 1e-6,
    progress: Callable[[Iterable], Iterable] = iter,
) -> LinearRegression:
    """Fit a regression from the states of the training period.

    Parameters
    ----------
    read
        ``read(i)`` returns the state at ``times[i]``, (channel, latitude, longitude), physical units; or an
        array.
    times
        Times of all states.
    training_runs
        ``(start, stop)`` ranges without time gaps.
    climatology
        Anomalies are departures from it.
    lead_steps
        Lead times in time steps.
    step_hours
        Hours of a time step.
    area_weights
        (latitude,) or (latitude, longitude).
    kind
        "damped" or "multivariate".
    every
        Use every n-th initial state only: neighbours in time tell little new.
    ridge
        For "multivariate": regularisation relative to the mean variance of the standardised predictors.
    progress
        Wraps the loop over initial states.

    Raises
    ------
    SplitError
        If no run is longer than the longest lead time.
    ParameterError
        If the kind is unknown.
    """
    if kind not in (DAMPED, MULTIVARIATE):
        raise ParameterError(f"unknown regression {kind!r}; known: {DAMPED}, {MULTIVARIATE}")
    times = clock.as_times(times)
    reader = read if callable(read) else read.__getitem__
    longest = max(lead_steps)
    starts = [i for start, stop in training_runs for i in range(start, stop - longest, every)]
    if not starts:
        raise SplitError(
            f"no part of the training period is longer than {longest} steps, the longest lead time"
        )

    weights = np.asarray(area_weights, dtype=np.float64)
    weights = np.sqrt(weights if weights.ndim == 2 else weights[:, None])
    anomalies: dict[int, np.ndarray] = {}

    def anomaly(index: int) -> np.ndarray:
        if index not in anomalies:
            field = np.asarray(reader(index), dtype=np.float64) - climatology.at(times[index : index + 1])[0]
            # Missing cells count as climatology: they neither help nor hurt.
            anomalies[index] = (np.nan_to_num(field) * weights).reshape(len(field), -1)
        return anomalies[index]

    n_channels = len(np.asarray(reader(starts[0])))
    gram = np.zeros((n_channels, n_channels))
    cross = np.zeros((len(lead_steps), n_channels, n_channels))
    for start in progress(starts):
        for index in [index for index in anomalies if index < start]:
            del anomalies[index]
        initial = anomaly(start)
        if kind == DAMPED:
            gram[np.diag_indices(n_channels)] += np.einsum("cx,cx->c", initial, initial)
        else:
            gram += initial @ initial.T
        for position, steps in enumerate(lead_steps):
            later = anomaly(start + int(steps))
            if kind == DAMPED:
                cross[position][np.diag_indices(n_channels)] += np.einsum("cx,cx->c", later, initial)
            else:
                cross[position] += later @ initial.T
    return LinearRegression(
        climatology=climatology,
        lead_times=np.asarray(lead_steps, dtype=float) * step_hours,
        coefficients=_solve(gram, cross, kind, ridge),
    )


def _solve(gram: np.ndarray, cross: np.ndarray, kind: str, ridge: float) -> np.ndarray:
    scale = np.sqrt(np.diag(gram))
    scale = np.where(scale > 0, scale, 1.0)
    if kind == DAMPED:
        return cross / scale**2
    # Channels differ by ten orders of magnitude: solve for standardised ones.
    standard = gram / np.outer(scale, scale) + ridge * np.eye(len(gram))
    solution = np.linalg.solve(standard, (cross / np.outer(scale, scale)).transpose(0, 2, 1)).transpose(
        0, 2, 1
    )
    return solution * scale[:, None] / scale[None, :]
