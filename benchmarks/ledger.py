"""Compare the memory ledger's prediction with what a dry step on the device takes."""

from __future__ import annotations

import argparse

import torch
from common import BEYOND, device_name, emit, make_forecaster, make_loss, parse_grid

from weathermill.models.registry import ModelConfig
from weathermill.training.ledger import largest_batch, measure, predict_for
from weathermill.training.rollout import RolloutConfig
from weathermill.training.step import StepConfig

KINDS = {"plain": {}, **BEYOND}
# Those that take memory of their own.
IMAGES = ("filtered", "conserving", "spectral", "missing")

# Grid, batch, rollout, blocks recomputed, steps recomputed, precision, kind.
CASES = [
    ("181x360", 16, 1, False, False, "bf16", "plain"),
    ("181x360", 16, 1, True, False, "bf16", "plain"),
    ("181x360", 8, 2, False, False, "bf16", "plain"),
    ("181x360", 8, 2, True, False, "bf16", "plain"),
    ("181x360", 8, 4, False, False, "bf16", "plain"),
    ("181x360", 8, 4, True, False, "bf16", "plain"),
    ("181x360", 8, 4, False, True, "bf16", "plain"),
    ("181x360", 8, 1, False, False, "tf32", "plain"),
    *(
        ("181x360", 8, rollout, False, steps, "bf16", kind)
        for kind in IMAGES
        for rollout, steps in ((1, False), (2, False), (4, True))
    ),
    ("721x1440", 2, 1, False, False, "bf16", "plain"),
    ("721x1440", 2, 1, True, False, "bf16", "plain"),
    ("721x1440", 1, 2, False, False, "bf16", "plain"),
    ("721x1440", 1, 2, True, False, "bf16", "plain"),
    ("721x1440", 1, 4, False, False, "bf16", "plain"),
    ("721x1440", 1, 4, True, False, "bf16", "plain"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--grid", help="only cases of this grid")
    parser.add_argument("--budget-gib", type=float, default=80.0, help="for the largest batch that fits")
    parser.add_argument("--kinds", nargs="*", default=["plain", *IMAGES], help="only cases of these")
    a = parser.parse_args()
    cuda = torch.cuda.is_available()
    for grid, batch, rollout, blocks, steps, precision, kind in CASES:
        if (a.grid and grid != a.grid) or kind not in a.kinds:
            continue
        config = StepConfig(precision=precision, checkpointing=blocks)
        rollout_config = RolloutConfig(checkpoint_steps=steps)
        model = ModelConfig(base_channels=a.base, **KINDS[kind].get("model", {}))
        forecaster = make_forecaster(parse_grid(grid), a.channels, model, KINDS[kind].get("missing", 0))
        loss = make_loss(parse_grid(grid), **KINDS[kind].get("loss", {}))
        arguments = (batch, config, rollout, rollout_config)
        ledger = predict_for(forecaster, *arguments, loss)
        record = {
            "benchmark": "ledger",
            "device": device_name(torch.device("cuda" if cuda else "cpu")),
            "grid": grid,
            "batch": batch,
            "rollout": rollout,
            "recompute": "blocks" if blocks else "steps" if steps else "no",
            "precision": precision,
            "kind": kind,
            "predicted_mib": ledger.total / 2**20,
            "largest_batch": largest_batch(
                forecaster, int(a.budget_gib * 2**30), config, rollout, rollout_config, loss
            ),
        }
        if cuda:
            measured = measure(forecaster, *arguments, loss=loss)
            record |= {
                "measured_mib": measured.total / 2**20,
                "error": ledger.total / measured.total - 1.0,
                "workspace_mib": ledger.parts["workspace"] / 2**20,
                "fragmentation_mib": measured.fragmentation / 2**20,
                "context_mib": measured.context / 2**20,
            }
        emit(record)


if __name__ == "__main__":
    main()
