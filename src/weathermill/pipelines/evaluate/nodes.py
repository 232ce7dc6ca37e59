"""Nodes of the evaluate pipeline."""

from __future__ import annotations

import logging

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from weathermill.fields.weights import RegridWeights
from weathermill.models.forecaster import Forecaster
from weathermill.parameters import EvaluateParameters, TrainParameters
from weathermill.pipelines.evaluate import captions, card
from weathermill.pipelines.evaluate.baselines import make_climatology, make_regression
from weathermill.pipelines.evaluate.forecasting import example_forecast, lead_steps, score_forecasts
from weathermill.pipelines.evaluate.rollouts import follow_rollouts, stability_metrics
from weathermill.tensors.store import TensorStore
from weathermill.tracking.runs import software_versions
from weathermill.training.engine import choose_device
from weathermill.verification import maps, plots
from weathermill.verification.labels import counted
from weathermill.verification.metrics import headline_channels, scores_to_metrics
from weathermill.verification.model_card import CardFigure, render_model_card
from weathermill.verification.regions import Region
from weathermill.verification.scorecards import region_scorecard, scorecard
from weathermill.verification.scores import to_frame
from weathermill.verification.seasons import seasonal_scores
from weathermill.verification.significance import confidence_intervals, ratio_intervals
from weathermill.verification.spectra import spectra_plot
from weathermill.verification.stability import stability_plot
from weathermill.verification.summary import text_summary

logger = logging.getLogger(__name__)


def evaluate_forecasts(
    tensors: TensorStore, model: Forecaster, parameters: EvaluateParameters
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Score forecasts of the test period, take their spectra, and keep one of them to look at."""
    steps = lead_steps(tensors, parameters.lead_time_hours)
    model = model.to(choose_device()).eval()
    reference = make_climatology(tensors, parameters.climatology)
    scores, spectra = score_forecasts(
        tensors,
        model,
        reference,
        steps=steps,
        initial_step=parameters.initial_step,
        batch_size=parameters.batch_size,
        regression=make_regression(tensors, reference, steps=steps, kind=parameters.regression),
        boxes=[Region(**region.model_dump()) for region in parameters.regions],
    )
    scores.attrs |= card.score_attributes(tensors)
    return scores, spectra, example_forecast(tensors, model, steps=steps)


def follow_stability(
    tensors: TensorStore,
    model: Forecaster,
    statistics: xr.Dataset,
    parameters: EvaluateParameters,
    regrid_weights: RegridWeights | None = None,
) -> xr.Dataset:
    """Let some forecasts run freely for weeks; an empty dataset that says why where none can or shall."""
    if parameters.stability_days is None:
        return xr.Dataset(attrs={"left_out": "evaluate.stability_days is null"})
    stability = follow_rollouts(
        tensors,
        model.to(choose_device()).eval(),
        statistics,
        days=parameters.stability_days,
        rollouts=min(parameters.stability_rollouts, parameters.batch_size),
        weights=regrid_weights,
    )
    return xr.Dataset(attrs={"left_out": "the store lacks the forcings"}) if stability is None else stability


def split_seasons(scores: xr.Dataset) -> xr.Dataset:
    """Scores by season of the valid time."""
    return seasonal_scores(scores)


def bound_scores(scores: xr.Dataset, parameters: EvaluateParameters, seed: int) -> xr.Dataset:
    """Bootstrap confidence intervals over initial times: of scores, and of the ratios to the baselines."""
    how = {
        "level": parameters.confidence,
        "n_resamples": parameters.bootstrap_samples,
        "seed": seed,
        "decorrelation_hours": 24 * parameters.block_days,
    }
    references = [name for name in scores["source"].values.tolist() if name != "forecast"]
    return confidence_intervals(scores, **how).assign(ratio_intervals(scores, references, **how).data_vars)


def tabulate_scores(scores: xr.Dataset, stability: xr.Dataset) -> tuple[pd.DataFrame, dict[str, float]]:
    """Flatten the scores to a table; and them and the verdict on stability to the numbers that runs are compared by."""
    metrics = scores_to_metrics(scores, names=("rmse", "acc", "bias"))
    return to_frame(scores), metrics | stability_metrics(stability)


def draw_figures(
    scores: xr.Dataset,
    intervals: xr.Dataset,
    spectra: xr.Dataset,
    example: xr.Dataset,
    stability: xr.Dataset,
    history: pd.DataFrame,
    parameters: EvaluateParameters,
) -> tuple[dict[str, Figure], list[CardFigure]]:
    """Draw curves and scorecards of skill, spectra, maps, long rollouts and losses; for files and for the card."""
    channels = _present(parameters.headline_channels, scores)
    drawn = [
        CardFigure(
            "skill",
            captions.curves("Root mean square error", scores, intervals),
            plots.skill_curves(scores, channels=channels, intervals=intervals),
        ),
        CardFigure(
            "skill",
            captions.curves(
                "Anomaly correlation with the climatology of the training period", scores, intervals
            )
            + captions.correlation_note(scores),
            plots.acc_curves(scores, channels=channels, intervals=intervals),
        ),
        CardFigure(
            "skill", captions.scorecard("persistence", scores), scorecard(scores, reference="persistence")
        ),
        CardFigure(
            "skill", captions.scorecard("climatology", scores), scorecard(scores, reference="climatology")
        ),
        CardFigure("spectra", captions.spectra(spectra), spectra_plot(spectra, channels=channels[:3])),
        CardFigure("training", captions.LOSS, plots.loss_curves(history.to_dict("records"))),
    ]
    names = ["skill_rmse", "skill_acc", "scorecard_persistence", "scorecard_climatology", "spectra", "loss"]
    if scores.sizes["region"] > 1:
        drawn.append(CardFigure("skill", captions.REGIONS, region_scorecard(scores)))
        names.append("scorecard_regions")
    if "stable_until" in stability:
        drawn.append(CardFigure("stability", captions.STABILITY, stability_plot(stability)))
        names.append("stability")
    leads = [lead for lead in parameters.map_lead_times_hours if lead in example["lead_time"].values]
    leads = leads or [float(example["lead_time"].values[-1])]
    units = dict(zip(scores["channel"].values, scores["units"].values, strict=True))
    for channel in _present(parameters.map_channels, scores)[:4]:
        chosen = _channel(example, channel).sel(lead_time=leads)
        figure = maps.forecast_maps(
            chosen.sel(source="forecast").values,
            chosen.sel(source="truth").values,
            example["latitude"].values,
            example["longitude"].values,
            channel=channel,
            units=str(units[channel]),
            lead_times=leads,
            init_time=example["init_time"].values[()],
        )
        drawn.append(CardFigure("maps", captions.maps(channel), figure))
        names.append(f"map_{channel}")
    return {f"{name}.png": entry.figure for name, entry in zip(names, drawn, strict=True)}, drawn


def write_model_card(
    tensors: TensorStore,
    model: Forecaster,
    scores: xr.Dataset,
    intervals: xr.Dataset,
    seasons: xr.Dataset,
    stability: xr.Dataset,
    spectra: xr.Dataset,
    figures: list[CardFigure],
    history: pd.DataFrame,
    training: TrainParameters,
) -> str:
    """Write the model card."""
    return render_model_card(
        scores,
        title="Weathermill forecast network",
        subtitle=f"{model.config.name}, {tensors.grid_shape[0]} x {tensors.grid_shape[1]}, {counted(len(tensors.channels), 'channel')}",
        simulated=tensors.manifest["provenance"].get("simulated"),
        data=card.data_facts(tensors),
        grid=card.grid_facts(tensors),
        channels=card.channel_facts(tensors),
        normalisation=card.normalisation_text(model),
        model=card.model_facts(model),
        training=card.training_facts(history, training) | card.history_facts(model),
        provenance=card.provenance_facts(tensors),
        versions=software_versions(),
        intervals=intervals,
        seasons=seasons,
        stability=stability,
        spectra=spectra,
        figures=figures,
        ledger=card.memory_facts(model, training),
    )


def summarise(scores: xr.Dataset, parameters: EvaluateParameters) -> str:
    """Write the short summary that ends a run."""
    simulated = scores.attrs.get("simulated")
    return text_summary(
        scores,
        channels=_present(parameters.headline_channels, scores),
        notes=["The data are simulated: these figures say nothing of the real atmosphere."]
        if simulated
        else [],
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
