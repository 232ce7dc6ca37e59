"""Tests of hypotheses: whether a mean differs from zero, and which of many tests to believe."""

from __future__ import annotations

import math

import numpy as np


def diebold_mariano(difference: np.ndarray, horizon: int) -> np.ndarray:
    """Test whether the mean of an autocorrelated loss difference is zero.

    Diebold and Mariano (1995) with the Bartlett-weighted (Newey-West) variance over ``horizon`` - 1 lags, the
    small sample correction of Harvey, Leybourne and Newbold (1997) and Student's t.

    Parameters
    ----------
    difference
        (init, ...) difference of losses, ordered in time.
    horizon
        Steps over which errors are correlated, at least 1.

    Returns
    -------
    numpy.ndarray
        Two-sided p-values (...); NaN where the difference has no variance.
    """
    from scipy.stats import t as student

    difference = np.asarray(difference, dtype=np.float64)
    n = difference.shape[0]
    horizon = int(np.clip(horizon, 1, max(1, n // 2)))
    centred = difference - difference.mean(0)
    variance = (centred**2).mean(0)
    for lag in range(1, horizon):
        variance = variance + 2 * (1 - lag / horizon) * (centred[lag:] * centred[:-lag]).sum(0) / n
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = difference.mean(0) / np.sqrt(variance / n) * math.sqrt(max(correction, 0.0))
        p_value = 2 * student.sf(np.abs(statistic), n - 1)
    return np.where(variance > 0, p_value, np.nan)


def false_discovery(p_values: np.ndarray, rate: float) -> np.ndarray:
    """Decide which of many tests are significant at a false discovery rate (Benjamini and Hochberg 1995).

    Parameters
    ----------
    p_values
        Any shape; NaN are no tests.
    rate
        Expected share of false ones among those declared significant.

    Returns
    -------
    numpy.ndarray
        Boolean, of the same shape.
    """
    flat = np.asarray(p_values, dtype=np.float64).ravel()
    tested = np.flatnonzero(np.isfinite(flat))
    result = np.zeros(flat.shape, dtype=bool)
    if tested.size:
        ordered = tested[np.argsort(flat[tested])]
        passing = np.flatnonzero(flat[ordered] <= rate * np.arange(1, tested.size + 1) / tested.size)
        if passing.size:
            result[ordered[: passing[-1] + 1]] = True
    return result.reshape(np.shape(p_values))
