"""Nodes of the train pipeline."""

from __future__ import annotations

import pandas as pd

from weathermill.models.forecaster import Forecaster
from weathermill.parameters import ModelParameters, TrainParameters
from weathermill.pipelines.splitting import training_period_of
from weathermill.pipelines.train.configuration import model_config, train_config
from weathermill.pipelines.train.memory_chart import log_chart, log_prediction
from weathermill.tensors.store import TensorStore
from weathermill.tracking.tracker import MLflowTracker
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.engine import choose_device, train
from weathermill.training.history import Phase, describe
from weathermill.training.tracker import NullTracker


def history_tags(forecaster: Forecaster) -> dict[str, str]:
    """Tags of a run that say with what its network was trained, from the first step to the last."""
    told = forecaster.trained_with
    phases = [Phase.from_dict(values) for values in told["phases"]]
    return {
        "training.phases": str(len(phases)),
        "training.history": "; ".join(describe(phases, told["steps"])),
        "training.best_epoch": str(told["best_epoch"]),
    }


def train_network(
    tensors: TensorStore,
    checkpoints: CheckpointManager,
    model: ModelParameters,
    parameters: TrainParameters,
    seed: int,
) -> tuple[Forecaster, pd.DataFrame]:
    """Train the network, or go on training it, and give it with the history of its losses."""
    network, config = model_config(model), train_config(parameters, seed)
    device = choose_device(parameters.device)
    active = MLflowTracker.active()
    tracker = active or NullTracker()
    if active is not None and device.type != "cuda" and not parameters.resume:
        log_prediction(tensors, network, config, active)
    result = train(
        tensors,
        network,
        config,
        checkpoints,
        tracker,
        device=device,
        resume=parameters.resume,
        report_memory=lambda ledger, measured: log_chart(ledger, tracker, measured),
    )
    result.forecaster.trained_with["training_period"] = training_period_of(tensors)
    if active is not None:
        active.set_tags(history_tags(result.forecaster))
    return result.forecaster, pd.DataFrame(result.history)
