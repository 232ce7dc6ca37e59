"""The compare pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.compare.nodes import compare_two_runs


def create_pipeline() -> Pipeline:
    """Two MLflow runs to the significance of the differences between their scores."""
    return Pipeline(
        [
            Node(
                compare_two_runs,
                ["params:compare", "params:seed"],
                [
                    "comparison",
                    "comparison_table",
                    "comparison_page",
                    "comparison_figures",
                    "comparison_summary",
                ],
                name="compare",
            )
        ]
    )
