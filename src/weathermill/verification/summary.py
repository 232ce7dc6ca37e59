"""The few lines that a run ends with: skill against the baselines, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from weathermill.verification.labels import (
    channel_units,
    counted,
    number,
    ratio_text,
    region_label,
    short_name,
)
from weathermill.verification.metrics import headline_channels, rmse_ratio
from weathermill.verification.regions import whole_region
from weathermill.verification.scores import CLIMATOLOGY, FORECAST, PERSISTENCE
from weathermill.verification.seasons import enough_blocks, seasons_within

SUMMARY_LEADS = (6.0, 24.0, 72.0, 120.0)


def text_summary(
    scores: xr.Dataset,
    *,
    channels: Sequence[str] | None = None,
    leads: Sequence[float] = SUMMARY_LEADS,
    region: str | None = None,
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> str:
    """Summarise a run's skill in plain text, at most 100 columns wide.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    channels
        Channels to list; by default the usual headline ones.
    leads
        Lead times in hours; those that the scores lack are left out (without any, the first and the last are
        shown).
    region
        Which region; all cells by default.
    notes
        Sentences to add, such as that the data are simulated.
    links
        What to open: label to path or command, printed one a line.

    Returns
    -------
    str
        Lines without a trailing newline.
    """
    present = [float(lead) for lead in scores["lead_time"].to_numpy()]
    shown = [float(lead) for lead in leads if float(lead) in present] or sorted({present[0], present[-1]})
    channels = (
        headline_channels(scores["channel"].to_numpy().tolist()) if channels is None else list(channels)
    )
    region = region or whole_region(scores["region"].to_numpy())
    here = scores.sel(region=region)
    references = [name for name in (PERSISTENCE, CLIMATOLOGY) if name in scores["source"]]
    ratios = {name: rmse_ratio(scores, name).sel(region=region) for name in references}

    n_init = scores.sizes.get("init_time", scores.attrs.get("n_init_times", "?"))
    labels = {name: _label(scores, name) for name in channels}
    label_width = max(len(label) for label in labels.values())
    ratio_width = 5 * len(references)
    lines = [f"RMSE of forecasts from {counted(n_init, 'initial time')}, {region_label(region)}"]
    heads = "".join(f"{f'{lead:g} h':>9}" + " " * (ratio_width + 2) for lead in shown)
    lines.append(f"  {'':<{label_width}}{heads}".rstrip())
    for channel in channels:
        row = f"  {labels[channel]:<{label_width}}"
        for lead in shown:
            error = float(here["rmse"].sel(source=FORECAST, channel=channel, lead_time=lead))
            against = "/".join(
                ratio_text(float(ratios[name].sel(channel=channel, lead_time=lead))) for name in references
            )
            row += f"{number(error):>9} {against:<{ratio_width + 1}}"
        lines.append(row.rstrip())
    if references:
        marks = " / of ".join(references)
        lines.append(f"  After each RMSE: its ratio to that of {marks}; below 1 the forecast is better.")
    lines.append(f"Mean RMSE ratio over {counted(scores.sizes['channel'], 'channel')}:")
    for name in [*references, *(["regression"] if "regression" in scores["source"] else [])]:
        ratio = rmse_ratio(scores, name).sel(region=region)
        means = [float(ratio.sel(lead_time=lead).mean("channel", skipna=True)) for lead in shown]
        text = ", ".join(f"{ratio_text(mean)} at {lead:g} h" for mean, lead in zip(means, shown, strict=True))
        lost = crossing(scores, name, region=region)
        verdict = "below 1 at all lead times" if lost is None else f"1 or above from {lost:g} h on"
        lines.append(f"  to {name}: {text} ({verdict})")
    unstable = unstable_from(scores, region=region)
    if unstable is not None:
        lines += [
            f"WARNING: forecasts are unstable. From {unstable[0]:g} h on, the RMSE of {short_name(unstable[1])} is more",
            "  than ten times that of climatology, or not finite: do not use forecasts so long or longer.",
            "  Longer training, and more steps in train.rollout, help.",
        ]
    how = str(scores.attrs.get("climatology", ""))
    if "too short" in how:
        lines.append(f"  Climatology: {how},")
        lines.append("    so it lags the season, which flatters a comparison with it.")
    lines += [str(note) for note in notes]
    if links:
        link_width = max(len(label) for label in links)
        lines += [f"{label + ':':<{link_width + 1}} {target}" for label, target in links.items()]
    return "\n".join(lines)


def comparison_summary(
    comparison: xr.Dataset, *, names: tuple[str, str] = ("this run", "the other"), region: str | None = None
) -> str:
    """Summarise the comparison of two runs in plain text.

    Parameters
    ----------
    comparison
        From `weathermill.verification.significance.compare`.
    names
        Of the run judged and of the one it is compared with.
    region
        Which region; all cells by default.
    """
    region = region or whole_region(comparison["region"].to_numpy())
    here = comparison.sel(region=region)
    leads = [lead for lead in SUMMARY_LEADS if lead in here["lead_time"]] or [float(here["lead_time"][-1])]
    level = 100 * float(comparison.attrs.get("level", 0.95))
    lines = [
        f"RMSE of {names[0]} relative to {names[1]} (%), {region_label(region)},"
        f" {counted(comparison.attrs.get('n_init_times', '?'), 'initial time')} in common",
        f"  {level:g} % intervals; * significant at a false discovery rate of {100 - level:g} %",
    ]
    channels = headline_channels(here["channel"].to_numpy().tolist())
    width = max(len(short_name(channel)) for channel in channels)
    lines.append(f"  {'':<{width}}" + "".join(f"{f'{lead:g} h':>22}" for lead in leads))
    for channel in channels:
        row = f"  {short_name(channel):<{width}}"
        for lead in leads:
            at = here.sel(channel=channel, lead_time=lead)
            low, high = float(at["rmse_change_lower"]), float(at["rmse_change_upper"])
            text = f"{float(at['rmse_change']):+.1f} [{low:+.1f}, {high:+.1f}]"
            row += f"{text:>21}{'*' if bool(at['significant']) else ' '}"
        lines.append(row.rstrip())
    significant = here["significant"]
    better = int((significant & (here["rmse_change"] < 0)).sum())
    worse = int((significant & (here["rmse_change"] > 0)).sum())
    lines.append(
        f"Of {significant.size} channels and lead times, {names[0]} is significantly better in {better} and worse in"
        f" {worse}."
    )
    lines += _season_lines(comparison, region)
    if comparison.attrs.get("few_blocks"):
        lines.append(
            "The period holds few independent blocks at the longer lead times: read intervals with care."
        )
    return "\n".join(lines)


def _season_lines(comparison: xr.Dataset, region: str) -> list[str]:
    seasons = seasons_within(comparison)
    if seasons is None:
        return []
    here, lines = seasons.sel(region=region), ["By season of the valid time:"]
    for season in here["season"].to_numpy().tolist():
        at = here.sel(season=season)
        significant = at["significant"].astype(bool)
        better = int((significant & (at["rmse_change"] < 0)).sum())
        worse = int((significant & (at["rmse_change"] > 0)).sum())
        mean = float(at["rmse_change"].mean(skipna=True))
        told = f"mean RMSE change {mean:+.1f} %" if np.isfinite(mean) else "too few initial times"
        verdict = f"significantly better in {better} and worse in {worse}"
        if not enough_blocks(seasons, season):
            verdict = "in too few independent blocks to be significant"
        counts = sorted({int(at["n_init"].min()), int(at["n_init"].max())})
        lines.append(f"  {season} ({' to '.join(map(str, counts))} initial times): {told}, {verdict}.")
    return lines


def crossing(scores: xr.Dataset, reference: str, *, region: str | None = None) -> float | None:
    """Return the first lead time (h) with a mean RMSE ratio to a reference of 1 or more; None without one.

    The ratio counts as it is printed, with two decimals; a forecast that is not finite has lost to a reference that is.
    """
    region = region or whole_region(scores["region"].to_numpy())
    mean = rmse_ratio(scores, reference).sel(region=region).mean("channel", skipna=True)
    known = np.isfinite(scores["rmse"].sel(region=region, source=reference)).any("channel")
    lost = np.flatnonzero((mean.round(2) >= 1.0) | (~np.isfinite(mean) & known))
    return float(scores["lead_time"].to_numpy()[lost[0]]) if lost.size else None


def _label(scores: xr.Dataset, channel: str) -> str:
    units = channel_units(scores, channel)
    return f"{short_name(channel)} [{units}]" if units and units != "1" else short_name(channel)


def unstable_from(scores: xr.Dataset, *, region: str | None = None) -> tuple[float, str] | None:
    """Find where forecasts by repeated steps have grown beyond anything physical.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    region
        Which region; all cells by default.

    Returns
    -------
    tuple or None
        First lead time (h) at which the RMSE of a channel is more than ten times that of climatology (an unbiased
        forecast of the right variance reaches 1.41), or not finite where that of persistence is; and the channel.
    """
    if PERSISTENCE not in scores["source"]:
        return None
    rmse = scores["rmse"].sel(region=region or whole_region(scores["region"].to_numpy()))
    forecast = rmse.sel(source=FORECAST)
    bad = ~np.isfinite(forecast) & np.isfinite(rmse.sel(source=PERSISTENCE))
    if CLIMATOLOGY in scores["source"]:
        climatology = rmse.sel(source=CLIMATOLOGY)
        bad = bad | ((climatology > 0) & (forecast > 10 * climatology))
    at = bad.transpose("lead_time", "channel").to_numpy()
    if not at.any():
        return None
    lead, channel = (int(index) for index in np.argwhere(at)[0])
    return float(bad["lead_time"][lead]), str(bad["channel"][channel].item())
