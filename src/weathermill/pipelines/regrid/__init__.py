"""From the grid of the sources to the grid of the network."""

from weathermill.pipelines.regrid.pipeline import create_pipeline

__all__ = ["create_pipeline"]
