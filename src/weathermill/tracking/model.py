"""Logging a trained network as an MLflow model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from weathermill.forecasting.forcings import is_computable
from weathermill.models.forecaster import read_metadata

EXAMPLE_BYTES = 2 * 2**20


def signature(n_output: int, grid_shape: tuple[int, int]) -> ModelSignature:
    """What the model gives, in physical units, and its parameters.

    MLflow has no type for what the model takes, datasets of any naming and order or arrays of four dimensions: it is left
    open, and checked by the model, whose messages on what does not fit say more than MLflow's would.
    """
    height, width = grid_shape
    text, number = np.dtype("str"), np.dtype("float64")
    return ModelSignature(
        outputs=Schema(
            [
                TensorSpec(np.dtype("float32"), (-1, -1, n_output, height, width), "forecast"),
                TensorSpec(number, (-1,), "lead_time_hours"),
                TensorSpec(text, (n_output,), "channel"),
                TensorSpec(text, (n_output,), "units"),
                TensorSpec(number, (height,), "latitude"),
                TensorSpec(number, (width,), "longitude"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("steps", "long", 0),
                ParamSpec("lead_time_hours", "double", 0.0),
                ParamSpec("channel", "string", [], (-1,)),
                ParamSpec("units", "string", [], (-1,)),
                ParamSpec("latitude", "double", [], (-1,)),
                ParamSpec("longitude", "double", [], (-1,)),
                ParamSpec("time", "string", [], (-1,)),
                ParamSpec("regrid", "string", ""),
                ParamSpec("form", "string", ""),
            ]
        ),
    )


def describe(folder: Path) -> dict[str, Any]:
    """What a caller must know of a saved network: channels, units, grid, time step, and what it computes itself."""
    saved = read_metadata(folder)
    dynamic = [c for c in saved["channels"] if c["role"] != "static"]
    return {
        "channel": [c["name"] for c in dynamic],
        "units": [c["units"] for c in dynamic],
        "latitude": saved["latitude"],
        "longitude": saved["longitude"],
        "time_step_hours": saved["time_step"] / 3600,
        "computed": [c["name"] for c in dynamic if c["role"] == "forcing" and is_computable(c["name"])],
    }


def log_model(
    folder: Path,
    *,
    n_input: int,
    n_output: int,
    grid_shape: tuple[int, int],
    example: Any = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log the network saved in ``folder`` to the active run, loadable with ``mlflow.pyfunc.load_model``.

    Parameters
    ----------
    folder
        What ``Forecaster.save`` wrote.
    n_input, n_output
        Channels of a state and of a forecast.
    grid_shape
        (latitude, longitude).
    example
        One state (1, channel, latitude, longitude) in physical units; left out when it is larger than 2 MB,
        because MLflow keeps examples as JSON text.
    tags
        Of the logged model.

    Returns
    -------
    str
        The model's id.
    """
    names = ("torch", "numpy", "safetensors", "mlflow")
    requirements = [f"{name}=={metadata.version(name).split('+')[0]}" for name in names]
    if example is not None and (example.nbytes > EXAMPLE_BYTES or example.shape[1] != n_input):
        example = None
    logged = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"forecaster": str(folder)},
        signature=signature(n_output, grid_shape),
        input_example=example,
        metadata=describe(folder),
        pip_requirements=[*requirements, f"weathermill=={metadata.version('weathermill')}"],
        tags=dict(tags or {}),
    )
    return logged.model_id
