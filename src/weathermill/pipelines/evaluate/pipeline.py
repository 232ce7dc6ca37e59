"""The evaluate pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.evaluate.nodes import (
    bound_scores,
    draw_figures,
    evaluate_forecasts,
    follow_stability,
    split_seasons,
    summarise,
    tabulate_scores,
    write_model_card,
)
from weathermill.pipelines.evaluate.published import weatherbench1_baselines


def create_weatherbench1_pipeline() -> Pipeline:
    """The baseline rows of the WeatherBench 1 table, beside the published ones."""
    return Pipeline(
        [
            Node(
                weatherbench1_baselines,
                "tensors",
                ["baseline_table", "baseline_page"],
                name="weatherbench1_baselines",
            )
        ]
    )


def create_pipeline() -> Pipeline:
    """A trained network to scores against baselines, a verdict on stability, figures, a model card and a summary."""
    return Pipeline(
        [
            Node(
                evaluate_forecasts,
                ["tensors", "model", "params:evaluate"],
                ["scores", "spectra", "example_forecast"],
                name="evaluate",
            ),
            Node(
                follow_stability,
                ["tensors", "model", "statistics", "params:evaluate", "regrid_weights"],
                "stability",
                name="follow_stability",
            ),
            Node(split_seasons, "scores", "seasonal_scores", name="split_seasons"),
            Node(
                bound_scores,
                ["scores", "params:evaluate", "params:seed"],
                "score_intervals",
                name="bound_scores",
            ),
            Node(
                tabulate_scores,
                ["scores", "stability"],
                ["scores_table", "evaluation_metrics"],
                name="tabulate_scores",
            ),
            Node(
                draw_figures,
                [
                    "scores",
                    "score_intervals",
                    "spectra",
                    "example_forecast",
                    "stability",
                    "training_history",
                    "params:evaluate",
                ],
                ["figures", "card_figures"],
                name="draw_figures",
            ),
            Node(
                write_model_card,
                [
                    "tensors",
                    "model",
                    "scores",
                    "score_intervals",
                    "seasonal_scores",
                    "stability",
                    "spectra",
                    "card_figures",
                    "training_history",
                    "params:train",
                ],
                "model_card",
                name="write_model_card",
            ),
            Node(summarise, ["scores", "params:evaluate"], "summary", name="summarise"),
        ]
    )
