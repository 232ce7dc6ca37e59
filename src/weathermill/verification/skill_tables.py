"""Skill as tables and sentences, for reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from weathermill.verification import times as clock
from weathermill.verification.labels import (
    channel_units,
    display_units,
    long_name,
    number,
    ratio_text,
    region_label,
    short_name,
)
from weathermill.verification.metrics import headline_channels, headline_leads, rmse_ratio
from weathermill.verification.regions import whole_region
from weathermill.verification.scores import CLIMATOLOGY, FORECAST, PERSISTENCE
from weathermill.verification.spectra import band_ratio, goes_round
from weathermill.verification.summary import SUMMARY_LEADS

REGRESSION = "regression"
_SHORT = {PERSISTENCE: "pers.", CLIMATOLOGY: "clim.", REGRESSION: "regr."}


def table_leads(scores: xr.Dataset) -> list[float]:
    """Choose the lead times of a table: 6, 24, 72 and 120 h as far as they exist, else up to four others."""
    present = [float(lead) for lead in scores["lead_time"].to_numpy()]
    shown = [lead for lead in SUMMARY_LEADS if lead in present]
    return shown if len(shown) >= 2 else headline_leads(present)[:4]


def headline_table(
    scores: xr.Dataset, intervals: xr.Dataset | None = None, *, region: str | None = None
) -> dict[str, Any]:
    """Lay out the scores of the headline channels, a row per channel and lead time.

    Returns
    -------
    dict
        ``title``, ``columns`` and ``groups``: ``label`` (the channel with units) and ``rows`` of cells with
        ``text``, ``interval`` and ``kind`` ("better", "worse" or "").
    """
    region = region or whole_region(scores["region"].to_numpy())
    leads, references = table_leads(scores), _references(scores)
    ratios = {name: rmse_ratio(scores, name).sel(region=region) for name in references}
    has_anomalies = bool(np.isfinite(scores["acc"].sel(source=FORECAST)).any())
    named = references if len(references) < 3 else [_SHORT[name] for name in references]
    columns = ["Lead", "RMSE", *(f"/ {name}" for name in named), "Bias"]
    columns += ["ACC", "Activity"] if has_anomalies else []
    groups = []
    for channel in headline_channels(scores["channel"].to_numpy().tolist()):
        here = scores.sel(source=FORECAST, channel=channel, region=region)
        magnitude = float(np.abs(scores["rmse"].sel(channel=channel)).max())
        factor, units = display_units(channel_units(scores, channel), magnitude)
        rows = []
        for lead in leads:
            at, bounds = here.sel(lead_time=lead), None
            if intervals is not None:
                bounds = intervals.sel(source=FORECAST, channel=channel, region=region, lead_time=lead)
            cells = [
                _cell(f"{lead:g} h"),
                _cell(number(factor * float(at["rmse"])), _interval(bounds, "rmse", factor)),
                *(
                    _ratio_cell(
                        float(ratios[name].sel(channel=channel, lead_time=lead)),
                        _ratio_bounds(intervals, name, channel, region, lead),
                    )
                    for name in references
                ),
                _cell(number(factor * float(at["bias"]))),
            ]
            if has_anomalies:
                cells.append(_cell(f"{float(at['acc']):.3f}", _interval(bounds, "acc", 1.0)))
                cells.append(_cell(f"{float(at['activity']):.2f}"))
            rows.append(cells)
        label = long_name(channel)
        if units not in ("", "1"):
            label += f" ({units})".replace(" ", "\u00a0").replace("\u00a0(", " (")
        groups.append({"label": label, "rows": rows})
    title = region_label(region)
    return {"title": _capital(title), "columns": columns, "groups": groups}


def ratio_table(scores: xr.Dataset, *, region: str | None = None) -> dict[str, Any]:
    """Lay out the RMSE ratios to the baselines of all channels."""
    region = region or whole_region(scores["region"].to_numpy())
    leads, references = table_leads(scores), _references(scores)
    ratios = {name: rmse_ratio(scores, name).sel(region=region) for name in references}
    rows = []
    for channel in scores["channel"].to_numpy().tolist():
        cells = [
            _ratio_cell(float(ratios[name].sel(channel=channel, lead_time=lead)))
            for name in references
            for lead in leads
        ]
        rows.append({"label": short_name(channel), "cells": cells})
    return {
        "columns": [f"{lead:g} h / {_SHORT[name]}" for name in references for lead in leads],
        "rows": rows,
    }


def region_table(scores: xr.Dataset) -> dict[str, Any]:
    """Lay out the mean over channels of the RMSE ratios to the baselines, a row per region."""
    leads, references = table_leads(scores), _references(scores)[:2]
    ratios = {name: rmse_ratio(scores, name).mean("channel", skipna=True) for name in references}
    return {
        "columns": [f"{lead:g} h / {_SHORT[name]}" for name in references for lead in leads],
        "rows": [
            {
                "label": _capital(region_label(region)),
                "cells": [
                    _ratio_cell(float(ratios[name].sel(region=region, lead_time=lead)))
                    for name in references
                    for lead in leads
                ],
            }
            for region in scores["region"].to_numpy().tolist()
        ],
    }


def season_table(seasons: xr.Dataset, *, region: str | None = None) -> dict[str, Any]:
    """Lay out the mean over channels of the RMSE ratios to the baselines, a row per season of the valid time."""
    region = region or whole_region(seasons["region"].to_numpy())
    leads, references = table_leads(seasons), _references(seasons)[:2]
    forecast = seasons["rmse"].sel(source=FORECAST, region=region)
    rows = []
    for season in seasons["season"].to_numpy().tolist():
        cells = []
        for name in references:
            against = seasons["rmse"].sel(source=name, region=region, season=season)
            ratio = (forecast.sel(season=season) / against.where(against > 0)).mean("channel", skipna=True)
            cells += [_ratio_cell(float(ratio.sel(lead_time=lead))) for lead in leads]
        count = seasons["n_init"].sel(season=season, source=FORECAST, region=region)
        rows.append({"label": f"{season} ({_range(count)} initial times)", "cells": cells})
    return {
        "title": region_label(region),
        "columns": [f"{lead:g} h / {_SHORT[name]}" for name in references for lead in leads],
        "rows": rows,
    }


def stability_statement(stability: xr.Dataset | None) -> str:
    """Say in a few sentences what long rollouts did; empty without any."""
    if stability is None or "stable_until" not in stability:
        return ""
    days = float(stability["lead_time"].to_numpy()[-1]) / 24.0
    margin = float(stability.attrs.get("margin_std", 1.0))
    text = (
        f"{stability.sizes['rollout']} forecasts from the test period ran freely for {days:g} days. Values count as"
        " outside when they leave the range that the training period had anywhere on the grid by more than"
        f" {margin:g} standard deviation{'' if margin == 1 else 's'}. "
    )
    until = stability["stable_until"].min("rollout")
    left = stability["channel"].to_numpy()[(until < stability["lead_time"][-1]).to_numpy()].tolist()
    if not left:
        return text + "All channels of all rollouts stayed inside to the end."
    early = int((stability["outside"].isel(lead_time=0) > 0).any("rollout").sum())
    if float(stability["lead_time"][0]) == 0.0 and early:
        text += (
            f"The initial states themselves are outside in {early} of {stability.sizes['channel']} channels: the training"
            " period does not hold all that the test period does. "
        )
    first = float(until.min())
    share = stability["outside"].isel(lead_time=-1)
    worst = str(share.max("rollout").idxmax("channel").item())
    broken = int((~np.isfinite(stability["mean"].isel(lead_time=-1))).any("channel").sum())
    text += (
        f"{len(left)} of {stability.sizes['channel']} channels left it somewhere, the first after {first:g} h. At the end,"
        f" {_per_cent(float(share.mean()))} of the area (mean over channels and rollouts) was outside, most for"
        f" {_lower(long_name(worst))} ({_per_cent(float(share.max()))})."
    )
    return text + (f" {broken} rollouts ended in values that are not finite." if broken else "")


def _per_cent(share: float) -> str:
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def correction_table(stability: xr.Dataset | None) -> dict[str, Any] | None:
    """Lay out how much hard constraints corrected in a step of long rollouts; None where there are none.

    Returns
    -------
    dict
        ``columns`` and ``rows``: root mean square corrections, and per cent of the channel's typical change in a step.
    """
    if stability is None or "correction" not in stability:
        return None
    hours = stability["lead_time"].to_numpy()
    wanted = [hours[1], *(24.0 * day for day in (1, 5, 10, 30))]
    leads = sorted({float(hours[np.abs(hours - lead).argmin()]) for lead in wanted if lead <= hours[-1]})
    rows = []
    for name in stability["constraint"].to_numpy().tolist():
        constraint, channel = name.split("/", 1)
        here = stability.sel(constraint=name)
        largest = float(here["correction"].max(skipna=True))
        factor, units = display_units(channel_units(stability, channel), largest)
        cells = []
        for lead in leads:
            at = float(here["correction"].sel(lead_time=lead))
            cells.append(_cell(number(factor * at), f"({_per_cent(at / float(here['typical_change']))})"))
        unit = f" ({units})" if units not in ("", "1") else ""
        rows.append({"label": f"{constraint.replace('_', ' ')}: {short_name(channel)}{unit}", "cells": cells})
    return {"columns": [f"{lead / 24:g} d" for lead in leads], "rows": rows}


def spectrum_table(spectra: xr.Dataset | None, *, region: str | None = None) -> dict[str, Any] | None:
    """Lay out forecast over true power by bands of wavenumbers, as `headline_table` does scores; None without spectra."""
    if spectra is None:
        return None
    region = region or whole_region(spectra["region"].to_numpy())
    ratio, leads = band_ratio(spectra).sel(region=region), headline_leads(spectra["lead_time"].to_numpy())[:4]
    bands = ratio["band"].to_numpy().tolist()
    return {
        "title": region_label(region),
        "waves": "zonal wavenumbers" if goes_round(spectra) else "numbers of half waves across the domain",
        "columns": ["Lead", *(f"{_waves(spectra)} {band}" for band in bands)],
        "groups": [
            {
                "label": long_name(channel),
                "rows": [
                    [
                        _cell(f"{lead:g} h"),
                        *(
                            _power_cell(float(ratio.sel(channel=channel, lead_time=lead, band=band)))
                            for band in bands
                        ),
                    ]
                    for lead in leads
                ],
            }
            for channel in headline_channels(ratio["channel"].to_numpy().tolist(), limit=4)
        ],
    }


def _waves(spectra: xr.Dataset) -> str:
    return "Waves" if goes_round(spectra) else "Half waves"


def _power_cell(ratio: float) -> dict[str, str]:
    if not np.isfinite(ratio):
        return _cell("-")
    return _cell(
        f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}", kind="worse" if not 0.5 <= ratio <= 2 else ""
    )


def stability_limit(stability: xr.Dataset | None) -> str:
    """Say how long forecasts may run, where long rollouts left the bounds; empty where they did not."""
    if stability is None or "stable_until" not in stability or stability.attrs.get("stable"):
        return ""
    days = float(stability["lead_time"].to_numpy()[-1]) / 24.0
    if float(stability["outside"].isel(lead_time=0).max()) > 0:
        return (
            f"It must not run freely for long: of rollouts over {days:g} days, some values left the training period's range,"
            " as some already of the initial states had."
        )
    return (
        f"It must not run freely for long: of rollouts over {days:g} days, some values left the training period's range"
        f" after {float(stability['stable_until'].min()):g} h."
    )


def skill_tiles(scores: xr.Dataset, *, region: str | None = None) -> list[dict[str, str]]:
    """Pick the numbers that a card shows first."""
    region = region or whole_region(scores["region"].to_numpy())
    tiles = []
    leads = table_leads(scores)
    for name in _references(scores)[:2]:
        mean = rmse_ratio(scores, name).sel(region=region).mean("channel", skipna=True)
        for lead in dict.fromkeys((leads[0], leads[-1])):
            value = float(mean.sel(lead_time=lead))
            tiles.append(
                {
                    "value": ratio_text(value),
                    "label": f"RMSE / RMSE of {name} at {lead:g} h, mean over channels",
                }
            )
    return tiles


def skill_statement(scores: xr.Dataset, intervals: xr.Dataset | None = None) -> str:
    """Say in a few sentences from what the scores were made and how to read the tables."""
    text = "Root mean square error, weighted by area, of autoregressive forecasts"
    if "init_time" in scores.sizes:
        inits = np.sort(clock.as_times(scores["init_time"].to_numpy()))
        first, last = (clock.time_key(time)[:16].replace("T", " ") for time in (inits[0], inits[-1]))
        text += (
            f" from {len(inits)} initial times between {first} and {last} UTC"
            if len(inits) > 1
            else f" from {first} UTC"
        )
    text += ". "
    references = _references(scores)
    if references:
        named = " and ".join([", ".join(references[:-1]), references[-1]] if references[1:] else references)
        text += f"Ratios compare it with that of {named}; below 1 the forecast is better. "
    how = scores.attrs.get("climatology")
    if how and CLIMATOLOGY in scores["source"]:
        text += f"Climatology, from the training period alone: {how}. "
    if intervals is not None:
        level = 100 * float(intervals.attrs.get("level", 0.95))
        text += f"In brackets: {level:g} % intervals ({intervals.attrs.get('method', 'bootstrap over initial times')}). "
        if "rmse_ratio_lower" in intervals:
            text += f"Ratios by channel are coloured where their {level:g} % interval, paired by initial time, excludes 1."
    return text.strip()


def _references(scores: xr.Dataset) -> list[str]:
    return [name for name in (PERSISTENCE, CLIMATOLOGY, REGRESSION) if name in scores["source"]]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _range(counts: xr.DataArray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _cell(text: str, interval: str = "", kind: str = "") -> dict[str, str]:
    return {"text": text, "interval": interval, "kind": kind}


def _ratio_cell(ratio: float, bounds: tuple[float, float] | None = None) -> dict[str, str]:
    if not np.isfinite(ratio):
        return _cell("-")
    kind = "better" if ratio < 0.995 else "worse" if ratio >= 1.005 else ""
    if bounds is not None and np.isfinite(bounds).all() and bounds[0] <= 1.0 <= bounds[1]:
        kind = ""
    return _cell(ratio_text(ratio), kind=kind)


def _ratio_bounds(
    intervals: xr.Dataset | None, reference: str, channel: str, region: str, lead: float
) -> tuple[float, float] | None:
    if intervals is None or "rmse_ratio_lower" not in intervals or reference not in intervals["reference"]:
        return None
    at = intervals.sel(reference=reference, channel=channel, region=region, lead_time=lead)
    return float(at["rmse_ratio_lower"]), float(at["rmse_ratio_upper"])


def _interval(bounds: xr.Dataset | None, name: str, factor: float) -> str:
    if bounds is None or f"{name}_lower" not in bounds:
        return ""
    lower, upper = factor * float(bounds[f"{name}_lower"]), factor * float(bounds[f"{name}_upper"])
    if not (np.isfinite(lower) and np.isfinite(upper)):
        return ""
    if name == "acc":
        return f"[{lower:.3f}, {upper:.3f}]"
    return f"[{number(lower)}, {number(upper)}]"
