"""Resamples of initial times by blocks, and the means over them."""

from __future__ import annotations

import math

import numpy as np

from weathermill.errors import VerificationError

#: Decorrelation of synoptic weather, added to the lead time for the default length of blocks (hours).
SYNOPTIC_HOURS = 48.0


def block_length(
    n_init: int, spacing_hours: float, lead_hours: float, decorrelation_hours: float = SYNOPTIC_HOURS
) -> int:
    """Choose a block length in initial times.

    Errors of forecasts to lead t stay correlated for about t plus the decorrelation time of the weather;
    blocks have at least the customary n^(1/3), and never more than a third of the initial times.

    Parameters
    ----------
    n_init
        Number of initial times.
    spacing_hours
        Time between them in hours (NaN: treated as independent).
    lead_hours
        Lead time in hours.
    decorrelation_hours
        Decorrelation time of the weather.
    """
    customary = math.ceil(n_init ** (1 / 3))
    if not np.isfinite(spacing_hours) or spacing_hours <= 0:
        return max(1, min(customary, n_init))
    physical = math.ceil((lead_hours + decorrelation_hours) / spacing_hours)
    return max(1, min(max(customary, physical), n_init // 3))


def bootstrap_weights(
    n_init: int, length: int, n_resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw resamples by circular blocks.

    Parameters
    ----------
    n_init
        Number of initial times, in order of time.
    length
        Length of a block, 1 to ``n_init``.
    n_resamples
        How many resamples.
    generator
        Source of random numbers.

    Returns
    -------
    numpy.ndarray
        float64 (resample, init): how often each initial time is drawn, over ``n_init``; rows add up to one.
    """
    if not 1 <= length <= n_init:
        raise VerificationError(f"a block of {length} initial times does not fit {n_init} of them")
    n_blocks = math.ceil(n_init / length)
    starts = generator.integers(0, n_init, size=(n_resamples, n_blocks))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(n_resamples, -1)[:, :n_init] % n_init
    counts = np.zeros((n_resamples, n_init))
    np.add.at(counts, (np.arange(n_resamples)[:, None], drawn), 1.0)
    return counts / n_init


def resampled_means(weights: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Means (resample, ...) of data (init, ...); initial times without data are left out of each mean."""
    flat = data.reshape(len(data), -1).astype(np.float64)
    present = np.isfinite(flat)
    if present.all():
        means = weights @ flat
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = (weights @ np.where(present, flat, 0.0)) / (weights @ present.astype(np.float64))
    return means.reshape(len(weights), *data.shape[1:])


def generator_for(seed: int, lead: float) -> np.random.Generator:
    """Return the source of random numbers of a lead time: resamples do not depend on which others there are."""
    return np.random.default_rng(np.random.SeedSequence([int(seed), 0xB00757A9, round(float(lead) * 60)]))
