"""The regrid report as a page with maps, and as a gate."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr

from weathermill.errors import GridError, ParameterError
from weathermill.fields.findings import Finding
from weathermill.fields.inspection_page import STYLE, environment
from weathermill.fields.vocabulary import convention_for

#: Measures of a report that a threshold may bound, and what each says.
MEASURES = {
    "area_integral_error": "relative change of the area integral, exact cell areas",
    "conservation_error": "relative change of the area integral, cells between great circles",
    "overshoot": "how far values go beyond the range of the source, relative to that range",
    "missing_area_gained": "share of the area that lost its values",
    "pole_row_spread": "spread along a pole row, relative to the range of the field",
}

#: Points along an axis of a map.
_DRAWN = 720

_TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Regrid report</title><style>{{ style }}
img{max-width:100%}</style></head>
<body>
<h1>Regrid report</h1>
<p>{{ summary }}</p>
{% if findings %}<h2>Findings</h2><table>
{% for f in findings %}<tr><td><span class="tag {{ f.severity }}">{{ f.severity }}</span></td>
<td><b>{{ f.subject }}</b></td><td>{{ f.message }}{% if f.remedy %}<br><span class="remedy">{{ f.remedy }}</span>
{% endif %}</td></tr>{% endfor %}</table>{% endif %}
<h2>Weights</h2>
<table>{% for key, value in facts %}<tr><th>{{ key }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<h2>Variables, over {{ steps }} sampled time steps</h2>
<table><tr><th>Variable</th><th class="n">Area integral error</th><th class="n">Conservation error</th>
<th class="n">Overshoot</th><th class="n">Variance after/before</th><th class="n">Pole row spread</th>
<th class="n">Missing area</th><th class="n">Minimum</th><th class="n">Maximum</th></tr>
{% for name, v in variables %}<tr><td>{{ name }}</td>
<td class="n">{{ v.area_integral_error | tiny }}</td><td class="n">{{ v.conservation_error | tiny }}</td>
<td class="n">{{ v.overshoot | tiny }}</td><td class="n">{{ v.variance_ratio | number }}</td>
<td class="n">{{ v.pole_row_spread | tiny }}</td>
<td class="n">{{ v.missing_area[0] | percent or "0" }} → {{ v.missing_area[1] | percent or "0" }}</td>
<td class="n">{{ v.minimum[0] | number }} → {{ v.minimum[1] | number }}</td>
<td class="n">{{ v.maximum[0] | number }} → {{ v.maximum[1] | number }}</td></tr>
{% endfor %}</table>
<p class="remedy">Before → after. Integrals: the largest difference over the sample, relative to the integral of the absolute value.
ESMF takes cells as polygons between great circles, over which its conservative methods keep the integral; cells
between circles of latitude, which area means elsewhere use, differ from them by the square of the cell width.</p>
{% for title, picture in maps %}<h2>{{ title }}</h2><img alt="{{ title }}" src="data:image/png;base64,{{ picture }}">
{% endfor %}
</body></html>
"""


def judge_regrid_report(report: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[Finding]:
    """Compare a report with thresholds.

    Parameters
    ----------
    report
        From :func:`weathermill.fields.regridding.regrid_report`.
    thresholds
        Measure -> largest value allowed; for the measures see ``MEASURES``.

    Returns
    -------
    list of Finding
        One error for each variable and measure that exceeds its threshold. Measures that are not known for a
        variable (None) pass.

    Raises
    ------
    ParameterError
        For an unknown measure.
    """
    unknown = sorted(set(thresholds) - set(MEASURES))
    if unknown:
        raise ParameterError(
            f"thresholds for {', '.join(unknown)} are unknown; there are {', '.join(MEASURES)}"
        )
    findings = []
    for name, measured in report["variables"].items():
        before, after = measured["missing_area"]
        values = {**measured, "missing_area_gained": max(0.0, after - before)}
        for measure, limit in thresholds.items():
            value = values[measure]
            if value is not None and value > limit:
                findings.append(
                    Finding(
                        "error",
                        name,
                        f"{MEASURES[measure]}: {value:.3g}, above the threshold of {limit:g}",
                        f"Choose another method or target grid, or raise `regrid.thresholds.{measure}`.",
                    )
                )
    return findings


def require_thresholds(report: Mapping[str, Any], thresholds: Mapping[str, float]) -> None:
    """Raise where a report exceeds thresholds.

    Raises
    ------
    GridError
        Naming every variable and measure that does.
    """
    findings = judge_regrid_report(report, thresholds)
    if findings:
        raise GridError(
            "regridding fails its gate: " + "; ".join(f"{f.subject}: {f.message}" for f in findings),
            remedy=findings[0].remedy,
        )


def render_regrid_report(
    report: Mapping[str, Any],
    source: xr.Dataset,
    regridded: xr.Dataset,
    *,
    findings: Sequence[Finding] = (),
    maps: int = 4,
) -> str:
    """Return the report as a page that stands alone, with maps before and after.

    Parameters
    ----------
    report
        From :func:`weathermill.fields.regridding.regrid_report`.
    source, regridded
        The fields before and after; one time step of each variable that is drawn is read.
    findings
        To be shown beside those of the report.
    maps
        How many variables to draw.
    """
    step = report["sampled_steps"][len(report["sampled_steps"]) // 2] if report["sampled_steps"] else 0
    if any(len(report[f"{end}_grid"]["shape"]) == 1 for end in ("source", "target")):
        maps = 0  # A list of points is no map.
    names = list(report["variables"])[:maps]
    # Together, because what lies after is made of what lies before.
    drawn = dask.compute(*((_one_map(source[name], step), _one_map(regridded[name], step)) for name in names))
    pictures = [
        (_title(name, before), _picture(name, before, after))
        for name, (before, after) in zip(names, drawn, strict=True)
    ]
    ratio = report["effective_resolution_ratio"]
    grids = [" x ".join(map(str, report[f"{end}_grid"]["shape"])) for end in ("source", "target")]
    summary = f"{report['method']} from {grids[0]} to {grids[1]} points, weights by {report['provider']}."
    if ratio is not None:
        summary += f" Target cells are {ratio:.3g} times as wide as source cells."
    facts = [
        ("key", report["weights_key"]),
        ("number of weights", report["number_of_weights"]),
        ("target points without a value", report["unmapped_points"]),
        ("time to make them", f"{report['seconds_weights']} s"),
        ("source grid", _grid_text(report["source_grid"])),
        ("target grid", _grid_text(report["target_grid"])),
    ]
    templates = environment()
    templates.filters["tiny"] = lambda value: (
        "–" if value is None else ("0" if value == 0 else f"{value:.2g}")
    )
    return templates.from_string(_TEMPLATE).render(
        style=STYLE,
        summary=summary,
        findings=[*(Finding(**entry) for entry in report.get("findings", [])), *findings],
        facts=facts,
        steps=len(report["sampled_steps"]),
        variables=list(report["variables"].items()),
        maps=pictures,
    )


def _grid_text(grid: Mapping[str, Any]) -> str:
    text = f"{grid['kind']}, {' x '.join(map(str, grid['shape']))}"
    if "pole_points" in grid:
        around = ", all longitudes" if grid["global_longitude"] else ", a region"
        text += ", global" if grid.get("global", grid["global_longitude"]) else around
        text += " with points on the poles" if grid["pole_points"] else ""
    return f"{text}, {grid['hash'][:16]}"


def _one_map(field: xr.DataArray, step: int) -> xr.DataArray:
    if "time" in field.dims:
        field = field.isel(time=min(step, field.sizes["time"] - 1))
    if "level" in field.dims:
        field = field.isel(level=field.sizes["level"] // 2)
    return field


def _title(name: str, field: xr.DataArray) -> str:
    parts = [name.replace("_", " ")]
    if "level" in field.coords:
        parts.append(f"{float(field['level']):g} hPa")
    if "time" in field.coords:
        parts.append(str(field["time"].values)[:16])
    return ", ".join(parts)


def _picture(name: str, before: xr.DataArray, after: xr.DataArray) -> str:
    """Return two maps side by side on one scale of colours, as base64 of a PNG."""
    # Half a second to import, which every command would pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    finite = np.concatenate([values[np.isfinite(values)] for values in (before.values, after.values)])
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    signed = low < 0 < high and -low > 0.2 * high and high > 0.2 * -low
    if signed:
        high = max(-low, high)
        low = -high
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    mesh = None
    for axis, field, label in zip(axes, (before, after), ("before", "after"), strict=True):
        # A picture of some four hundred dots shows no more.
        shown = field[tuple(slice(None, None, max(1, n // _DRAWN)) for n in field.shape)]
        mesh = axis.pcolormesh(
            shown["longitude"].values,
            shown["latitude"].values,
            shown.values,
            vmin=low,
            vmax=high,
            cmap="RdBu_r" if signed else "viridis",
            shading="nearest",
            rasterized=True,
        )
        axis.set(
            xlabel="longitude (°E)",
            ylabel="latitude (°N)",
            title=f"{label}, {' x '.join(map(str, field.shape))}",
        )
    convention = convention_for(name)
    units = before.attrs.get("units", convention.units if convention else "")
    figure.colorbar(mesh, ax=axes, label=str(units).replace("$", ""), shrink=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
