"""The evaluate pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.evaluate.nodes import draw_figures, evaluate_forecasts, summarise, tabulate_scores


def create_pipeline() -> Pipeline:
    """A trained network to scores against persistence and climatology, figures and a summary."""
    return Pipeline(
        [
            Node(
                evaluate_forecasts,
                ["tensors", "model", "params:evaluate"],
                ["scores", "example_forecast"],
                name="evaluate",
            ),
            Node(tabulate_scores, "scores", ["scores_table", "evaluation_metrics"], name="tabulate_scores"),
            Node(
                draw_figures,
                ["scores", "example_forecast", "training_history", "params:evaluate"],
                "figures",
                name="draw_figures",
            ),
            Node(summarise, ["scores", "params:evaluate"], "summary", name="summarise"),
        ]
    )
