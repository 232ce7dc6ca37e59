"""Maps of forecast, truth and error on a longitude-latitude grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from weathermill.errors import VerificationError
from weathermill.verification.labels import display_units, long_name, split_channel
from weathermill.verification.style import new_figure, styled

#: Fields with a sign of their own are drawn around zero.
_SIGNED = ("u_component_of_wind", "v_component_of_wind", "vertical_velocity", "vorticity", "divergence")


@styled
def forecast_maps(
    forecast: np.ndarray,
    truth: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    channel: str,
    units: str = "",
    lead_times: Sequence[float] | float | None = None,
    init_time: Any = None,
    title: str | None = None,
) -> Figure:
    """Draw truth, forecast and error side by side, a row per lead time.

    Truth and forecast share one colour scale over all rows, and the errors another, symmetric about zero, so
    that rows and columns compare. Lead times at which the forecast is unstable (an RMSE of more than ten standard deviations
    of the truth, or values that are not finite) take no part in the scale of errors, and are labelled.

    Parameters
    ----------
    forecast, truth
        (latitude, longitude) or (lead, latitude, longitude), physical units.
    latitude, longitude
        Cell centres in degrees, one-dimensional; either order of latitude.
    channel
        Name of the channel.
    units
        CF units.
    lead_times
        In hours, for the row labels.
    init_time
        Initial time, for the title.
    title
        Replaces the title.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    VerificationError
        If shapes do not fit, or there is no finite value.
    """
    forecast, truth = np.atleast_3d(np.asarray(forecast)), np.atleast_3d(np.asarray(truth))
    latitude, longitude = np.asarray(latitude, dtype=float), np.asarray(longitude, dtype=float)
    if np.asarray(forecast).shape[-1] == 1 and latitude.size > 1 and longitude.size > 1:
        forecast, truth = np.moveaxis(forecast, -1, 0), np.moveaxis(truth, -1, 0)
    leads = [None] * len(forecast) if lead_times is None else np.atleast_1d(np.asarray(lead_times)).tolist()
    expected = (len(leads), latitude.size, longitude.size)
    if forecast.shape != expected or truth.shape != expected:
        raise VerificationError(
            f"maps of shapes {forecast.shape} and {truth.shape}, where {expected} was expected"
        )
    finite = np.abs(truth[np.isfinite(truth)])
    factor, label = display_units(units, float(finite.max()) if finite.size else float("nan"))
    # Squares of errors that grew without bound do not fit into float32.
    forecast, truth = (factor * field.astype(np.float64) for field in (forecast, truth))
    error = forecast - truth
    if not np.isfinite(truth).any():
        raise VerificationError(f"there is no finite value of {channel} to draw")

    signed = split_channel(channel)[0].startswith(_SIGNED) or "component_of_wind" in channel
    field_norm = _norm(truth, symmetric=signed)
    failed = [bool((~np.isfinite(f) & np.isfinite(t)).any()) for f, t in zip(forecast, truth, strict=True)]
    spread = float(np.std(truth[np.isfinite(truth)]))
    rmses = [float(np.sqrt(_area_mean(field**2, latitude))) for field in error]
    unstable = [bad or (0 < 10 * spread < rmse) for bad, rmse in zip(failed, rmses, strict=True)]
    error_norm = _norm(error if all(unstable) else error[~np.array(unstable)], symmetric=True)
    rows = len(leads)
    aspect = (_span(latitude) + 1e-9) / (_span(longitude) + 1e-9)
    panel_height = float(np.clip(2.4 * aspect, 0.9, 2.6))
    figure = new_figure(7.6, rows * (panel_height + 0.28) + 1.15)
    axes = figure.subplots(rows, 3, squeeze=False, sharex=True, sharey=True)
    edges_x, edges_y = _edges(longitude), np.clip(_edges(latitude), -90.0, 90.0)
    unit_text = f" ({label})" if label not in ("", "1") else ""
    images = {}
    for row, lead in enumerate(leads):
        panels = (
            (truth, "Truth", field_norm),
            (forecast, "Forecast", field_norm),
            (error, "Error", error_norm),
        )
        for column, (field, name, norm) in enumerate(panels):
            axis = axes[row, column]
            colours = "RdBu_r" if name == "Error" else "PuOr_r" if signed else "viridis"
            images[name] = axis.pcolormesh(
                edges_x, edges_y, field[row], cmap=colours, norm=norm, rasterized=True, shading="flat"
            )
            _geographic(axis, edges_x, edges_y)
            lead_text = "" if lead is None else f" at {lead:g} h"
            if name == "Error":
                rmse_text = f"RMSE {rmses[row]:.3g}{' ' + label if unit_text else ''}"
                name = f"Error{lead_text}: " + ("not finite" if failed[row] else rmse_text)
                name += " (unstable)" if unstable[row] else ""
            else:
                name += lead_text
            axis.set_title(name, fontsize=8.5)
    bar = figure.colorbar(images["Truth"], ax=axes[:, :2], orientation="horizontal", extend="both", aspect=45)
    bar.set_label(long_name(channel) + unit_text)
    bar.outline.set_visible(False)
    bar = figure.colorbar(images["Error"], ax=axes[:, 2], orientation="horizontal", extend="both", aspect=22)
    bar.set_label("Forecast minus truth" + unit_text)
    bar.locator = MaxNLocator(nbins=4, symmetric=True)
    bar.update_ticks()
    bar.outline.set_visible(False)
    if title is None:
        title = long_name(channel)
        if init_time is not None:
            title += f", forecast from {str(init_time)[:16].replace('T', ' ')} UTC"
    figure.suptitle(title, fontsize=9.5)
    return figure


def _geographic(axis: Axes, edges_x: np.ndarray, edges_y: np.ndarray) -> None:
    axis.set_aspect("equal")
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)
    axis.set_xlim(edges_x.min(), edges_x.max())
    axis.set_ylim(edges_y.min(), edges_y.max())
    axis.xaxis.set_major_locator(MultipleLocator(_step(np.ptp(edges_x), (90, 60, 30, 20, 10, 5, 2, 1))))
    axis.yaxis.set_major_locator(MultipleLocator(_step(np.ptp(edges_y), (60, 30, 20, 10, 5, 2, 1))))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: longitude_label(value)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: latitude_label(value)))
    axis.tick_params(labelsize=7, length=2.5)
    axis.label_outer()


def longitude_label(value: float) -> str:
    """Return a longitude as printed on maps: 270 -> "90°W"."""
    wrapped = (value + 180.0) % 360.0 - 180.0
    if abs(wrapped) < 1e-9:
        return "0°"
    if abs(abs(wrapped) - 180.0) < 1e-9:
        return "180°"
    return f"{abs(wrapped):g}°{'E' if wrapped > 0 else 'W'}"


def latitude_label(value: float) -> str:
    """Return a latitude as printed on maps: -30 -> "30°S"."""
    return "0°" if abs(value) < 1e-9 else f"{abs(value):g}°{'N' if value > 0 else 'S'}"


def _step(span: float, steps: Sequence[float]) -> float:
    return next((step for step in steps if span / step >= 3.0), steps[-1])


def _norm(field: np.ndarray, *, symmetric: bool) -> Normalize:
    # A single point of a spurious extreme must not wash out the map; the colour bar's arrows tell of what
    # lies beyond.
    low, high = (
        np.nanpercentile(field[np.isfinite(field)], [0.5, 99.5]) if np.isfinite(field).any() else (0.0, 1.0)
    )
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return Normalize(low, high)


def _edges(centres: np.ndarray) -> np.ndarray:
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _span(centres: np.ndarray) -> float:
    return float(np.ptp(_edges(centres)))


def _area_mean(field: np.ndarray, latitude: np.ndarray) -> float:
    bounds = np.sin(np.deg2rad(np.clip(_edges(latitude), -90.0, 90.0)))
    weights = np.broadcast_to(np.abs(np.diff(bounds))[:, None], field.shape)
    valid = np.isfinite(field)
    return (
        float((field[valid] * weights[valid]).sum() / weights[valid].sum()) if valid.any() else float("nan")
    )
