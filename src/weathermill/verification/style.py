"""One look for all figures: colour-blind safe, sized for a printed page, drawn without a display."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Okabe & Ito (2008), distinguishable with every common colour vision deficiency; dashes tell them apart in
#: grey.
SOURCE_STYLES = {
    "forecast": {"color": "#0072B2", "linestyle": "-", "linewidth": 1.8, "zorder": 4},
    "persistence": {"color": "#D55E00", "linestyle": "--", "linewidth": 1.3, "zorder": 3},
    "climatology": {"color": "#595959", "linestyle": "-.", "linewidth": 1.3, "zorder": 2},
    "regression": {"color": "#009E73", "linestyle": ":", "linewidth": 1.6, "zorder": 3},
}
OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000")
_RC = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "svg.fonttype": "none",
    "axes.formatter.limits": (-3, 5),
    "axes.formatter.use_mathtext": True,
    "mathtext.default": "regular",
}


def styled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a plotting function under the common style, and leave the caller's settings as they were."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.rc_context(_RC):
            return function(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> Figure:
    """Return a figure (inches) outside pyplot: threads do not meet, and nothing must be closed."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def source_style(name: str, position: int = 0) -> dict[str, Any]:
    """Return the line style of a source of forecasts."""
    other = {
        "color": OTHER_COLOURS[position % len(OTHER_COLOURS)],
        "linestyle": "-",
        "linewidth": 1.3,
        "zorder": 3,
    }
    return SOURCE_STYLES.get(name, other)


def figure_png(figure: Figure, dpi: int = 130) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def figure_data_uri(figure: Figure, dpi: int = 130) -> str:
    """Return a figure as a data URI, to embed in a page."""
    return "data:image/png;base64," + base64.b64encode(figure_png(figure, dpi)).decode("ascii")


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Write a figure (PNG, PDF or SVG by the suffix) under a temporary name, then put it in place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with matplotlib.rc_context(_RC):
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png", dpi=dpi)
    partial.replace(path)
    return path
