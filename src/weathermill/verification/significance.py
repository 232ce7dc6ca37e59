"""How sure a score is: block bootstrap over initial times, and paired tests of two runs.

Forecasts started a few hours apart share weather, and forecasts to lead time t from times closer than t
verify over overlapping periods, so their errors are correlated in time and plain resampling is too sure of
itself. The circular block bootstrap (Politis and Romano 1992) draws whole blocks of consecutive initial
times. Where many channels and lead times are tested at once, the false discovery rate is controlled
(Benjamini and Hochberg 1995; Wilks 2016, doi:10.1175/BAMS-D-15-00267.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification import times as clock
from weathermill.verification.bootstrap import (
    SYNOPTIC_HOURS,
    block_length,
    bootstrap_weights,
    generator_for,
    resampled_means,
)
from weathermill.verification.hypotheses import diebold_mariano, false_discovery

#: What is told of each channel, region and lead time of a comparison.
CHANGES = (
    "rmse_change",
    "rmse_change_lower",
    "rmse_change_upper",
    "acc_change",
    "acc_change_lower",
    "acc_change_upper",
    "p_value",
    "p_value_dm",
)
#: With fewer blocks than this an interval is a guess; results say so.
FEW_BLOCKS = 5


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
        weights = bootstrap_weights(n_init, int(blocks[position]), n_resamples, generator_for(seed, lead))
        for name, source in (("rmse", "mse_by_init"), ("bias", "bias_by_init"), ("acc", "acc_by_init")):
            data = scores[source].isel(lead_time=position).transpose("init_time", *dims[:3]).to_numpy()
            means = resampled_means(weights, data)
            if name == "rmse":
                means = np.sqrt(means)
            lower, upper = np.percentile(means, [tail, 100 - tail], axis=0)
            bounds[f"{name}_lower"][..., position], bounds[f"{name}_upper"][..., position] = lower, upper
    for name in {"rmse", "bias", "acc"} & set(scores.data_vars):
        # The resamples leave out initial times without a value, among them those of forecasts that are not finite.
        finite = np.isfinite(scores[name].transpose(*dims).to_numpy())
        for side in ("lower", "upper"):
            bounds[f"{name}_{side}"] = np.where(finite, bounds[f"{name}_{side}"], np.nan)
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


def ratio_intervals(
    scores: xr.Dataset,
    references: Sequence[str],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    decorrelation_hours: float = SYNOPTIC_HOURS,
) -> xr.Dataset:
    """Bootstrap intervals of the RMSE of the forecast over that of other sources, paired by initial time.

    Forecast and reference have the same weather, so that their ratio is known better than either.

    Parameters
    ----------
    scores
        With the values by initial time.
    references
        Sources such as "persistence".
    level, n_resamples, seed, decorrelation_hours
        As for `confidence_intervals`.

    Returns
    -------
    xarray.Dataset
        ``rmse_ratio_lower`` and ``rmse_ratio_upper`` (reference, channel, region, lead_time); NaN with fewer than three
        initial times.
    """
    _require_by_init(scores)
    leads, inits = scores["lead_time"].to_numpy(), scores["init_time"].to_numpy()
    spacing = clock.spacing_hours(inits)
    dims = ("reference", "channel", "region", "lead_time")
    bounds = np.full((2, len(references), *(scores.sizes[dim] for dim in dims[1:])), np.nan)
    squares = scores["mse_by_init"].transpose("source", "init_time", *dims[1:])
    tails = [50 * (1 - level), 100 - 50 * (1 - level)]
    for position, lead in enumerate(leads if len(inits) >= 3 else []):
        length = block_length(len(inits), spacing, float(lead), decorrelation_hours)
        weights = bootstrap_weights(len(inits), length, n_resamples, generator_for(seed, lead))
        here = squares.isel(lead_time=position)
        ours = resampled_means(weights, here.sel(source="forecast").to_numpy())
        for row, name in enumerate(references):
            theirs = resampled_means(weights, here.sel(source=name).to_numpy())
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.sqrt(ours / theirs)
            bounds[:, row, ..., position] = np.percentile(ratio, tails, axis=0)
    coords = {name: scores[name] for name in (*dims[1:], "units") if name in scores.coords}
    names = ("rmse_ratio_lower", "rmse_ratio_upper")
    return xr.Dataset(
        {name: (dims, values) for name, values in zip(names, bounds, strict=True)},
        coords={"reference": list(references), **coords},
    )


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
    ours, theirs = common_scores(scores, baseline, source, baseline_source)
    n_init, leads = ours.sizes["init_time"], ours["lead_time"].to_numpy()
    spacing = clock.spacing_hours(ours["init_time"].to_numpy())
    dims = ("channel", "region", "lead_time")
    out = {name: np.full([ours.sizes[dim] for dim in dims], np.nan) for name in CHANGES}
    blocks = np.array([block or block_length(n_init, spacing, float(lead)) for lead in leads])
    for position, lead in enumerate(leads):
        changes = paired_changes(
            ours.isel(lead_time=position),
            theirs.isel(lead_time=position),
            block=int(blocks[position]),
            n_resamples=n_resamples,
            level=level,
            generator=generator_for(seed, lead),
        )
        for name, values in changes.items():
            out[name][..., position] = values
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


def paired_changes(
    ours: xr.Dataset,
    theirs: xr.Dataset,
    *,
    block: int,
    n_resamples: int,
    level: float,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Test the differences of two runs at one lead time.

    Parameters
    ----------
    ours, theirs
        ``mse_by_init`` and ``acc_by_init`` (channel, region, init_time), of the same initial times in their order.
    block, n_resamples, generator
        Of the bootstrap.
    level
        Of the intervals.

    Returns
    -------
    dict
        The arrays (channel, region) that `compare` explains, under the names of `CHANGES`.
    """
    order = ("init_time", "channel", "region")
    mse, acc = (
        [each[name].transpose(*order).to_numpy().astype(np.float64) for each in (ours, theirs)]
        for name in ("mse_by_init", "acc_by_init")
    )
    weights = bootstrap_weights(len(mse[0]), block, n_resamples, generator)
    tails = [50 * (1 - level), 100 - 50 * (1 - level)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(mse[0].mean(0) / mse[1].mean(0))
        ratios = np.sqrt(resampled_means(weights, mse[0]) / resampled_means(weights, mse[1]))
    difference = acc[0] - acc[1]
    # One resample is added to either side, so that no finite number of resamples yields a p-value of zero.
    below = (1 + (ratios <= 1).sum(0)) / (n_resamples + 1)
    above = (1 + (ratios >= 1).sum(0)) / (n_resamples + 1)
    p_value = np.minimum(1.0, 2 * np.minimum(below, above))
    rmse_bounds = np.percentile(100 * (ratios - 1), tails, axis=0)
    acc_bounds = np.percentile(resampled_means(weights, difference), tails, axis=0)
    values = (
        100 * (ratio - 1),
        *rmse_bounds,
        difference.mean(0),
        *acc_bounds,
        np.where(np.isfinite(ratio), p_value, np.nan),
        diebold_mariano(mse[0] - mse[1], block),
    )
    return dict(zip(CHANGES, values, strict=True))


def common_scores(
    scores: xr.Dataset, baseline: xr.Dataset, source: str = "forecast", baseline_source: str = "forecast"
) -> tuple[xr.Dataset, xr.Dataset]:
    """Cut the scores of two runs to what both have: initial times, channels, regions and lead times.

    Raises
    ------
    VerificationError
        If there are no values by initial time, fewer than three initial times in common, or nothing of another kind.
    """
    for each in (scores, baseline):
        _require_by_init(each)
    ours = scores.sel(source=source).drop_vars("source", errors="ignore")
    theirs = baseline.sel(source=baseline_source).drop_vars("source", errors="ignore")
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
