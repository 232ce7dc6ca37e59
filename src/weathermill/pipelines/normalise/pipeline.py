"""The normalise pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.normalise.nodes import compute_statistics, normalise_fields

# Lazy, so it costs nothing to have it in the tensors pipeline too, which then runs by itself.
normalise_node = Node(
    normalise_fields,
    ["regridded", "statistics", "params:ingest"],
    "normalised",
    name="normalise",
    tags=["dask"],
)


def create_pipeline() -> Pipeline:
    """Statistics of the training period, and normalised channels."""
    return Pipeline(
        [
            Node(
                compute_statistics,
                ["regridded", "params:ingest", "params:splits"],
                "statistics",
                name="compute_statistics",
                tags=["dask"],
            ),
            normalise_node,
        ]
    )
