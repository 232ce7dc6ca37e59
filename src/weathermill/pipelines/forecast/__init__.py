"""From any state to a forecast in physical units, and from many."""

from weathermill.pipelines.forecast.pipeline import create_batch_pipeline, create_pipeline

__all__ = ["create_batch_pipeline", "create_pipeline"]
