"""From files of any usual layout to canonical fields."""

from weathermill.pipelines.ingest.pipeline import create_pipeline

__all__ = ["create_pipeline"]
