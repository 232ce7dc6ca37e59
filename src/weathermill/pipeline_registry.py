"""The project's pipelines by name."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from weathermill.pipelines import compare, evaluate, forecast, ingest, normalise, regrid, tensors, train


def register_pipelines() -> dict[str, Pipeline]:
    """Make every pipeline that ``kedro run --pipelines=<name>`` knows."""
    stages = {
        "ingest": ingest.create_pipeline(),
        "regrid": regrid.create_pipeline(),
        "normalise": normalise.create_pipeline(),
        "tensors": tensors.create_pipeline(),
        "train": train.create_pipeline(),
        "evaluate": evaluate.create_pipeline(),
        "forecast": forecast.create_pipeline(),
    }
    prepare = stages["ingest"] + stages["regrid"] + stages["normalise"] + stages["tensors"]
    everything = prepare + stages["train"] + stages["evaluate"] + stages["forecast"]
    others = {
        "forecast_batch": forecast.create_batch_pipeline(),
        "compare": compare.create_pipeline(),
        "weatherbench1": evaluate.create_weatherbench1_pipeline(),
    }
    return {"__default__": everything, "prepare": prepare, **stages, **others}
