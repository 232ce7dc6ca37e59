"""Figures of skill and training: curves by lead time and losses (and, from their modules, maps and scorecards)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from weathermill.errors import VerificationError
from weathermill.verification.labels import channel_units, display_units, long_name, region_label
from weathermill.verification.maps import forecast_maps
from weathermill.verification.metrics import headline_channels
from weathermill.verification.regions import whole_region
from weathermill.verification.scorecards import comparison_scorecard, scorecard
from weathermill.verification.scores import CLIMATOLOGY, DIMENSIONAL
from weathermill.verification.style import new_figure, source_style, styled

__all__ = ["acc_curves", "comparison_scorecard", "forecast_maps", "loss_curves", "scorecard", "skill_curves"]

_AXIS_NAMES = {
    "rmse": "RMSE",
    "rmse_mean_of_roots": "Mean RMSE",
    "mae": "MAE",
    "bias": "Bias",
    "acc": "ACC",
    "acc_uncentred": "ACC (uncentred)",
    "activity": "Activity",
}


@styled
def skill_curves(
    scores: xr.Dataset,
    *,
    channels: Sequence[str] | None = None,
    metric: str = "rmse",
    region: str | None = None,
    intervals: xr.Dataset | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a score against lead time, a panel per channel, with the baselines.

    Parameters
    ----------
    scores
        From `weathermill.verification.scores.ScoreAccumulator.result`.
    channels
        Channels to show; by default up to six headline ones.
    metric
        A score: "rmse", "acc", "bias", "activity", ...
    region
        Which region; all cells by default.
    intervals
        Confidence intervals with ``<metric>_lower`` and ``<metric>_upper``, from
        `weathermill.verification.significance.confidence_intervals`; drawn as shading.
    title
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
    """
    region = region or whole_region(scores["region"].to_numpy())
    names = scores["channel"].to_numpy().tolist()
    channels = headline_channels(names) if channels is None else list(channels)
    columns = min(3, len(channels))
    rows = math.ceil(len(channels) / columns)
    figure = new_figure(2.75 * columns + 0.3, 2.05 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    hours = scores["lead_time"].to_numpy().astype(float)
    lead_axis, lead_label = _lead_axis(hours)
    handles: dict[str, Any] = {}
    for axis, channel in zip(axes.flat, channels, strict=False):
        here = scores[metric].sel(channel=channel, region=region)
        factor, units = _display(scores, channel, metric)
        here = here * factor
        for position, source in enumerate(scores["source"].to_numpy().tolist()):
            if metric != "rmse" and source == CLIMATOLOGY and metric not in DIMENSIONAL:
                continue
            style = source_style(source, position)
            values = here.sel(source=source).to_numpy()
            marker = "o" if len(hours) == 1 else None
            (line,) = axis.plot(lead_axis, values, label=source, marker=marker, markersize=4, **style)
            handles.setdefault(source, line)
            if intervals is not None and f"{metric}_lower" in intervals:
                bounds = intervals.sel(source=source, channel=channel, region=region)
                axis.fill_between(
                    lead_axis,
                    factor * bounds[f"{metric}_lower"],
                    factor * bounds[f"{metric}_upper"],
                    color=style["color"],
                    alpha=0.18,
                    linewidth=0,
                    zorder=1,
                )
        axis.set_title(long_name(channel))
        axis.set_ylabel(_AXIS_NAMES.get(metric, metric) + (f" ({units})" if units not in ("", "1") else ""))
        _limit(axis, here, metric)
        axis.margins(x=0.02)
    for axis in axes.flat[len(channels) :]:
        axis.set_visible(False)
    for column in range(columns):
        lowest = max(row for row in range(rows) if row * columns + column < len(channels))
        axes[lowest, column].set_xlabel(lead_label)
        axes[lowest, column].tick_params(labelbottom=True)
        if lowest < rows - 1:
            # The labels hang into the empty place below: without this they would push all rows apart.
            for text in (axes[lowest, column].xaxis.label, *axes[lowest, column].get_xticklabels()):
                text.set_in_layout(False)
            axes[lowest, column].xaxis.labelpad = 15
    axes[0, 0].xaxis.set_major_locator(_lead_locator(lead_axis))
    note = " (line: 0.6, the usual limit of useful forecasts)" if metric.startswith("acc") else ""
    if intervals is not None:
        note += f"; shading: {100 * float(intervals.attrs.get('level', 0.95)):g} % intervals"
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.suptitle(title or f"{_AXIS_NAMES.get(metric, metric)}, {region_label(region)}{note}", fontsize=9.5)
    return figure


def acc_curves(scores: xr.Dataset, **kwargs: Any) -> Figure:
    """Draw the anomaly correlation against lead time; see `skill_curves`."""
    return skill_curves(scores, metric="acc", **kwargs)


@styled
def loss_curves(
    history: Sequence[Mapping[str, Any]], *, title: str = "Training", best_epoch: int | None = None
) -> Figure:
    """Draw training and validation loss, and the learning rate, by epoch.

    Parameters
    ----------
    history
        One mapping per epoch. Names may vary: a loss whose name holds "train" (or plain "loss"), one with
        "val", and "learning_rate" or "lr"; "epoch" where epochs are numbered.
    title
        Title of the figure.
    best_epoch
        The epoch whose weights were kept; by default the one of the lowest validation loss.

    Raises
    ------
    VerificationError
        If the history is empty or holds no loss.
    """
    if not history:
        raise VerificationError("the training history is empty")
    train, validation, rate = (_series(history, kind) for kind in ("train", "validation", "rate"))
    if train is None and validation is None:
        raise VerificationError(f"the training history holds no loss, but {', '.join(sorted(history[0]))}")
    epochs = np.array([float(row.get("epoch", position + 1)) for position, row in enumerate(history)])
    figure = new_figure(5.2, 3.2)
    axis = figure.subplots()
    marker = {"marker": "o", "markersize": 3} if len(epochs) <= 40 else {}
    if train is not None:
        axis.plot(epochs, train, color="#0072B2", label="training", **marker)
    if validation is not None:
        axis.plot(epochs, validation, color="#D55E00", linestyle="--", label="validation", **marker)
        if np.isfinite(validation).any():
            best = int(np.nanargmin(validation))
            if best_epoch is not None and best_epoch in epochs:
                best = int(np.flatnonzero(epochs == best_epoch)[0])
            axis.plot(
                epochs[best], validation[best], "*", color="#D55E00", markersize=9, label="kept", zorder=5
            )
    positive = np.concatenate([s[np.isfinite(s)] for s in (train, validation) if s is not None])
    if positive.size and positive.min() > 0:
        axis.set_yscale("log")
        _few_log_ticks(axis, positive)
    axis.set_xlabel("Epoch")
    axis.set_ylabel("Loss")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    handles, labels = axis.get_legend_handles_labels()
    if rate is not None:
        twin = axis.twinx()
        twin.grid(False)
        twin.spines["right"].set_visible(True)
        (line,) = twin.plot(
            epochs, rate, color="#7f7f7f", linewidth=1.0, linestyle=":", label="learning rate"
        )
        twin.set_ylabel("Learning rate", color="#595959")
        twin.set_ylim(bottom=0.0)
        handles.append(line)
        labels.append("learning rate")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title, fontsize=9.5)
    return figure


def _few_log_ticks(axis: Axes, values: np.ndarray) -> None:
    """Label a logarithmic axis that spans little more than a decade with plain numbers."""
    if values.max() / values.min() < 30:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        span = values.max() / values.min()
        subs = (1.0, 2.0, 5.0) if span > 4 else tuple(np.arange(1.0, 10.0)) if span > 1.6 else None
        if subs is None:
            axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
        else:
            axis.yaxis.set_major_locator(LogLocator(subs=subs))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def _series(history: Sequence[Mapping[str, Any]], kind: str) -> np.ndarray | None:
    keys = list(dict.fromkeys(key for row in history for key in row))
    if kind == "rate":
        found = [
            key
            for key in keys
            if key.lower() in ("learning_rate", "lr") or key.lower().endswith("learning_rate")
        ]
    else:
        losses = [key for key in keys if "loss" in key.lower()]
        wanted = "val" if kind == "validation" else "train"
        found = [key for key in losses if wanted in key.lower()]
        if not found and kind == "train":
            found = [key for key in losses if key.lower() == "loss"]
    if not found:
        return None
    name = min(found, key=len)
    return np.array([np.nan if row.get(name) is None else float(row[name]) for row in history])


def _lead_axis(hours: np.ndarray) -> tuple[np.ndarray, str]:
    return (hours / 24.0, "Lead time (days)") if hours.max() > 48 else (hours, "Lead time (h)")


def _lead_locator(lead_axis: np.ndarray) -> Any:
    span = float(lead_axis.max())
    if span <= 8:
        return MultipleLocator(1)
    return MaxNLocator(nbins=6, integer=True)


def _limit(axis: Axes, values: xr.DataArray, metric: str) -> None:
    """Keep the baselines readable when a forecast blows up: end the axis at twice the baselines' maximum."""
    if metric == "acc" or metric == "acc_uncentred":
        low = float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
        axis.set_ylim(min(0.0, 0.05 * math.floor(low / 0.05)), 1.02)
        axis.axhline(0.6, color="#8c8c8c", linewidth=0.7, zorder=1)
        return
    if metric == "bias":
        axis.axhline(0.0, color="#8c8c8c", linewidth=0.7, zorder=1)
        return
    if metric == "activity":
        axis.axhline(1.0, color="#8c8c8c", linewidth=0.7, zorder=1)
        return
    axis.set_ylim(bottom=0.0)
    baselines = values.where(values["source"] != "forecast")
    forecast = values.where(values["source"] == "forecast")
    top, highest = float(baselines.max()), float(forecast.max())
    if np.isfinite(top) and top > 0 and highest > 3 * top:
        axis.set_ylim(top=2 * top)
        axis.annotate(
            f"forecast reaches {highest:.3g}",
            xy=(0.5, 0.98),
            xycoords="axes fraction",
            ha="center",
            va="top",
            fontsize=7,
            color=source_style("forecast")["color"],
        )


def _display(scores: xr.Dataset, channel: str, metric: str) -> tuple[float, str]:
    if metric not in DIMENSIONAL:
        return 1.0, "1"
    magnitude = float(np.abs(scores[metric].sel(channel=channel)).max())
    return display_units(channel_units(scores, channel), magnitude)
