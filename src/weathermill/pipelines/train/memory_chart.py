"""A chart of the device memory that a training takes, by part, beside the ledger's tables."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.store import TensorStore
from weathermill.training.budget import log_ledger
from weathermill.training.config import TrainConfig
from weathermill.training.objective import make_loss
from weathermill.training.prediction import Ledger, predict_for
from weathermill.training.tracker import Tracker
from weathermill.verification.style import new_figure, save_figure, styled

_MIB = 2**20


@styled
def draw_memory(ledger: Ledger, measured: Ledger | None = None) -> Figure:
    """Draw a ledger as bars, one for each kind of part and rollout step, the blocks of a step side by side.

    Parameters
    ----------
    ledger
        What is predicted.
    measured
        A dry step's, whose total is then named too.
    """
    bars: dict[str, dict[str, float]] = defaultdict(dict)
    for name, size in {
        **ledger.parts,
        "fragmentation": ledger.fragmentation,
        "CUDA context": ledger.context,
    }.items():
        bar, _, block = name.partition(": ")
        bars[bar][block] = size / _MIB
    rows = [bar for bar, blocks in bars.items() if sum(blocks.values()) >= 0.05]
    figure = new_figure(7.0, 1.0 + 0.3 * len(rows))
    axes = figure.add_subplot()
    widest = max(sum(bars[bar].values()) for bar in rows)
    for row, bar in enumerate(rows):
        left = 0.0
        for block, size in bars[bar].items():
            axes.barh(row, size, left=left, height=0.7, color="#56B4E9", edgecolor="white", linewidth=0.6)
            if block and size > 0.07 * widest:
                axes.text(left + size / 2, row, block, ha="center", va="center", fontsize=6.5)
            left += size
        axes.text(left + 0.01 * widest, row, f"{left:,.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * widest)
    axes.set_xlabel("Device memory (MiB)")
    axes.grid(visible=False, axis="y")
    steps = f"{ledger.rollout} forecast step{'s' if ledger.rollout > 1 else ''}"
    total = (
        f"{ledger.total / _MIB:,.0f} MiB at the peak, {ledger.reserved / _MIB:,.0f} MiB needed on the device"
    )
    dry = "" if measured is None else f"; a dry step took {measured.total / _MIB:,.0f} MiB"
    rows_columns = f"{ledger.grid[0]}×{ledger.grid[1]}"
    axes.set_title(
        f"Predicted for CUDA: batch {ledger.batch}, {rows_columns}, {steps}\n{total}{dry}", loc="left"
    )
    return figure


def log_chart(ledger: Ledger, tracker: Tracker, measured: Ledger | None = None) -> None:
    """Put the chart on record as ``memory/ledger.png``."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_figure(draw_memory(ledger, measured), Path(folder) / "ledger.png")
        tracker.log_artifact(path, "memory")


def log_prediction(store: TensorStore, model: ModelConfig, config: TrainConfig, tracker: Tracker) -> None:
    """Put on record what a training, which runs elsewhere, would take on a CUDA device."""
    forecaster = Forecaster.from_store(store, model, fit=False)
    loss = make_loss(config, store)
    ledger = predict_for(
        forecaster, config.batch_size, config.step, config.most_steps, config.rollout_loss, loss
    )
    log_ledger(ledger, tracker)
    log_chart(ledger, tracker)
