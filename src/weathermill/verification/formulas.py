"""Definitions of the deterministic scores.

Definitions follow the WMO standard for deterministic verification (Manual on the Global Data-processing and
Forecasting System, WMO-No. 485; score definitions of the WMO Lead Centre for Deterministic NWP Verification),
with area weights in place of its cosine of latitude. For every initial time, lead time, channel and region,
with ``<.>`` the area-weighted mean over the region, anomalies f' = f - c, o' = o - c against the climatology
c *at the valid time*:

=================  ========================================================================================
``mse``            ``<(f - o)^2>``
``bias``           ``<f - o>`` (WMO: mean error)
``mae``            ``<|f - o|>``
``acc``            ``<(f' - <f'>)(o' - <o'>)> / sqrt(<(f' - <f'>)^2> <(o' - <o'>)^2>)`` (WMO, centred)
``acc_uncentred``  ``<f' o'> / sqrt(<f'^2> <o'^2>)`` (WeatherBench 2)
``activity``       ``sqrt(<(f' - <f'>)^2> / <(o' - <o'>)^2>)``
=================  ========================================================================================

Over initial times: ``rmse`` is the square root of the mean ``mse`` (WMO, WeatherBench 2, and the code of
WeatherBench 1); ``rmse_mean_of_roots`` is the mean over initial times of the square root (the formula printed
in the WeatherBench 1 paper), never the larger of the two. ``bias``, ``mae`` and the correlations are
arithmetic means; ``activity`` is the root of the ratio of mean variances.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

FORECAST, PERSISTENCE, CLIMATOLOGY = "forecast", "persistence", "climatology"
#: Scores with the units of their channel; the others are pure numbers.
DIMENSIONAL = ("rmse", "rmse_mean_of_roots", "mae", "bias")
SCORES = (*DIMENSIONAL, "acc", "acc_uncentred", "activity")
LONG_NAMES = {
    "rmse": "root mean square error (root of the mean over initial times)",
    "rmse_mean_of_roots": "mean over initial times of the root mean square error",
    "mae": "mean absolute error",
    "bias": "mean error, forecast minus truth",
    "acc": "anomaly correlation coefficient, centred (WMO)",
    "acc_uncentred": "anomaly correlation coefficient, uncentred (WeatherBench 2)",
    "activity": "standard deviation of forecast anomalies over that of observed anomalies",
    "mse_by_init": "mean square error of each initial time",
    "bias_by_init": "mean error of each initial time",
    "acc_by_init": "centred anomaly correlation of each initial time",
    "n_init": "number of initial times with data",
    "valid_fraction": "share of the region's area with data",
}
#: What is kept of every initial time.
PER_INIT = ("mse", "mae", "bias", "acc", "acc_uncentred", "variance_f", "variance_o", "valid_fraction")


def per_init_scores(sums: np.ndarray, region_area: np.ndarray, has_climatology: bool) -> np.ndarray:
    """From sums (moment, channel, region, lead) to the rows of `PER_INIT`."""
    weight = sums[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        o, oo, _, f, ff, fo, ee, abs_e = sums[1:] / np.where(weight > 0, weight, np.nan)
        # Rounding may leave a tiny negative variance where there is none.
        variance_f, variance_o = np.maximum(ff - f * f, 0.0), np.maximum(oo - o * o, 0.0)
        acc = (fo - f * o) / np.sqrt(variance_f * variance_o)
        acc_uncentred = fo / np.sqrt(ff * oo)
    acc = np.clip(acc, -1.0, 1.0)
    scores = np.stack(
        [ee, abs_e, f - o, acc, acc_uncentred, variance_f, variance_o, weight / region_area[:, None]]
    )
    if not has_climatology:
        scores[3:7] = np.nan
    return scores


def sums_of_climatology(sums: np.ndarray) -> np.ndarray:
    """Derive the sums of the climatology as a forecast from the truth's: f' = 0, f - o = -o'."""
    result = np.zeros_like(sums)
    result[:4] = sums[:4]
    result[7], result[8] = sums[2], sums[3]
    return result


def aggregate(per_init: xr.Dataset) -> xr.Dataset:
    """Take scores per initial time to scores over all of them; each one with data counts the same.

    Parameters
    ----------
    per_init
        ``mse``, ``mae``, ``bias``, ``acc``, ``acc_uncentred``, ``variance_f``, ``variance_o`` and
        ``valid_fraction`` with a dimension ``init_time``.

    Returns
    -------
    xarray.Dataset
        `SCORES`, ``n_init`` and ``valid_fraction`` without that dimension. A forecast that is missing where
        the truth is not makes its scores NaN.
    """
    has_data = per_init["valid_fraction"] > 0
    count = has_data.sum("init_time")

    def mean(data: xr.DataArray) -> xr.DataArray:
        return data.where(has_data, 0.0).sum("init_time", skipna=False) / count.where(count > 0)

    result = xr.Dataset(coords=per_init.coords)
    result["rmse"] = np.sqrt(mean(per_init["mse"]))
    result["rmse_mean_of_roots"] = mean(np.sqrt(per_init["mse"]))
    for name in ("mae", "bias", "acc", "acc_uncentred"):
        result[name] = mean(per_init[name])
    result["activity"] = np.sqrt(mean(per_init["variance_f"]) / mean(per_init["variance_o"]))
    result["n_init"] = count.astype(np.int32)
    result["valid_fraction"] = mean(per_init["valid_fraction"])
    return result
