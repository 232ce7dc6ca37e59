"""The comparison of two runs as a page that needs no network, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from weathermill.verification.labels import counted, long_name, region_label
from weathermill.verification.metrics import headline_channels
from weathermill.verification.scorecards import comparison_scorecard
from weathermill.verification.seasons import enough_blocks, seasons_within
from weathermill.verification.significance import CHANGES
from weathermill.verification.style import figure_data_uri
from weathermill.verification.summary import SUMMARY_LEADS

#: Regions with scorecards by season on the page; the table has all.
MOST_REGIONS = 8


def comparison_frame(comparison: xr.Dataset) -> pd.DataFrame:
    """Flatten a comparison: a row per season ("all" first), channel, region and lead time.

    Parameters
    ----------
    comparison
        From `weathermill.verification.significance.compare`, with or without seasons.
    """
    names = [*CHANGES, "significant"]
    frames = [comparison[names].drop_vars(["units", "season"], errors="ignore").to_dataframe().reset_index()]
    frames[0].insert(0, "season", "all")
    if (seasons := seasons_within(comparison)) is not None:
        table = seasons[names].drop_vars("units", errors="ignore")
        frames.append(
            table.to_dataframe(dim_order=["season", "channel", "region", "lead_time"]).reset_index()
        )
    return pd.concat(frames, ignore_index=True).rename(columns={"lead_time": "lead_time_h"})


def verdicts(comparison: xr.Dataset, season: str | None = None) -> list[dict[str, Any]]:
    """Count, by region, the channels and lead times with a significantly lower or higher RMSE."""
    rows = []
    for region in comparison["region"].to_numpy().tolist():
        here = (
            comparison.sel(region=region) if season is None else comparison.sel(region=region, season=season)
        )
        significant = here["significant"].astype(bool)
        rows.append(
            {
                "region": region_label(region),
                "better": int((significant & (here["rmse_change"] < 0)).sum()),
                "worse": int((significant & (here["rmse_change"] > 0)).sum()),
                "cells": int(significant.size),
                "mean": float(here["rmse_change"].mean(skipna=True)),
            }
        )
    return rows


def render_comparison(
    comparison: xr.Dataset,
    *,
    names: tuple[str, str],
    runs: Sequence[Mapping[str, Any]],
    differences: Sequence[tuple[str, str, str]] = (),
    notes: Sequence[str] = (),
    simulated: bool | None = None,
) -> str:
    """Render the page.

    Parameters
    ----------
    comparison
        From `weathermill.verification.significance.compare`.
    names
        Of the run judged and of the one it is compared with.
    runs
        Facts on the two, in the same order, label to value.
    differences
        Parameters that differ: name, value in the run judged, value in the other.
    notes
        Sentences on what limits the comparison.
    simulated
        Whether the data are a simulation.

    Returns
    -------
    str
        HTML; everything that comes from runs is escaped.
    """
    leads = [lead for lead in SUMMARY_LEADS if lead in comparison["lead_time"]]
    leads = leads or [float(comparison["lead_time"][-1])]
    channels = headline_channels(comparison["channel"].to_numpy().tolist())
    regions = comparison["region"].to_numpy().tolist()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("weathermill.verification").joinpath("templates/comparison.html.j2").read_text("utf-8")
    )
    level = 100 * float(comparison.attrs.get("level", 0.95))
    return template.render(
        names=names,
        runs=[[(key.replace("_", " "), str(value)) for key, value in run.items()] for run in runs],
        simulated=simulated,
        level=f"{level:g}",
        rate=f"{100 - level:g}",
        counted_inits=counted(comparison.attrs.get("n_init_times", "?"), "initial time"),
        period=[str(comparison.attrs.get(key, ""))[:16] for key in ("first_init_time", "last_init_time")],
        few_blocks=bool(comparison.attrs.get("few_blocks")),
        verdicts=verdicts(comparison),
        leads=[f"{lead:g} h" for lead in leads],
        rows=[
            {
                "label": long_name(channel),
                "cells": [
                    _cell(comparison.sel(channel=channel, region=regions[0], lead_time=lead))
                    for lead in leads
                ],
            }
            for channel in channels
        ],
        first_region=region_label(regions[0]),
        seasons=_seasons(comparison, names),
        only_season=str(comparison.attrs.get("seasons", "")),
        figures=[
            {
                "caption": region_label(region),
                "uri": figure_data_uri(comparison_scorecard(comparison, region=region, names=names)),
            }
            for region in drawable_regions(comparison)
        ],
        differences=differences,
        notes=notes,
    )


def _seasons(comparison: xr.Dataset, names: tuple[str, str]) -> list[dict[str, Any]]:
    """What the page shows of each season: how many initial times, verdicts and scorecards of the regions."""
    seasons = seasons_within(comparison)
    if seasons is None:
        return []
    shown = []
    for season in seasons["season"].to_numpy().tolist():
        counts = seasons["n_init"].sel(season=season)
        least, most = int(counts.min()), int(counts.max())
        figures = [
            {
                "caption": f"{region_label(region)}, {season}",
                "uri": figure_data_uri(
                    comparison_scorecard(seasons, region=region, season=season, names=names), dpi=100
                ),
            }
            for region in drawable_regions(seasons, season)[:MOST_REGIONS]
        ]
        inits = counted(most if least == most else f"{least} to {most}", "initial time")
        shown.append(
            {
                "name": season,
                "inits": inits,
                "enough": enough_blocks(seasons, season),
                "verdicts": verdicts(seasons, season),
                "figures": figures,
            }
        )
    return shown


def drawable_regions(comparison: xr.Dataset, season: str | None = None) -> list[str]:
    """Name the regions of which there is something to draw."""
    change = comparison["rmse_change"] if season is None else comparison["rmse_change"].sel(season=season)
    return [
        region
        for region in change["region"].to_numpy().tolist()
        if np.isfinite(change.sel(region=region)).any()
    ]


def _cell(at: xr.Dataset) -> dict[str, str]:
    change = float(at["rmse_change"])
    if not np.isfinite(change):
        return {"text": "-", "interval": "", "acc": "", "kind": ""}
    significant = bool(at["significant"])
    acc = float(at["acc_change"])
    return {
        "text": f"{change:+.1f} %" + ("*" if significant else ""),
        "interval": f"[{float(at['rmse_change_lower']):+.1f}, {float(at['rmse_change_upper']):+.1f}]",
        "acc": f"{acc:+.3f}" if np.isfinite(acc) else "",
        "kind": ("better" if change < 0 else "worse") if significant else "",
    }
