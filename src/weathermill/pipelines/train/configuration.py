"""From typed parameters to the plain dataclasses that the training library takes."""

from __future__ import annotations

from weathermill.models.registry import ModelConfig
from weathermill.parameters import ModelParameters, TrainParameters
from weathermill.training.engine import TrainConfig
from weathermill.training.step import StepConfig


def model_config(parameters: ModelParameters) -> ModelConfig:
    """Make the network's configuration."""
    return ModelConfig.from_dict(parameters.model_dump())
