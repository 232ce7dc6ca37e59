"""What regridding did to fields, in numbers: integrals, extremes, missing area, pole rows, resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from weathermill.fields.geometry import has_pole_points
from weathermill.fields.grids import describe_grid, is_point_list, is_rectilinear
from weathermill.fields.vocabulary import CONVENTIONS
from weathermill.fields.weight_making import resolution_ratio
from weathermill.fields.weights import RegridWeights, grid_areas

#: Time steps that are looked at: evenly spaced, the first and last among them.
SAMPLE_STEPS = 8


def regrid_report(
    source: xr.Dataset,
    regridded: xr.Dataset,
    weights: RegridWeights,
    *,
    sample_steps: int = SAMPLE_STEPS,
) -> dict[str, Any]:
    """Compare fields before and after regridding on a sample of time steps.

    Parameters
    ----------
    source, regridded
        Fields before and after, with the same variables and times.
    weights
        Those that were applied.
    sample_steps
        How many time steps to look at.

    Returns
    -------
    dict
        JSON-able. ``findings`` is what there was to say of the weights; ``variables`` holds by name, over the sample and all levels:

        ``area_integral_error``
            the largest difference of the area integrals with exact cell areas, relative to the integral of
            the absolute value; None unless both grids cover the sphere.
        ``conservation_error``
            the same with cells between great circles, which are those that ESMF conserves over; also for
            grids that share only a part of the sphere.
        ``minimum``, ``maximum``
            ``[before, after]``.
        ``overshoot``
            how far values after lie beyond the range before, relative to that range; 0 for monotone methods.
        ``missing_area``
            ``[before, after]``: the share of the area that is NaN.
        ``variance_ratio``
            area-weighted variance after over before: what smoothing took.
        ``pole_row_spread``
            on grids with pole points, the spread along the outermost rows relative to the range of the field:
            a scalar has one value at a pole; None otherwise.
    """
    areas = _Areas(weights)
    positions = _sample(source, sample_steps)
    variables = {}
    # Stores do not keep the order of variables; a report reads the same each time.
    order = {name: i for i, name in enumerate(CONVENTIONS)}
    for name in sorted(map(str, regridded.data_vars), key=lambda n: (order.get(n, len(order)), n)):
        after = regridded[name]
        before = source.get(str(name))
        if before is None or (is_point_list(weights.target) and after.dims[-1:] != ("points",)):
            continue
        if not all(
            field.shape[-len(shape) :] == shape
            for field, shape in ((before, weights.source_shape), (after, weights.target_shape))
        ):
            continue
        variables[str(name)] = _measure(before, after, weights, areas, positions)
    return {
        "method": weights.method,
        "provider": weights.provider,
        "weights_key": weights.key,
        "source_grid": describe_grid(weights.source) | {"hash": weights.source_hash},
        "target_grid": describe_grid(weights.target) | {"hash": weights.target_hash},
        "number_of_weights": int(weights.s.size),
        "unmapped_points": int((~weights.mapped()).sum()),
        "effective_resolution_ratio": resolution_ratio(weights),
        "seconds_weights": weights.attrs.get("seconds"),
        "findings": list(weights.attrs.get("findings", [])),
        "sampled_steps": [int(i) for i in positions],
        "largest_area_integral_error": _largest(variables, "area_integral_error"),
        "largest_conservation_error": _largest(variables, "conservation_error"),
        "largest_overshoot": _largest(variables, "overshoot"),
        "variables": variables,
    }


def _largest(variables: dict[str, dict[str, Any]], key: str) -> float | None:
    values = [entry[key] for entry in variables.values() if entry[key] is not None]
    return max(values) if values else None


def _sample(fields: xr.Dataset, count: int) -> np.ndarray:
    n = fields.sizes.get("time", 1)
    return np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))


class _Areas:
    """Cell areas of both grids, and those over which integrals can be compared (None where not known)."""

    def __init__(self, weights: RegridWeights) -> None:
        self.exact = [grid_areas(grid) for grid in (weights.source, weights.target)]
        self.polygons = [grid_areas(grid, great_circles=True) for grid in (weights.source, weights.target)]
        self.shared: list[np.ndarray] | None = None
        self.shared_polygons: list[np.ndarray] | None = None
        spheres = all(abs(area.sum() - 4 * np.pi) < 1e-6 for area in self.exact)
        if spheres and weights.mask is None:
            self.shared = self.exact
            self.shared_polygons = self.polygons if all(area.any() for area in self.polygons) else None
        elif weights.method == "conservative" and all(area.any() for area in self.polygons):
            overlap = weights.s * self.polygons[1][weights.row - 1]
            self.shared_polygons = [
                np.bincount(weights.col - 1, overlap, minlength=weights.n_source),
                np.bincount(weights.row - 1, overlap, minlength=weights.n_target),
            ]


def _integral_error(a: np.ndarray, b: np.ndarray, areas: list[np.ndarray] | None) -> float | None:
    """Return the difference of two integrals, relative to that of the absolute value; None where unknown."""
    if areas is None or np.isnan(a[areas[0] > 0]).any() or np.isnan(b[areas[1] > 0]).any():
        return None
    total = float(np.nan_to_num(a) @ areas[0])
    scale = float(np.abs(np.nan_to_num(a)) @ areas[0])
    return abs(float(np.nan_to_num(b) @ areas[1]) - total) / scale if scale > 0 else 0.0


def _worse(error: float | None, other: float | None) -> float | None:
    return other if error is None else (error if other is None else max(error, other))


def _measure(before, after, weights, areas, positions) -> dict[str, Any]:
    area_a, area_b = (area if area.any() else np.ones_like(area) for area in areas.exact)
    error = polygon_error = None
    low, high = [np.inf, np.inf], [-np.inf, -np.inf]
    missing = np.zeros(2)
    variances = np.zeros(2)
    pole_spread = 0.0
    count = 0
    polar = is_rectilinear(weights.target) and has_pole_points(weights.target.latitude.values)
    steps = positions if "time" in before.dims else [None]
    for position in steps:
        x, y = (_maps(field, position, n) for field, n in ((before, area_a.size), (after, area_b.size)))
        for k in range(x.shape[0]):
            a, b = x[k].astype(np.float64), y[k].astype(np.float64)
            count += 1
            gone_a, gone_b = np.isnan(a), np.isnan(b)
            missing += (
                area_a[gone_a].sum() / area_a.sum(),
                area_b[gone_b].sum() / area_b.sum(),
            )
            if gone_a.all() or gone_b.all():
                continue
            for i, values in enumerate((a, b)):
                low[i], high[i] = min(low[i], np.nanmin(values)), max(high[i], np.nanmax(values))
            variances += _variance(a, area_a), _variance(b, area_b)
            error = _worse(error, _integral_error(a, b, areas.shared))
            polygon_error = _worse(polygon_error, _integral_error(a, b, areas.shared_polygons))
            if polar:
                rows = b.reshape(weights.target_shape)[[0, -1]]
                span = np.nanmax(a) - np.nanmin(a)
                if span > 0 and not np.isnan(rows).all(axis=1).any():
                    pole_spread = max(
                        pole_spread, float(np.nanmax(np.nanmax(rows, 1) - np.nanmin(rows, 1)) / span)
                    )
    span = high[0] - low[0]
    beyond = max(0.0, low[0] - low[1], high[1] - high[0])
    return {
        "area_integral_error": error,
        "conservation_error": polygon_error,
        "minimum": [_number(v) for v in low],
        "maximum": [_number(v) for v in high],
        "overshoot": float(beyond / span) if np.isfinite(span) and span > 0 else 0.0,
        "missing_area": [float(v) for v in missing / max(1, count)],
        "variance_ratio": float(variances[1] / variances[0]) if variances[0] > 0 else None,
        "pole_row_spread": pole_spread if polar else None,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _maps(field: xr.DataArray, position: int | None, size: int) -> np.ndarray:
    values = np.asarray((field if position is None else field.isel(time=int(position))).values)
    return values.reshape(-1, size)


def _variance(values: np.ndarray, areas: np.ndarray) -> float:
    valid = ~np.isnan(values)
    weight = areas[valid] / areas[valid].sum()
    mean = values[valid] @ weight
    return float(((values[valid] - mean) ** 2) @ weight)
