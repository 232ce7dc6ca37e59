"""Nodes of the evaluate pipeline."""

from __future__ import annotations

import logging

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from weathermill.training.engine import choose_device
from weathermill.models.forecaster import Forecaster
from weathermill.parameters import EvaluateParameters
from weathermill.pipelines.evaluate.forecasting import (
    example_forecast,
    lead_steps,
    make_climatology,
    score_forecasts,
)
from weathermill.tensors.store import TensorStore
from weathermill.verification import maps, plots
from weathermill.verification.metrics import headline_channels, scores_to_metrics
from weathermill.verification.scores import to_frame
from weathermill.verification.summary import text_summary

logger = logging.getLogger(__name__)


def evaluate_forecasts(
    tensors: TensorStore, model: Forecaster, parameters: EvaluateParameters
) -> tuple[xr.Dataset, xr.Dataset]:
    """Score forecasts of the test period, and keep one of them to look at."""
    steps = lead_steps(tensors, parameters.lead_time_hours)
    model = model.to(choose_device()).eval()
    scores = score_forecasts(
        tensors,
        model,
        make_climatology(tensors),
        steps=steps,
        initial_step=parameters.initial_step,
        batch_size=parameters.batch_size,
    )
    scores.attrs["simulated"] = int(bool(tensors.manifest["provenance"].get("simulated")))
    return scores, example_forecast(tensors, model, steps=steps)


def tabulate_scores(scores: xr.Dataset) -> tuple[pd.DataFrame, dict[str, float]]:
    """Flatten the scores to a table, and to the numbers that runs are compared by."""
    return to_frame(scores), scores_to_metrics(scores)


def draw_figures(
    scores: xr.Dataset, example: xr.DataArray, history: pd.DataFrame, parameters: EvaluateParameters
) -> dict[str, Figure]:
    """Draw skill curves, a scorecard, maps of one forecast, and the loss curves."""
    channels = _present(parameters.headline_channels, scores)
    figures = {
        "skill_rmse.png": plots.skill_curves(scores, channels=channels),
        "skill_acc.png": plots.acc_curves(scores, channels=channels),
        "scorecard_persistence.png": plots.scorecard(scores, reference="persistence"),
        "scorecard_climatology.png": plots.scorecard(scores, reference="climatology"),
        "loss.png": plots.loss_curves(history.to_dict("records")),
    }
    leads = [lead for lead in parameters.map_lead_times_hours if lead in example["lead_time"].values]
    leads = leads or [float(example["lead_time"].values[-1])]
    units = dict(zip(scores["channel"].values, scores["units"].values, strict=True))
    for channel in _present(parameters.map_channels, scores)[:4]:
        chosen = _channel(example, channel).sel(lead_time=leads)
        figures[f"map_{channel}.png"] = maps.forecast_maps(
            chosen.sel(source="forecast").values,
            chosen.sel(source="truth").values,
            example["latitude"].values,
            example["longitude"].values,
            channel=channel,
            units=str(units[channel]),
            lead_times=leads,
            init_time=example["init_time"].values[()],
        )
    return figures


def summarise(scores: xr.Dataset, parameters: EvaluateParameters) -> str:
    """Write the short summary that ends a run."""
    simulated = scores.attrs.get("simulated")
    return text_summary(
        scores,
        channels=_present(parameters.headline_channels, scores),
        notes=["The data are simulated: these figures say nothing of the real atmosphere."] if simulated else [],
    )


def _present(wanted: list[str], scores: xr.Dataset) -> list[str]:
    known = scores["channel"].values.tolist()
    absent = [name for name in wanted if name not in known]
    if absent:
        logger.warning("Not among the channels, and so not shown: %s", ", ".join(absent))
    return [name for name in wanted if name in known] or headline_channels(known)


def _channel(example: xr.Dataset, name: str) -> xr.DataArray:
    if name in example:
        return example[name]
    variable, level = name.rsplit("_", 1)
    return example[variable].sel(level=float(level))
