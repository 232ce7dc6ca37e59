"""Scorecards: channels by lead times in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from weathermill.errors import VerificationError
from weathermill.verification.labels import region_label, short_name
from weathermill.verification.metrics import rmse_ratio
from weathermill.verification.regions import whole_region
from weathermill.verification.style import new_figure, styled


@styled
def scorecard(
    scores: xr.Dataset,
    *,
    reference: str = "persistence",
    region: str | None = None,
    channels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the RMSE of the forecast relative to a baseline, channels by lead times.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    reference
        The source to compare with.
    region
        Which region; all cells by default.
    channels
        Channels to show; all by default.
    title
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        Per cent of the reference's RMSE: negative (blue) where the forecast is better.
    """
    region = region or whole_region(scores["region"].to_numpy())
    ratio = rmse_ratio(scores, reference).sel(region=region)
    if channels is not None:
        ratio = ratio.sel(channel=list(channels))
    change = 100.0 * (ratio - 1.0)
    title = title or f"RMSE relative to {reference}, {region_label(region)}"
    return heat_map(change, label=f"RMSE difference from {reference} (%)", title=title)


@styled
def region_scorecard(
    scores: xr.Dataset, *, reference: str = "persistence", title: str | None = None
) -> Figure:
    """Draw the RMSE of the forecast relative to a baseline, mean over channels, regions by lead times.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    reference
        The source to compare with.
    title
        Title of the figure.
    """
    ratio = rmse_ratio(scores, reference).mean("channel", skipna=True)
    labels = [region_label(name) for name in ratio["region"].to_numpy().tolist()]
    change = (100.0 * (ratio - 1.0)).assign_coords(region=labels).rename(region="channel")
    title = title or f"RMSE relative to {reference} by region, mean over channels"
    return heat_map(change, label="Difference (%)", title=title)


@styled
def comparison_scorecard(
    comparison: xr.Dataset,
    *,
    region: str | None = None,
    season: str | None = None,
    names: tuple[str, str] = ("this run", "the other"),
    title: str | None = None,
) -> Figure:
    """Draw the comparison of two runs; cells that are not significant are pale.

    Parameters
    ----------
    comparison
        From `weathermill.verification.significance.compare`, or from `weathermill.verification.seasons.compare_seasons`.
    region
        Which region; all cells by default.
    season
        Which season, of a comparison by season.
    names
        Of the run judged and of the one it is compared with.
    title
        Title of the figure.
    """
    region = region or whole_region(comparison["region"].to_numpy())
    here = comparison.sel(region=region)
    count, when = str(comparison.attrs.get("n_init_times", "?")), ""
    if season is not None:
        here = here.sel(season=season)
        counts = sorted({int(here["n_init"].min()), int(here["n_init"].max())})
        count, when = " to ".join(map(str, counts)), f", {season}"
    rate = 1 - float(comparison.attrs.get("level", 0.95))
    title = title or (
        f"RMSE of {names[0]} relative to {names[1]}, {region_label(region)}{when}\n"
        f"{count} initial times; pale: not significant at a false discovery rate of {rate:.2g}"
    )
    return heat_map(
        here["rmse_change"], label="RMSE difference (%)", title=title, significant=here["significant"]
    )


@styled
def heat_map(
    change: xr.DataArray,
    *,
    label: str,
    title: str = "",
    significant: xr.DataArray | None = None,
    limit: float | None = None,
    most_leads: int = 12,
) -> Figure:
    """Draw relative differences, channels by lead times: blue is lower (better), red is higher.

    Parameters
    ----------
    change
        (channel, lead_time), per cent.
    label
        Of the colour bar.
    title
        Of the figure.
    significant
        Boolean (channel, lead_time): cells that are not significant are pale.
    limit
        Where the colours end (per cent); by default the 95th percentile of the magnitudes, at most 100.
    most_leads
        Of more lead times than this, the first and every n-th are shown: a printed page has room for no more.
    """
    step = math.ceil(change.sizes["lead_time"] / most_leads)
    if step > 1:
        shown = sorted({0, *range(step - 1, change.sizes["lead_time"], step)})
        change = change.isel(lead_time=shown)
        significant = None if significant is None else significant.isel(lead_time=shown)
    values = change.transpose("channel", "lead_time").to_numpy()
    names = change["channel"].to_numpy().tolist()
    hours = change["lead_time"].to_numpy().astype(float)
    if not np.isfinite(values).any():
        raise VerificationError("there is no finite difference to draw")
    if limit is None:
        limit = float(np.clip(np.nanpercentile(np.abs(values), 95), 1.0, 100.0))
    figure = new_figure(2.4 + max(3.0, 0.42 * len(hours)), 1.15 + 0.19 * len(names))
    axis = figure.subplots()
    image = axis.pcolormesh(
        np.arange(len(hours) + 1) - 0.5,
        np.arange(len(names) + 1) - 0.5,
        values,
        cmap="RdBu_r",
        norm=TwoSlopeNorm(0.0, -limit, limit),
        edgecolors="white",
        linewidth=0.6,
    )
    axis.invert_yaxis()
    axis.grid(False)
    axis.set_yticks(range(len(names)), [short_name(name) for name in names], fontsize=7)
    axis.set_xticks(range(len(hours)), [f"{hour:g}" for hour in hours], fontsize=7)
    axis.tick_params(length=0)
    axis.set_xlabel("Lead time (h)" if step == 1 else f"Lead time (h), the first and one in {step}")
    for edge in ("left", "bottom"):
        axis.spines[edge].set_visible(False)
    doubtful = np.zeros_like(values, dtype=bool)
    if significant is not None:
        doubtful = ~significant.transpose("channel", "lead_time").to_numpy().astype(bool)
    for row in range(len(names)):
        for column in range(len(hours)):
            value = values[row, column]
            if doubtful[row, column]:
                cell = (
                    column + np.array([-0.5, 0.5, 0.5, -0.5]),
                    row + np.array([-0.5, -0.5, 0.5, 0.5]),
                )
                axis.fill(*cell, facecolor="white", alpha=0.72, linewidth=0)
            if np.isfinite(value):
                strong = abs(value) > 0.6 * limit and not doubtful[row, column]
                text = (
                    f"{value:+.1f}"
                    if abs(value) < 9.5
                    else f"{value:+.0f}"
                    if abs(value) < 9999.5
                    else ">9999"
                )
                axis.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="#7f7f7f" if doubtful[row, column] else "white" if strong else "black",
                )
    bar = figure.colorbar(
        image, ax=axis, shrink=min(1.0, 2.4 / (0.19 * len(names) + 0.6)), extend="both", pad=0.02
    )
    bar.set_label(label)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=9.5)
    return figure
