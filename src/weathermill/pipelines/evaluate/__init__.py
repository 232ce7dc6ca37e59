"""From weights to skill."""

from weathermill.pipelines.evaluate.pipeline import create_pipeline, create_weatherbench1_pipeline

__all__ = ["create_pipeline", "create_weatherbench1_pipeline"]
