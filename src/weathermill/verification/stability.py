"""Whether a long rollout stays a possible state of the atmosphere: bounds, drift and spread, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from weathermill.errors import VerificationError
from weathermill.verification.labels import channel_units, display_units, long_name
from weathermill.verification.metrics import headline_channels
from weathermill.verification.style import new_figure, styled


class StabilityMonitor:
    """Follows rollouts far beyond any skill, against what the training period ever saw.

    Parameters
    ----------
    channels
        Names of the channels.
    area_weights
        (latitude,) or (latitude, longitude).
    minimum, maximum, std
        (channel,) smallest and largest value and standard deviation of the training period, physical units.
    units
        Of the channels.
    margin
        A value counts as outside beyond the minimum or maximum by more than this many standard deviations.
    """

    def __init__(
        self,
        channels: Sequence[str],
        area_weights: np.ndarray,
        *,
        minimum: np.ndarray,
        maximum: np.ndarray,
        std: np.ndarray,
        units: Sequence[str] | None = None,
        margin: float = 1.0,
    ) -> None:
        self.channels = [str(name) for name in channels]
        self.units = list(units) if units is not None else [""] * len(self.channels)
        self.margin = float(margin)
        self._weights = np.asarray(area_weights, dtype=np.float64)
        self._bounds = [np.asarray(values, dtype=np.float64) for values in (minimum, maximum, std)]
        if any(values.shape != (len(self.channels),) for values in self._bounds):
            raise VerificationError(
                f"minimum, maximum and std must have one value for each of {len(self.channels)} channels"
            )
        self._known: np.ndarray | None = None
        self._leads: list[float] = []
        self._records: list[dict[str, np.ndarray]] = []

    def update(self, lead_hours: float, fields: np.ndarray) -> None:
        """Add the states of all rollouts at a lead time.

        Cells that are missing in the states given first, the initial ones, are left out of all that follows; a value
        that goes missing later counts as outside.

        Parameters
        ----------
        lead_hours
            Hours since the initial states; each given once.
        fields
            (rollout, channel, latitude, longitude), physical units; the same rollouts in the same order every
            time.
        """
        fields = np.asarray(fields)
        if fields.ndim != 4 or fields.shape[1] != len(self.channels):
            raise VerificationError(
                f"fields have shape {fields.shape}, not (rollout, {len(self.channels)}, ...)"
            )
        if lead_hours in self._leads:
            raise VerificationError(f"lead time {lead_hours:g} h was given before")
        weights = (
            self._weights
            if self._weights.ndim == 2
            else np.repeat(self._weights[:, None], fields.shape[3], 1)
        )
        if self._known is None:
            self._known = ~np.isnan(fields)
        if fields.shape != self._known.shape:
            raise VerificationError(
                f"fields have shape {fields.shape}; those given first had {self._known.shape}"
            )
        known = self._known
        weights = np.where(known, weights, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            weights /= weights.sum(axis=(2, 3), keepdims=True)
        minimum, maximum, std = (values[:, None, None] for values in self._bounds)
        finite = np.isfinite(fields)
        inside = finite & (fields >= minimum - self.margin * std) & (fields <= maximum + self.margin * std)
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.where(known, fields, 0.0)
            mean = np.einsum("nchw,nchw->nc", values, weights, dtype=np.float64)
            centred = values.astype(np.float64) - mean[..., None, None]
            spread = np.sqrt(np.einsum("nchw,nchw->nc", centred**2, weights))
        self._leads.append(float(lead_hours))
        self._records.append(
            {
                "mean": mean,
                "spatial_std": spread,
                "minimum": fields.min(axis=(2, 3), where=known, initial=np.inf).astype(np.float64),
                "maximum": fields.max(axis=(2, 3), where=known, initial=-np.inf).astype(np.float64),
                "outside": np.einsum("nchw,nchw->nc", (~inside).astype(np.float64), weights),
            }
        )

    def result(self) -> xr.Dataset:
        """Return what was seen, and a verdict.

        Returns
        -------
        xarray.Dataset
            ``mean`` and ``spatial_std`` (area-weighted), ``minimum``, ``maximum`` and ``outside`` (share of
            the area outside the bounds) with dimensions (rollout, channel, lead_time); ``lower`` and
            ``upper``, the bounds, by channel; ``stable_until`` (rollout, channel): the last lead time (h) up
            to which all was inside. Attribute ``stable``: 1 if nothing ever left the bounds.
        """
        if not self._records:
            raise VerificationError("no rollout was followed", remedy="Call update before result.")
        order = np.argsort(self._leads)
        dims = ("rollout", "channel", "lead_time")
        minimum, maximum, std = self._bounds
        result = xr.Dataset(
            {
                name: (dims, np.stack([self._records[i][name] for i in order], axis=-1))
                for name in self._records[0]
            },
            coords={
                "channel": self.channels,
                "lead_time": (
                    "lead_time",
                    np.asarray(self._leads)[order],
                    {"units": "h", "long_name": "lead time"},
                ),
                "units": ("channel", self.units),
            },
        )
        result["lower"] = ("channel", minimum - self.margin * std)
        result["upper"] = ("channel", maximum + self.margin * std)
        inside = np.logical_and.accumulate(result["outside"].to_numpy() <= 0.0, axis=-1)
        leads = result["lead_time"].to_numpy()
        count = inside.sum(axis=-1)
        result["stable_until"] = (dims[:2], np.where(count > 0, leads[np.maximum(count - 1, 0)], 0.0))
        result["outside"].attrs["long_name"] = "share of the area outside the training period's bounds"
        result["stable_until"].attrs = {"units": "h", "long_name": "last lead time with everything inside"}
        result.attrs = {"margin_std": self.margin, "stable": int(inside.all())}
        return result


@styled
def stability_plot(
    stability: xr.Dataset, *, channels: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """Draw the range of values and the mean of long rollouts against the bounds, a panel per channel.

    Parameters
    ----------
    stability
        From `StabilityMonitor.result`.
    channels
        At most four headline ones by default.
    title
        Title of the figure.
    """
    names = stability["channel"].to_numpy().tolist()
    channels = headline_channels(names, limit=4) if channels is None else list(channels)
    columns = min(2, len(channels))
    rows = -(-len(channels) // columns)
    figure = new_figure(4.0 * columns, 2.1 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    days = stability["lead_time"].to_numpy() / 24.0
    for axis, channel in zip(axes.flat, channels, strict=False):
        here = stability.sel(channel=channel)
        lower, upper = float(here["lower"]), float(here["upper"])
        factor, units = display_units(channel_units(stability, channel), max(abs(lower), abs(upper)))
        low, high = factor * here["minimum"].min("rollout"), factor * here["maximum"].max("rollout")
        axis.fill_between(
            days, low, high, color="#0072B2", alpha=0.2, linewidth=0, label="minimum to maximum"
        )
        for member in range(stability.sizes["rollout"]):
            label = "area mean of each rollout" if member == 0 else None
            axis.plot(
                days, factor * here["mean"].isel(rollout=member), color="#0072B2", linewidth=1.2, label=label
            )
        for bound, label in ((lower, "bounds of the training period, widened"), (upper, None)):
            axis.axhline(factor * bound, color="#D55E00", linestyle="--", linewidth=1.1, label=label)
        span = factor * (upper - lower)
        axis.set_ylim(factor * lower - 0.25 * span, factor * upper + 0.25 * span)
        axis.set_title(long_name(channel))
        axis.set_ylabel(units if units not in ("", "1") else "")
    for axis in axes.flat[len(channels) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("Lead time (days)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    until = float(stability["stable_until"].min())
    verdict = "all inside" if stability.attrs.get("stable") else f"all inside until {until:g} h"
    figure.suptitle(
        title or f"Stability of {stability.sizes['rollout']} long rollouts: {verdict}", fontsize=9.5
    )
    return figure
