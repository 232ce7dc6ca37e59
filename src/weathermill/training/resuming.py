"""Going on from a checkpoint: what must be the same, and what makes another training of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weathermill.errors import CheckpointError
from weathermill.models.registry import ModelConfig
from weathermill.training.checkpoint_files import Checkpoint
from weathermill.training.config import TrainConfig
from weathermill.training.history import Phase, changed, go_on

# What decides which numbers come out; the rest (tier, threads, how often to log) may change when resuming.
_BINDING = ("batch_size", "seed", "loss", "channel_weights", "rollout", "rollout_loss", "consecutive")
# As above; told only where they are not the default, so that checkpoints from before they were there still fit.
_BINDING_LATER = ("huber_delta", "error_unit", "loss_weights", "spectral_weight", "spectral_variables")
# Steps of validation decide which epoch is the best: losses of other windows do not compare.
_VALIDATION = "validation_steps"
_COURSE = (
    "epochs",
    "learning_rate",
    "weight_decay",
    "schedule",
    "step",
    "skip_spikes",
    "watch_every_steps",
    "patience",
    "deterministic",
)
# Not in checkpoints of older versions, where they are not compared.
_ADDED = (_VALIDATION, "patience", "deterministic")


def identity(store_identity: str, model: ModelConfig, config: TrainConfig) -> dict[str, Any]:
    """Describe a training for its checkpoints, JSON-ready."""
    values, defaults = _plain(config.to_dict()), _plain(TrainConfig().to_dict())
    later = {name: values[name] for name in _BINDING_LATER if values[name] != defaults[name]}
    return {
        "store": store_identity,
        "model": _plain(_model_identity(model)),
        **{name: values[name] for name in (*_BINDING, *_COURSE)},
        _VALIDATION: config.validation_steps,
        **later,
    }


def _model_identity(model: ModelConfig) -> dict[str, Any]:
    """What makes a network another one: its boundary counts as it is for the grid, not as it was asked for."""
    values = model.to_dict()
    edges = values.pop("edges")
    values.pop("open_edges")
    return {**values, "boundary": model.edges.name} if edges else values


def check_identity(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compare the training of a checkpoint with the one that wants to resume from it.

    Returns
    -------
    list of str
        What changed in the course of the training (epochs, learning rate, precision): allowed, but the
        result will not be that of an uninterrupted run.

    Raises
    ------
    CheckpointError
        When the data, the network, or what makes up the batches and the loss differ.
    """
    changed = [
        name
        for name in {**now, **saved}
        if saved.get(name) != now.get(name) and (name in saved or name not in _ADDED)
    ]
    binding = [
        name for name in changed if name in ("store", "model", _VALIDATION, *_BINDING, *_BINDING_LATER)
    ]
    told = {name: f"{name}: {_short(saved.get(name))} then, {_short(now.get(name))} now" for name in changed}
    if binding:
        details = "; ".join(told[name] for name in binding)
        raise CheckpointError(
            f"The checkpoint belongs to another training ({details}).",
            remedy="Resume with what it was made with, or train anew with `train.resume=false`; only "
            + ", ".join(_COURSE)
            + " may differ."
            + (
                f" `train.validation_rollout={saved[_VALIDATION]}` validates as before."
                if binding == [_VALIDATION]
                else ""
            ),
        )
    return list(told.values())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def resumed_phases(
    checkpoint: Checkpoint,
    state: Mapping[str, Any],
    config: TrainConfig,
    now: dict[str, Any],
    digests: Mapping[str, str],
) -> tuple[tuple[Phase, ...], list[str]]:
    """Give the history of a training that goes on from a checkpoint, and what changes there.

    Parameters
    ----------
    checkpoint, state
        What `CheckpointManager.latest` gave.
    config
        Of the training from here on.
    now
        Its `identity`.
    digests
        Hashes of its data, parameters and code, see `Phase`.

    Raises
    ------
    CheckpointError
        When the data, the network, or what makes up the batches and the loss differ; when there are more epochs than
        asked for; and when the training is complete, so that nothing would be trained with what changed.
    """
    changes = check_identity(state["identity"], now)
    epoch, batch, step = (state["position"][key] for key in ("epoch", "batch", "step"))
    where = str(checkpoint.path)
    if epoch + bool(batch) > config.epochs:
        raise CheckpointError(
            f"The checkpoint has {epoch} complete epochs ({step} steps), and train.epochs asks for {config.epochs}.",
            where=where,
            remedy="Raise train.epochs to go on, or train anew with `train.resume=false`.",
        )
    phases = go_on(checkpoint.phases, epoch, step, now, digests)
    if len(phases) < 2 or phases[-1].first_step < step:
        return phases, []
    other = changed(phases[-2], phases[-1])
    # Digests of parameters say no more than the parameters, where these differ.
    told = [f"other {name}" for name in other if ":" not in name and name not in now]
    changes = [*changes, *told] or other
    ended = out_of_patience(config, epoch, state["best"]["epoch"])
    if epoch >= config.epochs or ended:
        why = "train.patience ends it" if ended else f"it has all {config.epochs} epochs"
        raise CheckpointError(
            f"The training is complete ({why}): nothing would be trained with what changed since "
            f"({'; '.join(changes)}).",
            where=where,
            remedy="Take the change back; raise train.epochs to go on with it; or train anew with `train.resume=false`.",
        )
    return phases, changes


def require_resumable(
    checkpoint: Checkpoint, model: ModelConfig, config: TrainConfig, digests: Mapping[str, str]
) -> None:
    """Refuse before any work, by the parameters alone, what `resumed_phases` would refuse once the data are there.

    Raises
    ------
    CheckpointError
        As there.
    """
    saved = dict(checkpoint.phases[-1].parameters) if checkpoint.phases else {}
    if not saved:
        return
    state = {
        "identity": saved,
        "position": {"epoch": checkpoint.epoch, "batch": 0, "step": checkpoint.step},
        "best": {"epoch": 0},
    }
    now = identity(saved["store"], model, config)
    # What the boundary is follows from the grid.
    now["model"] = {**now["model"], "boundary": saved["model"].get("boundary")}
    resumed_phases(checkpoint, state, config, now, digests)


def out_of_patience(config: TrainConfig, epoch: int, best_epoch: int) -> bool:
    """Whether a training ends early: after so many epochs without a better one."""
    return config.patience is not None and bool(best_epoch) and epoch - best_epoch >= config.patience


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
