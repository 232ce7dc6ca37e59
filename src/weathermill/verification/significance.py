"""How sure a score is: block bootstrap over initial times, and paired tests of two runs.

Forecasts started a few hours apart share weather, and forecasts to lead time t from times closer than t
verify over overlapping periods, so their errors are correlated in time and plain resampling is too sure of
itself. The circular block bootstrap (Politis and Romano 1992) draws whole blocks of consecutive initial
times. Where many channels and lead times are tested at once, the false discovery rate is controlled
(Benjamini and Hochberg 1995; Wilks 2016, doi:10.1175/BAMS-D-15-00267.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification import times as clock

#: Decorrelation of synoptic weather, added to the lead time for the default length of blocks (hours).
SYNOPTIC_HOURS = 48.0
#: With fewer blocks than this an interval is a guess; results say so.
FEW_BLOCKS = 5


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


def confidence_intervals(
    scores: xr.Dataset,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    block: int | None = None,
    seed: int = 0,
    decorrelation_hours: float = SYNOPTIC_HOURS,
) -> xr.Dataset:
    """Bootstrap intervals of RMSE, bias and ACC over initial times.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`, with the values by initial time.
    level
        Probability that the interval covers, percentile method.
    n_resamples
        Number of bootstrap resamples.
    block
        Length of blocks in initial times; by default `block_length`, growing with lead time.
    seed
        Of the generator.
    decorrelation_hours
        Decorrelation time of the weather, for the default length of blocks.

    Returns
    -------
    xarray.Dataset
        ``rmse_lower``, ``rmse_upper``, likewise ``bias`` and ``acc``, with dimensions (source, channel,
        region, lead_time), and ``block`` (lead_time). NaN for scores that are NaN or have fewer than three
        initial times.

    Raises
    ------
    VerificationError
        If the scores hold no values by initial time.
    """
    _require_by_init(scores)
    n_init, leads = scores.sizes["init_time"], scores["lead_time"].to_numpy()
    spacing = clock.spacing_hours(scores["init_time"].to_numpy())
    dims = ("source", "channel", "region", "lead_time")
    bounds = {
        f"{name}_{side}": np.full([scores.sizes[dim] for dim in dims], np.nan)
        for name in ("rmse", "bias", "acc")
        for side in ("lower", "upper")
    }
    blocks = np.array(
        [block or block_length(n_init, spacing, float(lead), decorrelation_hours) for lead in leads]
    )
    tail = 100 * (1 - level) / 2
    for position, lead in enumerate(leads):
        if n_init < 3:
            continue
        weights = bootstrap_weights(n_init, int(blocks[position]), n_resamples, _generator(seed, lead))
        for name, source in (("rmse", "mse_by_init"), ("bias", "bias_by_init"), ("acc", "acc_by_init")):
            data = scores[source].isel(lead_time=position).transpose("init_time", *dims[:3]).to_numpy()
            means = _resampled_means(weights, data)
            if name == "rmse":
                means = np.sqrt(means)
            lower, upper = np.percentile(means, [tail, 100 - tail], axis=0)
            bounds[f"{name}_lower"][..., position], bounds[f"{name}_upper"][..., position] = lower, upper
    result = xr.Dataset({name: (dims, value) for name, value in bounds.items()})
    result["block"] = ("lead_time", blocks, {"long_name": "length of bootstrap blocks in initial times"})
    result = result.assign_coords({name: scores[name] for name in (*dims, "units") if name in scores.coords})
    result.attrs = {
        "level": level,
        "n_resamples": n_resamples,
        "method": "circular block bootstrap over initial times, percentile intervals",
        "n_init_times": n_init,
        "few_blocks": int(n_init < FEW_BLOCKS * int(blocks.max())),
    }
    return result


def compare(
    scores: xr.Dataset,
    baseline: xr.Dataset,
    *,
    source: str = "forecast",
    baseline_source: str = "forecast",
    level: float = 0.95,
    n_resamples: int = 2000,
    block: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the RMSE and ACC of two runs, paired by initial time, with significance.

    Parameters
    ----------
    scores, baseline
        Scores of the two runs, with the values by initial time. What both have in common is compared: initial
        times, channels, regions, lead times.
    source, baseline_source
        Which source of each; "forecast" against "persistence" of one run's scores works too.
    level
        Of the intervals; 1 - ``level`` is the false discovery rate of ``significant``.
    n_resamples, block, seed
        As for `confidence_intervals`.

    Returns
    -------
    xarray.Dataset
        Dimensions (channel, region, lead_time). ``rmse_change``: per cent by which RMSE differs from the
        baseline's (negative is better), with ``_lower`` and ``_upper``; ``acc_change``: difference of ACC,
        likewise; ``p_value`` of the RMSE (two-sided, bootstrap), ``p_value_dm`` (Diebold-Mariano test of the
        squared errors as Harvey, Leybourne and Newbold 1997 corrected it); ``significant``: RMSE differs at a
        false discovery rate of 1 - ``level`` over all cells.

    Raises
    ------
    VerificationError
        If the runs have fewer than three initial times, or no channel, region or lead time, in common.
    """
    for each in (scores, baseline):
        _require_by_init(each)
    ours, theirs = _common(scores.sel(source=source), baseline.sel(source=baseline_source))
    n_init, leads = ours.sizes["init_time"], ours["lead_time"].to_numpy()
    spacing = clock.spacing_hours(ours["init_time"].to_numpy())
    dims = ("channel", "region", "lead_time")
    shape = [ours.sizes[dim] for dim in dims]
    names = ("rmse_change", "rmse_change_lower", "rmse_change_upper", "acc_change", "acc_change_lower")
    out = {name: np.full(shape, np.nan) for name in (*names, "acc_change_upper", "p_value", "p_value_dm")}
    blocks = np.array([block or block_length(n_init, spacing, float(lead)) for lead in leads])
    tail = 100 * (1 - level) / 2
    for position, lead in enumerate(leads):
        weights = bootstrap_weights(n_init, int(blocks[position]), n_resamples, _generator(seed, lead))
        pair = [
            [
                each[name]
                .isel(lead_time=position)
                .transpose("init_time", *dims[:2])
                .to_numpy()
                .astype(np.float64)
                for each in (ours, theirs)
            ]
            for name in ("mse_by_init", "acc_by_init")
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt(pair[0][0].mean(0) / pair[0][1].mean(0))
            ratios = np.sqrt(_resampled_means(weights, pair[0][0]) / _resampled_means(weights, pair[0][1]))
        out["rmse_change"][..., position] = 100 * (ratio - 1)
        lower, upper = np.percentile(100 * (ratios - 1), [tail, 100 - tail], axis=0)
        out["rmse_change_lower"][..., position], out["rmse_change_upper"][..., position] = lower, upper
        difference = pair[1][0] - pair[1][1]
        out["acc_change"][..., position] = difference.mean(0)
        lower, upper = np.percentile(_resampled_means(weights, difference), [tail, 100 - tail], axis=0)
        out["acc_change_lower"][..., position], out["acc_change_upper"][..., position] = lower, upper
        # One resample is added to either side, so that no finite number of resamples yields a p-value of
        # zero.
        below = (1 + (ratios <= 1).sum(0)) / (n_resamples + 1)
        above = (1 + (ratios >= 1).sum(0)) / (n_resamples + 1)
        p_value = np.minimum(1.0, 2 * np.minimum(below, above))
        out["p_value"][..., position] = np.where(np.isfinite(ratio), p_value, np.nan)
        out["p_value_dm"][..., position] = diebold_mariano(pair[0][0] - pair[0][1], int(blocks[position]))
    result = xr.Dataset({name: (dims, value) for name, value in out.items()})
    result["significant"] = (dims, false_discovery(out["p_value"], 1 - level))
    result["block"] = ("lead_time", blocks)
    result = result.assign_coords({name: ours[name] for name in (*dims, "units") if name in ours.coords})
    result.attrs = {
        "level": level,
        "n_init_times": n_init,
        "n_resamples": n_resamples,
        "method": "paired circular block bootstrap over initial times; false discovery rate over all cells",
        "few_blocks": int(n_init < FEW_BLOCKS * int(blocks.max())),
        "first_init_time": clock.time_key(ours["init_time"].to_numpy()[0]),
        "last_init_time": clock.time_key(ours["init_time"].to_numpy()[-1]),
    }
    return result


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


def _resampled_means(weights: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Means (resample, ...) of data (init, ...); initial times without data are left out of each mean."""
    flat = data.reshape(len(data), -1).astype(np.float64)
    present = np.isfinite(flat)
    if present.all():
        means = weights @ flat
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = (weights @ np.where(present, flat, 0.0)) / (weights @ present.astype(np.float64))
    return means.reshape(len(weights), *data.shape[1:])


def _common(ours: xr.Dataset, theirs: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    ours, theirs = ours.drop_vars("source", errors="ignore"), theirs.drop_vars("source", errors="ignore")
    for dim in ("init_time", "channel", "region", "lead_time"):
        other = set(theirs[dim].to_numpy().tolist())
        shared: Sequence = [value for value in ours[dim].to_numpy() if _plain(value) in other]
        if len(shared) < (3 if dim == "init_time" else 1):
            raise VerificationError(
                f"the runs have {len(shared)} {dim} in common: {_few(ours[dim])} against {_few(theirs[dim])}",
                remedy="Evaluate both runs over the same test period, channels and lead times.",
            )
        ours, theirs = ours.sel({dim: shared}), theirs.sel({dim: shared})
    return ours, theirs


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


def _few(values: xr.DataArray) -> str:
    names = [str(value) for value in values.to_numpy()]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, ... {names[-1]}"


def _require_by_init(scores: xr.Dataset) -> None:
    if "mse_by_init" not in scores:
        raise VerificationError(
            "these scores hold no values by initial time, from which significance is made",
            remedy="Evaluate again, keeping them (by_init=True).",
        )


def _generator(seed: int, lead: float) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([int(seed), 0xB00757A9, round(float(lead) * 60)]))
