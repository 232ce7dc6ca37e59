"""The evaluate pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.evaluate.nodes import (
    bound_scores,
    draw_figures,
    evaluate_forecasts,
    summarise,
    tabulate_scores,
    write_model_card,
)


def create_pipeline() -> Pipeline:
    """A trained network to scores against persistence and climatology, figures, a model card and a summary."""
    return Pipeline(
        [
            Node(
                evaluate_forecasts,
                ["tensors", "model", "params:evaluate"],
                ["scores", "spectra", "example_forecast"],
                name="evaluate",
            ),
            Node(
                bound_scores,
                ["scores", "params:evaluate", "params:seed"],
                "score_intervals",
                name="bound_scores",
            ),
            Node(tabulate_scores, "scores", ["scores_table", "evaluation_metrics"], name="tabulate_scores"),
            Node(
                draw_figures,
                [
                    "scores",
                    "score_intervals",
                    "spectra",
                    "example_forecast",
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
