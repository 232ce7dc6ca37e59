"""The facts on a model card, gathered from the store, the network and the parameters."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from weathermill.extent import is_global_longitude, is_globe
from weathermill.models.forecaster import Forecaster
from weathermill.parameters import TrainParameters
from weathermill.tensors.store import TensorStore
from weathermill.tracking.runs import git_state
from weathermill.tracking.tracker import MLflowTracker
from weathermill.training.history import Phase, describe
from weathermill.training.ledger import predict_for
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.rollout import RolloutConfig
from weathermill.training.spectral import SpectralTerm
from weathermill.training.step import StepConfig
from weathermill.verification import times as clock
from weathermill.verification.labels import counted

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

    def minute(index: int) -> str:
        return clock.time_key(times[index])[:16].replace("T", " ")

    order = ("train", "validation", "test")
    periods = {
        name: f"{minute(runs[0][0])} to {minute(runs[-1][1] - 1)} UTC,"
        f" {sum(stop - start for start, stop in runs)} states"
        for name, runs in sorted(store.splits.items(), key=lambda item: (*order, item[0]).index(item[0]))
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
    around = is_global_longitude(store.longitude)
    extent = "all longitudes, a band of latitudes" if around else "a region"
    return {
        "size": f"{rows} x {columns}",
        "extent": "the globe" if is_globe(store.latitude, store.longitude) else extent,
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


#: The parameters of the network that are hard constraints.
CONSTRAINTS = (
    "zonal_filter",
    "conserve_mean",
    "pin_mean",
    "budget_mean",
    "conserve_dry_mass",
    "non_negative",
)


def model_facts(model: Forecaster) -> dict[str, Any]:
    """The network: what is set, and whether its output is constrained."""
    config = {
        name: value for name, value in model.config.to_dict().items() if value not in (None, [], (), {})
    }
    config = {k: v for k, v in config.items() if k not in ("edges", "open_edges")}
    config["boundary"] = model.boundary
    constraints = {name: config.pop(name) for name in CONSTRAINTS if name in config}
    parameters = sum(p.numel() for p in model.network.parameters())
    active = {name: value for name, value in constraints.items() if value is not False}
    return {"parameters": parameters, **config, "hard constraints": active or "none"}


def memory_facts(model: Forecaster, parameters: TrainParameters) -> dict[str, str]:
    """Device memory of the training by kind of part, as the ledger predicts it."""
    step = StepConfig(**parameters.step.model_dump(exclude={"checkpointing"}))
    steps = max(parameters.rollout)
    spectral = None
    if parameters.spectral_weight:
        # Of any area weights: what it takes is a matter of the grid.
        spectral = SpectralTerm(parameters.spectral_weight, np.ones(len(model.latitude)), model.longitude)
    loss = AreaWeightedLoss("mse", np.ones(len(model.latitude)), spectral=spectral)
    ledger = predict_for(
        model, parameters.batch_size, step, steps, RolloutConfig(**parameters.rollout_loss.model_dump()), loss
    )
    parts = {**ledger.summary(), "fragmentation": ledger.fragmentation, "CUDA context": ledger.context}
    told = {name: f"{size / 2**20:,.1f} MiB" for name, size in parts.items() if size >= 0.05 * 2**20}
    return {
        "predicted for": f"batch {ledger.batch}, {steps} step{'s' if steps > 1 else ''}, {step.resolved('cuda').precision} on a"
        " CUDA device",
        **told,
        "needed on the device": f"{ledger.reserved / 2**20:,.1f} MiB",
    }


def run_facts() -> dict[str, str]:
    """Which MLflow run this is part of, and of which commit; empty outside a run."""
    tracker = MLflowTracker.active()
    if tracker is None:
        return {}
    state = git_state(tracker.project or Path.cwd())
    commit = state.get("mlflow.source.git.commit", "")
    changed = ", and changes that are not committed" if state.get("git.dirty") == "true" else ""
    return {"MLflow run": tracker.run_id} | ({"commit": commit + changed} if commit else {})


def _steps_text(rollout: list[int]) -> str:
    """Steps of the epochs' windows in short: "1 (18 epochs), then 4"."""
    runs = [(steps, len(list(group))) for steps, group in itertools.groupby(rollout)]
    parts = [f"{steps} ({counted(count, 'epoch')})" for steps, count in runs[:-1]]
    return ", then ".join([*parts, str(runs[-1][0])])


def training_facts(history: pd.DataFrame, parameters: TrainParameters) -> dict[str, Any]:
    """How the network was trained: what differs from the defaults, what came out and how long it took."""
    shown = {"epochs", "batch_size", "learning_rate", "weight_decay", "schedule", "loss"}
    defaults = TrainParameters()
    untold = {"device", "resume", "rollout", "step", "rollout_loss", "keep_checkpoints", "feed", "threads"}
    changed = {
        name
        for name in type(parameters).model_fields
        if name not in untold
        and not name.startswith("checkpoint_")
        and getattr(parameters, name) != getattr(defaults, name)
    }
    facts = parameters.model_dump(include=shown | changed)
    facts["steps of a window"] = _steps_text(parameters.rollout[: parameters.epochs])
    for group in ("rollout_loss", "step"):
        facts |= getattr(parameters, group).model_dump(exclude_defaults=True)
    if "validation_loss" in history and history["validation_loss"].notna().any():
        best = history.loc[history["validation_loss"].idxmin()]
        facts |= {"best_epoch": int(best["epoch"]), "best_validation_loss": float(best["validation_loss"])}
    if "step" in history and len(history):
        facts["optimiser_steps"] = int(history["step"].max())
    if "seconds" in history:
        facts["duration"] = f"{history['seconds'].sum() / 60:.1f} min"
    if "samples_per_second" in history:
        facts["samples_per_second"] = f"{history['samples_per_second'].median():.3g}"
    return facts


def history_facts(model: Forecaster) -> dict[str, Any]:
    """With what the network was trained, from the first step to the last; empty where it does not say."""
    told = model.trained_with
    if not told:
        return {}
    phases = [Phase.from_dict(values) for values in told["phases"]]
    if len(phases) == 1:
        return {"trained": "from the first step to the last with the same parameters, data and code"}
    return {
        "trained": {f"phase {i}": line for i, line in enumerate(describe(phases, told["steps"]), start=1)}
    }


def provenance_facts(store: TensorStore) -> dict[str, Any]:
    """Hashes by which the data can be recognised."""
    sources = store.manifest["provenance"].get("sources", [])
    return {
        **run_facts(),
        "tensors": store.fingerprint,
        "SHA-256 of sources": {
            source["location"].rsplit("/", 1)[-1]: source["sha256"] for source in sources[:20]
        },
    }


def normalisation_text(model: Forecaster) -> str:
    """How channels are normalised, in words."""
    return NORMALISATION + (TENDENCY if model.config.target == "tendency" else "")
