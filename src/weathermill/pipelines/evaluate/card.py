"""The facts on a model card, gathered from the store, the network and the parameters."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from weathermill.models.forecaster import Forecaster
from weathermill.parameters import TrainParameters
from weathermill.tensors.store import TensorStore
from weathermill.verification import times as clock

NORMALISATION = (
    "Every channel has its area-weighted mean over the training period subtracted and is divided by its standard "
    "deviation; both are computed in float64."
)
TENDENCY = (
    " The network predicts the change over one time step, divided by the standard deviation of that change."
)


def score_attributes(store: TensorStore) -> dict[str, Any]:
    """What says of scores which data and grid they are of, so that only like is compared with like."""
    rows, columns = store.grid_shape
    places = np.concatenate([store.latitude, store.longitude]).astype(np.float64)
    return {
        "simulated": int(bool(store.manifest["provenance"].get("simulated"))),
        "grid": f"{rows} x {columns}",
        "grid_digest": hashlib.sha256(np.round(places, 6).tobytes()).hexdigest()[:16],
        "tensors": store.fingerprint,
    }


def data_facts(store: TensorStore) -> dict[str, Any]:
    """Sources, periods and how the data were treated."""
    provenance = store.manifest["provenance"]
    times = clock.from_seconds(store.times, store.calendar)
    periods = {
        name: f"{times[runs[0][0]]} to {times[runs[-1][1] - 1]}, {sum(stop - start for start, stop in runs)} states"
        for name, runs in store.splits.items()
        if runs
    }
    return {
        "title": provenance.get("title") or "not stated",
        "source": provenance.get("source") or "not stated",
        "files": [source["location"].rsplit("/", 1)[-1] for source in provenance.get("sources", [])][:20],
        "time_step": f"{store.time_step / 3600:g} h",
        "calendar": store.calendar,
        "periods": periods,
        "regridding": provenance.get("regridding") or "none",
    }


def grid_facts(store: TensorStore) -> dict[str, Any]:
    """The grid of the network."""
    rows, columns = store.grid_shape
    return {
        "size": f"{rows} x {columns}",
        "latitude": f"{store.latitude[0]:g} to {store.latitude[-1]:g} degrees",
        "longitude": f"{store.longitude[0]:g} to {store.longitude[-1]:g} degrees",
    }


def channel_facts(store: TensorStore) -> list[dict[str, Any]]:
    """Each channel with its statistics."""
    rows = []
    for i, channel in enumerate(store.channels.to_dicts()):
        statistics = {"mean": store.mean[i], "std": store.std[i]}
        if channel["role"] != "static":
            statistics["tendency_std"] = store.tendency_std[i]
        rows.append({**channel, **{name: float(value) for name, value in statistics.items()}})
    return rows


def model_facts(model: Forecaster) -> dict[str, Any]:
    """The network."""
    parameters = sum(p.numel() for p in model.network.parameters())
    return {"parameters": parameters, **model.config.to_dict()}


def training_facts(history: pd.DataFrame, parameters: TrainParameters) -> dict[str, Any]:
    """How the network was trained."""
    facts = parameters.model_dump(
        include={"epochs", "batch_size", "learning_rate", "weight_decay", "schedule", "loss", "rollout"}
    )
    if "validation_loss" in history and history["validation_loss"].notna().any():
        best = history.loc[history["validation_loss"].idxmin()]
        facts |= {"best_epoch": int(best["epoch"]), "best_validation_loss": float(best["validation_loss"])}
    if "samples_per_second" in history:
        facts["samples_per_second"] = float(history["samples_per_second"].median())
    return facts


def provenance_facts(store: TensorStore) -> dict[str, Any]:
    """Hashes by which the data can be recognised."""
    sources = store.manifest["provenance"].get("sources", [])
    return {
        "tensors": store.fingerprint,
        "sources": {source["location"].rsplit("/", 1)[-1]: source["sha256"] for source in sources[:20]},
    }


def normalisation_text(model: Forecaster) -> str:
    """How channels are normalised, in words."""
    return NORMALISATION + (TENDENCY if model.config.target == "tendency" else "")
