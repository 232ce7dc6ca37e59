"""Scores as flat numbers with names that compare well across runs, and as ratios to the baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification.regions import whole_region
from weathermill.verification.scores import CLIMATOLOGY, FORECAST, PERSISTENCE

#: The channels that verification pages show first, in the order of WeatherBench 2's headline scores.
HEADLINE_CHANNELS = (
    "geopotential_500",
    "temperature_850",
    "2m_temperature",
    "mean_sea_level_pressure",
    "specific_humidity_700",
    "u_component_of_wind_850",
    "v_component_of_wind_850",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
)
HEADLINE_LEADS = (6.0, 24.0, 72.0, 120.0, 240.0)


def headline_channels(channels: Sequence[str], limit: int = 6) -> list[str]:
    """Choose the channels to show first: the usual ones as far as they exist, then others in their order."""
    usual = [name for name in HEADLINE_CHANNELS if name in channels]
    return (usual + [name for name in channels if name not in usual])[:limit]


def headline_leads(lead_times: Sequence[float]) -> list[float]:
    """Choose the lead times to show first: the first, the last, and 6, 24, 72, 120, 240 h where they exist."""
    leads = [float(lead) for lead in lead_times]
    return sorted({leads[0], leads[-1]} | {lead for lead in HEADLINE_LEADS if lead in leads})


def rmse_ratio(scores: xr.Dataset, reference: str, *, source: str = FORECAST) -> xr.DataArray:
    """Return RMSE over the RMSE of a reference: below 1 the forecast is better.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    reference
        A source of the scores, such as "persistence" or "climatology".
    source
        The source judged.

    Returns
    -------
    xarray.DataArray
        (channel, region, lead_time), dimensionless; NaN where the reference has no error at all.

    Raises
    ------
    VerificationError
        If the scores hold no such source.
    """
    present = scores["source"].to_numpy().tolist()
    for name in (source, reference):
        if name not in present:
            raise VerificationError(f"the scores hold no {name!r}, but {', '.join(present)}")
    error = scores["rmse"].sel(source=source, drop=True)
    against = scores["rmse"].sel(source=reference, drop=True)
    ratio = error / against.where(against > 0)
    ratio.attrs = {"long_name": f"RMSE relative to {reference}", "units": "1"}
    return ratio.rename(f"rmse_ratio_{reference}")


def scores_to_metrics(
    scores: xr.Dataset,
    *,
    leads: Sequence[float] | None = None,
    regions: Sequence[str] | None = None,
    names: Sequence[str] = ("rmse", "acc", "bias", "activity"),
) -> dict[str, float]:
    """Flatten the forecast's scores to named numbers, as an experiment tracker takes them.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    leads
        Lead times in hours; by default those of `headline_leads`.
    regions
        Regions; those other than the first are part of the name. By default all cells: the globe, or the whole domain.
    names
        Which scores.

    Returns
    -------
    dict
        ``rmse/geopotential_500/120h`` and so on, ``rmse/geopotential_500/tropics/120h`` for further regions,
        and
        ``skill/rmse_ratio_persistence/mean/6h`` (mean over channels; also ``_climatology``). Values that are
        not finite are left out: trackers refuse them, and a missing number says the same.
    """
    leads = (
        headline_leads(scores["lead_time"].to_numpy()) if leads is None else [float(lead) for lead in leads]
    )
    regions = [whole_region(scores["region"].to_numpy())] if regions is None else regions
    metrics: dict[str, float] = {}
    forecast = scores.sel(source=FORECAST)
    for region in regions:
        prefix = "" if region == regions[0] else f"{region}/"
        here = forecast.sel(region=region)
        for name in names:
            for lead in leads:
                values = here[name].sel(lead_time=lead).to_numpy()
                for channel, value in zip(scores["channel"].to_numpy(), values, strict=True):
                    metrics[f"{name}/{channel}/{prefix}{lead:g}h"] = float(value)
        for reference in (PERSISTENCE, CLIMATOLOGY, "regression"):
            if reference not in scores["source"]:
                continue
            ratio = rmse_ratio(scores, reference).sel(region=region)
            for lead in leads:
                # A channel that persistence forecasts without error (its ratio is NaN) has nothing to be
                # skilful at.
                values = ratio.sel(lead_time=lead).to_numpy()
                if np.isfinite(values).any():
                    metrics[f"skill/rmse_ratio_{reference}/mean/{prefix}{lead:g}h"] = float(
                        np.nanmean(values)
                    )
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
