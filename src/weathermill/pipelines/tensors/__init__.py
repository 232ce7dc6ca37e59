"""From normalised fields to the store that training reads."""

from weathermill.pipelines.tensors.pipeline import create_pipeline

__all__ = ["create_pipeline"]
