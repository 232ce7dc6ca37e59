"""The ingest pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.ingest.nodes import ingest_fields, inspect_sources, render_inspection


def create_pipeline() -> Pipeline:
    """Sources to canonical fields, with a report on what was found in them."""
    return Pipeline(
        [
            Node(
                inspect_sources,
                ["raw_fields", "params:ingest", "params:splits"],
                "inspection_findings",
                name="inspect",
                tags=["dask"],
            ),
            Node(
                ingest_fields,
                ["raw_fields", "inspection_findings", "params:ingest", "params:splits"],
                "fields",
                name="ingest",
                tags=["dask"],
            ),
            Node(
                render_inspection,
                ["inspection_findings", "fields"],
                "inspection_report",
                name="render_inspection",
            ),
        ]
    )
