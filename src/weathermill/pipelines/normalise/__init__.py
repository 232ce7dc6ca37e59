"""Statistics of the training period, and fields divided by them."""

from weathermill.pipelines.normalise.pipeline import create_pipeline

__all__ = ["create_pipeline"]
