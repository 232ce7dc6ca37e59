"""Logging a trained network as an MLflow model."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

logger = logging.getLogger(__name__)

EXAMPLE_BYTES = 2 * 2**20


def signature(n_input: int, n_output: int, grid_shape: tuple[int, int]) -> ModelSignature:
    """What the model takes and gives: states and forecasts in physical units, float32."""
    height, width = grid_shape
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, n_input, height, width))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1, n_output, height, width))]),
        params=ParamSchema([ParamSpec("steps", "long", 1)]),
    )


def log_model(
    folder: Path, *, n_input: int, n_output: int, grid_shape: tuple[int, int], example: Any = None
) -> None:
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
    """
    names = ("torch", "numpy", "safetensors", "mlflow")
    requirements = [f"{name}=={metadata.version(name).split('+')[0]}" for name in names]
    if example is not None and example.nbytes > EXAMPLE_BYTES:
        example = None
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"forecaster": str(folder)},
        signature=signature(n_input, n_output, grid_shape),
        input_example=example,
        pip_requirements=[*requirements, f"weathermill=={metadata.version('weathermill')}"],
    )
