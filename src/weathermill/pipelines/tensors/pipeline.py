"""The tensors pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.normalise.pipeline import normalise_node
from weathermill.pipelines.tensors.nodes import lay_out_tensors


def create_pipeline() -> Pipeline:
    """Normalised channels to the sharded store that training maps into memory."""
    return Pipeline(
        [
            normalise_node,
            Node(
                lay_out_tensors,
                ["normalised", "regridded", "statistics", "params:ingest", "params:splits", "params:tensors"],
                "tensors",
                name="write_tensors",
                tags=["dask"],
            ),
        ]
    )
