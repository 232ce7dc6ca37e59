"""From typed parameters to the plain dataclasses that the training library takes."""

from __future__ import annotations

from weathermill.models.own_networks import import_networks
from weathermill.models.registry import ModelConfig
from weathermill.parameters import ModelParameters, TrainParameters
from weathermill.training.config import TrainConfig
from weathermill.training.rollout import RolloutConfig
from weathermill.training.schedule import ScheduleConfig
from weathermill.training.step import StepConfig
from weathermill.training.weighting import LossWeights


def model_config(parameters: ModelParameters) -> ModelConfig:
    """Make the network's configuration, and import the module of an own network."""
    if parameters.module is not None:
        import_networks(parameters.module)
    return ModelConfig.from_dict(parameters.model_dump(exclude={"module"}))


def train_config(parameters: TrainParameters, seed: int) -> TrainConfig:
    """Make the training's configuration."""
    values = parameters.model_dump(exclude={"device", "resume", "keep_checkpoints", "warmup_fraction"})
    values["schedule"] = ScheduleConfig(parameters.schedule, warmup_fraction=parameters.warmup_fraction)
    values["rollout_loss"] = RolloutConfig(**values["rollout_loss"])
    values["loss_weights"] = LossWeights(**values["loss_weights"])
    values["checkpointing"] = values["step"].pop("checkpointing")
    values["step"] = StepConfig(**values["step"], deterministic=parameters.deterministic)
    return TrainConfig(seed=seed, **values)
