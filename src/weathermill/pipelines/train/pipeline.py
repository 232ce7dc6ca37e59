"""The train pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.train.nodes import train_network


def create_pipeline() -> Pipeline:
    """The tensor store to a trained network."""
    return Pipeline(
        [
            Node(
                train_network,
                ["tensors", "checkpoints", "params:model", "params:train", "params:seed"],
                ["model", "training_history"],
                name="train",
            )
        ]
    )
