"""A model card: one HTML file that says what a network was made from, how well it forecasts and where it must not be used.

After Mitchell et al. (2019, doi:10.1145/3287560.3287596). The page needs no network: figures are embedded,
there is no script, and its content security policy forbids loading anything. Everything that comes from files
or parameters is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from weathermill.errors import UnwritableOutputError
from weathermill.verification import times as clock
from weathermill.verification.labels import counted, number, units_label
from weathermill.verification.regions import whole_region
from weathermill.verification.skill_tables import (
    correction_table,
    headline_table,
    ratio_table,
    region_table,
    season_table,
    skill_statement,
    skill_tiles,
    spectrum_table,
    stability_limit,
    stability_statement,
)
from weathermill.verification.style import figure_data_uri

SECTIONS = ("skill", "maps", "spectra", "stability", "data", "training")
#: Regions that have a table of their own on the card; further ones are in the table of regions.
MOST_REGION_TABLES = 8


@dataclass(frozen=True)
class CardFigure:
    """A figure of the card.

    Parameters
    ----------
    section
        "skill", "maps", "spectra", "stability", "data" or "training".
    caption
        What it shows; also its text for those who do not see it.
    figure
        A matplotlib figure, or the bytes or path of a PNG.
    """

    section: str
    caption: str
    figure: Figure | bytes | str | Path


def render_model_card(
    scores: xr.Dataset,
    *,
    title: str,
    simulated: bool | None,
    data: Mapping[str, Any],
    grid: Mapping[str, Any],
    channels: Sequence[Mapping[str, Any]],
    normalisation: str,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    provenance: Mapping[str, Any],
    versions: Mapping[str, Any],
    intervals: xr.Dataset | None = None,
    seasons: xr.Dataset | None = None,
    stability: xr.Dataset | None = None,
    spectra: xr.Dataset | None = None,
    figures: Sequence[CardFigure] = (),
    limits: Sequence[str] = (),
    ledger: Mapping[str, Any] | None = None,
    subtitle: str = "",
) -> str:
    """Render the card.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    title, subtitle
        Heading, and a line below it (run id, date).
    simulated
        Whether the data are a simulation (True), observed or reanalysed (False), or not stated (None). Said
        at the top, in a box that cannot be missed.
    data, grid, model, training, provenance, versions
        Facts to list, label to value; values may be nested mappings or sequences.
    channels
        Mappings with ``name``, ``role``, ``units`` and, where known, ``mean``, ``std`` and ``tendency_std``.
    normalisation
        A sentence or two on how channels are normalised.
    intervals
        From `weathermill.verification.significance.confidence_intervals`.
    seasons
        From `weathermill.verification.seasons.seasonal_scores`; shown where there are several seasons.
    stability
        From `weathermill.verification.stability.StabilityMonitor.result`; ``correction`` and ``typical_change`` of hard
        constraints are told where it has them.
    spectra
        From `weathermill.verification.spectra.SpectrumAccumulator.result`.
    figures
        Figures by section.
    limits
        Sentences on what the network must not be used for; those that follow from the scores themselves (few
        initial times, a short training period, lead times without skill) are added.
    ledger
        Memory by part, where it was accounted for.

    Returns
    -------
    str
        HTML.
    """
    for figure in figures:
        if figure.section not in SECTIONS:
            raise ValueError(f"a figure's section is one of {', '.join(SECTIONS)}, not {figure.section!r}")
    sections = {figure.section for figure in figures}
    contents = [("skill", "Skill")]
    contents += [("maps", "Maps")] if "maps" in sections else []
    contents += [("spectra", "Spectra")] if "spectra" in sections or spectra is not None else []
    stability_text = stability_statement(stability)
    contents += [("stability", "Stability")] if stability_text or "stability" in sections else []
    contents += [("data", "Data"), ("training", "Network and training"), ("limits", "Limits")]
    contents += [("provenance", "Provenance")]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("weathermill.verification").joinpath("templates/model_card.html.j2").read_text("utf-8")
    )
    whole = whole_region(scores["region"].to_numpy())
    sources = data.get("sources", data.get("Sources", ()))
    return template.render(
        title=title,
        subtitle=subtitle,
        simulated=simulated,
        source_names=[sources] if isinstance(sources, str) else [str(source) for source in sources],
        contents=contents,
        tiles=skill_tiles(scores),
        skill_text=skill_statement(scores, intervals),
        skill_tables=[
            headline_table(scores, intervals, region=region)
            for region in scores["region"].to_numpy().tolist()
            if region == whole or scores.sizes["region"] <= MOST_REGION_TABLES
        ],
        region_table=region_table(scores) if scores.sizes["region"] > 1 else None,
        season_table=season_table(seasons) if seasons is not None and seasons.sizes["season"] > 1 else None,
        stability_text=stability_text,
        has_stability=bool(stability_text) or "stability" in sections,
        full_table=ratio_table(scores) if scores.sizes["channel"] > 6 else None,
        figures=[
            {"section": figure.section, "caption": figure.caption, "uri": _data_uri(figure.figure)}
            for figure in figures
        ],
        has_maps="maps" in sections,
        has_spectra="spectra" in sections or spectra is not None,
        spectrum_table=spectrum_table(spectra),
        correction_table=correction_table(stability),
        data=facts(data),
        grid=facts(grid),
        channels=[_channel_row(channel) for channel in channels],
        has_statistics=any(channel.get("std") is not None for channel in channels),
        normalisation=normalisation,
        model=facts(model),
        training=facts(training),
        ledger=facts(ledger or {}),
        limits=[
            *limits,
            *limits_from_scores(scores, simulated=simulated, intervals=intervals),
            *filter(None, [stability_limit(stability)]),
        ],
        provenance=facts(provenance),
        versions=facts(versions),
    )


def write_model_card(html: str, path: str | Path) -> Path:
    """Write a card under a temporary name, then put it in place.

    Raises
    ------
    UnwritableOutputError
        If the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(html, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UnwritableOutputError(f"the model card cannot be written: {error}", where=str(path)) from error
    return path


def limits_from_scores(
    scores: xr.Dataset, *, simulated: bool | None, intervals: xr.Dataset | None = None
) -> list[str]:
    """Say what the scores themselves show about the limits of a network, in sentences."""
    from weathermill.verification.summary import crossing

    limits = []
    if simulated is not False:
        limits.append(
            "It must not be used to forecast real weather: it was not shown to have skill on real data."
        )
    n_init = scores.sizes.get("init_time", int(scores.attrs.get("n_init_times", 0)))
    if n_init < 30:
        limits.append(
            f"It was verified from {counted(n_init, 'initial time')} only; the scores are uncertain."
        )
    if intervals is not None and intervals.attrs.get("few_blocks"):
        limits.append(
            "The test period holds fewer than five independent blocks at the longer lead times: intervals there are"
            " rough, and probably too narrow."
        )
    if "init_time" in scores.sizes and n_init > 1:
        inits = clock.as_times(scores["init_time"].to_numpy())
        present = sorted({str(name) for name in clock.season(inits)})
        if len(present) < 4:
            limits.append(f"It was verified in {', '.join(present)} only; other seasons are untested.")
    if "too short" in str(scores.attrs.get("climatology", "")):
        limits.append(
            "The training period is shorter than a year: the climatology lags the season, anomaly correlations are"
            " inflated and a comparison with climatology flatters."
        )
    for reference in ("persistence", "climatology"):
        if reference in scores["source"]:
            lost = crossing(scores, reference)
            if lost is not None:
                limits.append(
                    f"From {lost:g} h on, the mean RMSE over channels is no better than that of {reference}."
                )
    rmse = scores["rmse"].sel(source="forecast")
    if bool((np.isnan(rmse) & (scores["n_init"].sel(source="forecast") > 0)).any()):
        limits.append("Some forecasts ended in values that are not finite; their scores are given as NaN.")
    return limits


def facts(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Flatten a mapping to labels and printable values; nested mappings get dotted labels."""
    rows: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        label = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            rows += [(f"{label}: {name}", item) for name, item in facts(value)]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            items = [_plain(item) for item in value]
            rows.append((label, items if sum(map(len, items)) > 100 else ", ".join(items)))
        else:
            rows.append((label, _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    return str(value)


def _channel_row(channel: Mapping[str, Any]) -> dict[str, str]:
    row = {
        "name": str(channel["name"]),
        "role": str(channel.get("role", "")),
        "units": units_label(str(channel.get("units", ""))),
    }
    for name in ("mean", "std", "tendency_std"):
        value = channel.get(name)
        row[name] = "-" if value is None else number(float(value))
    return row


def _data_uri(figure: Figure | bytes | str | Path) -> str:
    if isinstance(figure, Figure):
        return figure_data_uri(figure, dpi=120)
    content = figure if isinstance(figure, bytes) else Path(figure).read_bytes()
    if not content.startswith(b"\x89PNG"):
        raise ValueError("a figure of the model card must be a matplotlib figure or a PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
