"""Scores, and comparisons of runs, by season of the valid time."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification import times as clock
from weathermill.verification.bootstrap import block_length, generator_for
from weathermill.verification.hypotheses import false_discovery
from weathermill.verification.significance import CHANGES, common_scores, paired_changes

SEASONS = ("DJF", "MAM", "JJA", "SON")
#: With fewer initial times in a season nothing is said of it.
FEWEST_INITS = 3


def seasonal_scores(scores: xr.Dataset) -> xr.Dataset:
    """Split scores by the meteorological season in which forecasts verify.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`, with the values by initial time.

    Returns
    -------
    xarray.Dataset
        ``rmse``, ``bias``, ``acc`` and ``n_init`` with a leading dimension ``season`` of those that occur,
        float64.

    Raises
    ------
    VerificationError
        If the scores hold no values by initial time.
    """
    if "mse_by_init" not in scores:
        raise VerificationError(
            "these scores hold no values by initial time, which seasons are made of",
            remedy="Evaluate again, keeping them (by_init=True).",
        )
    season = seasons_of(scores)
    of = xr.DataArray(season, dims=("lead_time", "init_time"))
    pieces = []
    present = [name for name in SEASONS if name in season]
    for name in present:
        # A score that is NaN though the forecast belongs to the season stays NaN: failures are not skipped.
        member = (of == name) & (
            scores["mse_by_init"].notnull() | (scores["n_init"] == scores.sizes["init_time"])
        )
        count = member.sum("init_time")

        def mean(values: xr.DataArray, member=member, count=count) -> xr.DataArray:
            total = values.astype(np.float64).where(member, 0.0).sum("init_time", skipna=False)
            return total / count.where(count > 0)

        piece = xr.Dataset({"rmse": np.sqrt(mean(scores["mse_by_init"]))})
        piece["bias"], piece["acc"] = mean(scores["bias_by_init"]), mean(scores["acc_by_init"])
        piece["n_init"] = count
        pieces.append(piece)
    result = xr.concat(pieces, dim=xr.DataArray(present, dims="season", name="season"))
    result.attrs = {**scores.attrs, "season": "by valid time"}
    return result


def seasons_of(scores: xr.Dataset) -> np.ndarray:
    """Return the season in which each forecast verifies: (lead_time, init_time) of ``SEASONS``."""
    inits = scores["init_time"].to_numpy()
    return np.stack(
        [clock.season(clock.add_hours(inits, float(lead))) for lead in scores["lead_time"].to_numpy()]
    )


def compare_seasons(
    scores: xr.Dataset,
    baseline: xr.Dataset,
    *,
    source: str = "forecast",
    baseline_source: str = "forecast",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Compare two runs by season of the valid time, paired by initial time, with significance.

    Parameters
    ----------
    scores, baseline, source, baseline_source, level, n_resamples, seed
        As for `weathermill.verification.significance.compare`.

    Returns
    -------
    xarray.Dataset
        Dimensions (season, channel, region, lead_time), of the seasons that occur: what `compare` gives, and ``n_init``
        and ``block`` (season, lead_time). ``significant`` controls the false discovery rate over all cells of all
        seasons. Seasons are short: ``p_value`` is never smaller than a sign test of the independent blocks could give,
        2^(1 - blocks), and cells with fewer than three initial times are NaN. Blocks run over the gaps between the years
        of a season.

    Raises
    ------
    VerificationError
        As `compare`.
    """
    ours, theirs = common_scores(scores, baseline, source, baseline_source)
    season, leads = seasons_of(ours), ours["lead_time"].to_numpy()
    present = [name for name in SEASONS if name in season]
    dims = ("season", "channel", "region", "lead_time")
    shape = [len(present), *(ours.sizes[dim] for dim in dims[1:])]
    out = {name: np.full(shape, np.nan) for name in CHANGES}
    counts, blocks = (np.zeros((len(present), len(leads)), dtype=np.int64) for _ in range(2))
    for row, name in enumerate(present):
        for position, lead in enumerate(leads):
            members = np.flatnonzero(season[position] == name)
            counts[row, position] = len(members)
            if len(members) < FEWEST_INITS:
                continue
            pair = [each.isel(lead_time=position, init_time=members) for each in (ours, theirs)]
            spacing = clock.spacing_hours(pair[0]["init_time"].to_numpy())
            blocks[row, position] = block_length(len(members), spacing, float(lead))
            changes = paired_changes(
                *pair,
                block=int(blocks[row, position]),
                n_resamples=n_resamples,
                level=level,
                generator=generator_for(seed, lead),
            )
            # However clear the bootstrap, B blocks can show no more than that all of them agree in sign.
            n_blocks = len(members) // int(blocks[row, position])
            changes["p_value"] = np.maximum(changes["p_value"], 2.0 ** (1 - n_blocks))
            for key, values in changes.items():
                out[key][row, ..., position] = values
    result = xr.Dataset({key: (dims, values) for key, values in out.items()})
    result["significant"] = (dims, false_discovery(out["p_value"], 1 - level))
    result["n_init"], result["block"] = (("season", "lead_time"), counts), (("season", "lead_time"), blocks)
    coords = {name: ours[name] for name in (*dims[1:], "units") if name in ours.coords}
    result = result.assign_coords({"season": present, **coords})
    result.attrs = {"level": level, "n_resamples": n_resamples, "season": "by valid time"}
    return result


def enough_blocks(seasons: xr.Dataset, season: str) -> bool:
    """Whether a season holds enough independent blocks, at any lead time, for any difference to be significant."""
    here = seasons.sel(season=season)
    n_blocks = int(
        (here["n_init"] // here["block"].where(here["block"] > 0, 1)).where(here["block"] > 0, 0).max()
    )
    return 2.0 ** (1 - n_blocks) <= 1 - float(seasons.attrs.get("level", 0.95))


def with_seasons(comparison: xr.Dataset, seasons: xr.Dataset) -> xr.Dataset:
    """Add a comparison by season to the one over all initial times; alone, where there is one season only."""
    comparison = comparison.assign_attrs(seasons=", ".join(seasons["season"].to_numpy().tolist()))
    if seasons.sizes["season"] < 2:
        return comparison
    return comparison.assign({f"season_{name}": variable for name, variable in seasons.data_vars.items()})


def seasons_within(comparison: xr.Dataset) -> xr.Dataset | None:
    """Return the comparison by season that `with_seasons` added; None where there is none."""
    if "season" not in comparison.dims:
        return None
    named = {
        name: name.removeprefix("season_") for name in comparison.data_vars if name.startswith("season_")
    }
    return comparison[list(named)].rename(named).assign_attrs(comparison.attrs)
