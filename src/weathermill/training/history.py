"""With what a network was trained, from the first step to the last: kept in checkpoints and in the model's file.

A training that is resumed with the same data, network, parameters and code has one phase. Where parameters of its course
or the code changed, a new phase begins at the step from which it went on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: What names the parameters of a phase that an older version saved without saying with what they were trained.
UNKNOWN = "unknown"

_SHOWN = ("epochs", "learning_rate", "schedule", "weight_decay", "batch_size")


@dataclass(frozen=True)
class Phase:
    """Steps in a row that were taken with the same parameters, data and code.

    Parameters
    ----------
    first_epoch
        In which its first step lies, counted from one.
    first_step
        Optimiser steps that had been taken before.
    parameters
        Of the training, see `config.identity`; empty where not known.
    digests
        Hashes of the data, the parameters and the code, by name, from the caller; empty where it gave none.
    """

    first_epoch: int
    first_step: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Phase:
        """Build from what `to_dict` gave."""
        return cls(**values)


def phases_of(saved: Sequence[Mapping[str, Any]] | None, epoch: int, step: int) -> tuple[Phase, ...]:
    """Give the phases that a checkpoint names.

    Parameters
    ----------
    saved
        `Phase.to_dict` of each; None in checkpoints of older versions, whose history is unknown.
    epoch, step
        Position of the checkpoint: epochs that are complete, optimiser steps taken.
    """
    if saved is not None:
        return tuple(Phase.from_dict(values) for values in saved)
    return (Phase(1, 0, digests={"history": UNKNOWN}),) if step else ()


def go_on(
    phases: Sequence[Phase],
    epoch: int,
    step: int,
    parameters: Mapping[str, Any],
    digests: Mapping[str, str],
) -> tuple[Phase, ...]:
    """Give the phases of a training that goes on from a checkpoint.

    Parameters
    ----------
    phases
        Up to the checkpoint; empty for a new training.
    epoch, step
        Position of the checkpoint.
    parameters, digests
        Of the training from here on, see `Phase`.

    Returns
    -------
    tuple of Phase
        The same phases where nothing changed; else with one more, in place of those that have no step.
    """
    kept = [phase for phase in phases if phase.first_step < step]
    now = Phase(epoch + 1 if kept else 1, step if kept else 0, parameters, digests)
    if kept and not changed(kept[-1], now):
        return tuple(kept)
    return (*kept, now)


def changed(before: Phase, now: Phase) -> list[str]:
    """Name what differs between two phases: digests where both have them, else parameters."""
    if before.digests.get("history") == UNKNOWN:
        return ["history"]
    first, second = (
        (before.digests, now.digests)
        if before.digests and now.digests
        else (before.parameters, now.parameters)
    )
    return sorted(name for name in {**first, **second} if first.get(name) != second.get(name))


def history_digest(phases: Sequence[Phase]) -> str:
    """Hash phases and their order: equal for networks that were trained in the same way from the first step on."""
    told = [
        [p.first_epoch, p.first_step, sorted((p.digests or {"": _json(p.parameters)}).items())]
        for p in phases
    ]
    return hashlib.sha256(_json(told).encode()).hexdigest()


def describe(phases: Sequence[Phase], steps: int) -> list[str]:
    """Say of each phase in a line where it begins and ends, and with what parameters it was trained.

    Parameters
    ----------
    phases
        Of the training.
    steps
        Optimiser steps in all.
    """
    ends = [*(phase.first_step for phase in phases[1:]), steps]
    return [
        f"from epoch {phase.first_epoch} (steps {phase.first_step + 1} to {end}): "
        f"{_told(phases[i - 1] if i else None, phase)}"
        for i, (phase, end) in enumerate(zip(phases, ends, strict=True))
    ]


def _told(before: Phase | None, phase: Phase) -> str:
    if not phase.parameters:
        return f"{UNKNOWN} (from a checkpoint of an older version)"
    if before is None or not before.parameters:
        return ", ".join(f"{name} {_short(phase.parameters.get(name))}" for name in _SHOWN)
    names = changed(Phase(1, 0, before.parameters), Phase(1, 0, phase.parameters))
    parts = [
        f"{name} {_short(phase.parameters.get(name))} (before: {_short(before.parameters.get(name))})"
        for name in names
    ]
    # Digests of parameters say no more than the parameters.
    parts += [f"other {name}" for name in changed(before, phase) if name not in names and ":" not in name]
    return ", ".join(parts) or ", ".join(f"other {name}" for name in changed(before, phase))


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        value = value["name"]
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
