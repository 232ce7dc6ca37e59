"""What the figures of the model card show, in words that stand without the card."""

from __future__ import annotations

import xarray as xr

from weathermill.verification.labels import counted, long_name, region_label
from weathermill.verification.regions import whole_region
from weathermill.verification.spectra import goes_round

REGIONS = (
    "RMSE of the forecast relative to that of persistence (%), by region and lead time, mean over channels. Blue: the"
    " forecast is better."
)
STABILITY = (
    "Free rollouts by lead time: the range of all values on the grid (shading) and the area mean of each rollout, against"
    " the range of the training period widened by one standard deviation (dashed)."
)
LOSS = "Training and validation loss, and the learning rate, by epoch. The star marks the weights that were kept."


def curves(what: str, scores: xr.Dataset, intervals: xr.Dataset) -> str:
    """Describe curves of a score by lead time."""
    inits = counted(scores.sizes["init_time"], "initial time")
    level = 100 * float(intervals.attrs.get("level", 0.95))
    return (
        f"{what} by lead time, {_everywhere(scores)}, of forecasts from {inits} and of the baselines. Shading: {level:g} % intervals,"
        " block bootstrap over initial times."
    )


def correlation_note(scores: xr.Dataset) -> str:
    """Say what a reader of anomaly correlations should know."""
    note = " The grey line marks 0.6, the usual limit of useful forecasts."
    if "regression" in scores["source"].values:
        note += " Regression that only damps persistence correlates as persistence does."
    return note


def spectra(spectra: xr.Dataset) -> str:
    """Describe spectra."""
    waves = "zonal wavenumber" if goes_round(spectra) else "number of half waves across the domain"
    return (
        f"Power by {waves}, mean over latitudes (by area) and initial times. Above: truth (black) and forecasts by lead"
        " time. Below: forecast over truth; the axis ends at 0.1 and 10."
    )


def _everywhere(scores: xr.Dataset) -> str:
    """What the region of all cells is called in words."""
    return region_label(whole_region(scores["region"].to_numpy()))


def scorecard(reference: str, scores: xr.Dataset) -> str:
    """Describe a scorecard against a baseline."""
    return (
        f"RMSE of the forecast relative to that of {reference} (%), {_everywhere(scores)}, by channel and lead time. Blue: the forecast is"
        " better."
    )


def maps(channel: str) -> str:
    """Describe maps of truth, forecast and error."""
    return (
        f"{long_name(channel)}: truth, forecast and their difference, of one forecast from the middle of the test period."
        " Truth and forecast share one colour scale over all lead times, differences another about zero; both end at the"
        " 0.5th and 99.5th percentile (arrows). Each cell is one of the network's grid."
    )
