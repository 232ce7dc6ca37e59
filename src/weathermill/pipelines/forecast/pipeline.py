"""The forecast pipelines: from one state, and from many."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.forecast.nodes import make_forecast, make_forecasts, read_initial_state

_READING = ["initial_fields", "model", "params:regrid", "params:forecast", "params:ingest", "params:splits"]


def create_pipeline() -> Pipeline:
    """One state in any ingestable form to a CF forecast in physical units."""
    return Pipeline(
        [
            Node(
                read_initial_state,
                _READING,
                "initial_state",
                name="read_initial_state",
            ),
            Node(make_forecast, ["initial_state", "model", "params:forecast"], "forecast", name="forecast"),
        ]
    )


def create_batch_pipeline() -> Pipeline:
    """Many states to one Zarr store of forecasts, streamed."""
    return Pipeline(
        [
            Node(
                make_forecasts,
                _READING,
                "forecasts",
                name="forecast_batch",
            )
        ]
    )
