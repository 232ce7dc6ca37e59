"""What a training minimises: the loss that its configuration asks for, on the channels and grid of its data."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from weathermill.models.forecaster import Forecaster
from weathermill.tensors.store import TensorStore
from weathermill.training.config import TrainConfig
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.spectral import SpectralTerm
from weathermill.training.tracker import Tracker
from weathermill.training.weighting import LossWeights, weights_table


def make_loss(config: TrainConfig, store: TensorStore) -> AreaWeightedLoss:
    """Build the loss of a training.

    Raises
    ------
    ParameterError
        When weights or the spectral term name what is no predicted variable, channel or level, or the spectral term does
        not suit the grid.
    """
    weights = config.channel_weights
    if config.loss_weights:
        weights = config.loss_weights.resolve(store.channels)
    spectral = None
    if config.spectral_weight:
        chosen = None
        if config.spectral_variables:
            only = LossWeights(
                dict.fromkeys(config.spectral_variables, 2.0), where="train.spectral_variables"
            )
            chosen = only.factors(store.channels) > 1.0
        spectral = SpectralTerm(config.spectral_weight, store.area_weights, store.longitude, chosen)
    return AreaWeightedLoss(
        config.loss, store.area_weights, weights, config.huber_delta, config.error_unit, spectral
    )


def log_weights(loss: AreaWeightedLoss, forecaster: Forecaster, tracker: Tracker) -> None:
    """Put the weights in force on record: a table with a row for each channel."""
    scale = forecaster.error_scale_in(loss.unit or forecaster.config.target).flatten().double().cpu().numpy()
    n = forecaster.n_prognostic
    weights = np.ones(n) if loss.channel_weights is None else loss.channel_weights.double().cpu().numpy()
    spectral = np.zeros(n)
    if loss.spectral is not None:
        chosen = loss.spectral.chosen
        spectral += loss.spectral.weight * (1.0 if chosen is None else chosen.double().cpu().numpy())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loss_weights.csv"
        path.write_text(weights_table(forecaster, weights, scale, spectral), encoding="utf-8")
        tracker.log_artifact(path, "loss")
