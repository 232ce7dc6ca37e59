"""From any state to a forecast in physical units."""

from weathermill.pipelines.forecast.pipeline import create_pipeline

__all__ = ["create_pipeline"]
