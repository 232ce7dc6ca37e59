"""From the scores of two runs to whether one is better."""

from weathermill.pipelines.compare.pipeline import create_pipeline

__all__ = ["create_pipeline"]
