"""From the store to weights."""

from weathermill.pipelines.train.pipeline import create_pipeline

__all__ = ["create_pipeline"]
