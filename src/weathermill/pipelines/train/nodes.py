"""Nodes of the train pipeline."""

from __future__ import annotations

import pandas as pd

from weathermill.models.forecaster import Forecaster
from weathermill.parameters import ModelParameters, TrainParameters
from weathermill.pipelines.train.configuration import model_config, train_config
from weathermill.tensors.store import TensorStore
from weathermill.tracking.tracker import MLflowTracker
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import train
from weathermill.training.tracker import NullTracker


def train_network(
    tensors: TensorStore,
    checkpoints: CheckpointManager,
    model: ModelParameters,
    parameters: TrainParameters,
    seed: int,
) -> tuple[Forecaster, pd.DataFrame]:
    """Train the network, or go on training it, and give it with the history of its losses."""
    result = train(
        tensors,
        model_config(model),
        train_config(parameters, seed),
        checkpoints,
        MLflowTracker.active() or NullTracker(),
        device=None if parameters.device == "auto" else parameters.device,
        resume=parameters.resume,
    )
    return result.forecaster, pd.DataFrame(result.history)
