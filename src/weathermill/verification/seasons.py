"""Scores by season of the valid time."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification import times as clock

SEASONS = ("DJF", "MAM", "JJA", "SON")


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
    inits = scores["init_time"].to_numpy()
    season = np.stack(
        [clock.season(clock.add_hours(inits, float(lead))) for lead in scores["lead_time"].to_numpy()]
    )
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
