"""What regridding did to fields, in numbers: integrals, extremes, missing area, pole rows, resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr
from dask.system import CPU_COUNT

from weathermill.fields.geometry import has_pole_points
from weathermill.fields.grids import describe_grid, is_point_list, is_rectilinear
from weathermill.fields.map_sums import MapSums, map_sums
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
    pairs = {}
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
        pairs[name] = (before, after)
    looks = _look_at_all(pairs, positions, areas)
    variables = {name: _measure(looks[name], areas) for name in pairs}
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


class _Look(NamedTuple):
    """One map before and after."""

    before: MapSums
    after: MapSums
    pole_spread: float


def _largest(variables: dict[str, dict[str, Any]], key: str) -> float | None:
    values = [entry[key] for entry in variables.values() if entry[key] is not None]
    return max(values) if values else None


def _sample(fields: xr.Dataset, count: int) -> np.ndarray:
    n = fields.sizes.get("time", 1)
    return np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))


class _Areas:
    """Cell areas of both grids, and those over which integrals can be compared (None where not known)."""

    def __init__(self, weights: RegridWeights) -> None:
        self.sizes = weights.n_source, weights.n_target
        self.target_shape = weights.target_shape
        self.polar = is_rectilinear(weights.target) and has_pole_points(weights.target.latitude.values)
        self.exact = [grid_areas(grid) for grid in (weights.source, weights.target)]
        #: What shares of area and variances are weighted with.
        self.weights = [area if area.any() else np.ones_like(area) for area in self.exact]
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


def _worse(error: float | None, other: float | None) -> float | None:
    return other if error is None else (error if other is None else max(error, other))


def _look_at_all(
    pairs: Mapping[str, tuple[xr.DataArray, xr.DataArray]], positions: np.ndarray, areas: _Areas
) -> dict[str, list[_Look]]:
    """Look at the maps of all variables before and after: by name, step by step and level by level.

    What lies before and after is computed together, all sampled steps of one block of the source at once, so that
    nothing is read twice; memory holds one such block for each thread.
    """
    threads = int(dask.config.get("num_workers", None) or CPU_COUNT)
    with ThreadPoolExecutor(min(threads, max(1, len(pairs)))) as pool:
        looks = pool.map(lambda pair: _look_at_pair(*pair, positions, areas), pairs.values())
        return dict(zip(pairs, looks, strict=True))


def _look_at_pair(
    before: xr.DataArray, after: xr.DataArray, positions: np.ndarray, areas: _Areas
) -> list[_Look]:
    looks = []
    for steps in _blocks(before, positions):
        # In one graph, because what lies after is made of what lies before.
        looks += _look_at_steps(*dask.compute(_at(before, steps), _at(after, steps)), areas)
    return looks


def _blocks(field: xr.DataArray, positions: np.ndarray) -> Iterator[list[int]]:
    """Sampled steps, those together that lie in one block."""
    if "time" not in field.dims:
        yield [0]
        return
    chunks = field.chunksizes.get("time", (1,) * field.sizes["time"])
    block = np.searchsorted(np.cumsum(chunks), positions, side="right")
    for k in np.unique(block):
        yield positions[block == k].tolist()


def _at(field: xr.DataArray, steps: list[int]) -> Any:
    """(step, …) of the steps; those of a field without time are one."""
    if "time" not in field.dims:
        return field.data[None]
    return field.isel(time=steps).transpose("time", ...).data


def _look_at_steps(before: np.ndarray, after: np.ndarray, areas: _Areas) -> list[_Look]:
    """Look at some steps of one variable, level by level."""
    others = [
        [pair[end] for pair in (areas.shared, areas.shared_polygons) if pair is not None] for end in (0, 1)
    ]
    looks = []
    maps = (np.asarray(v).reshape(-1, n) for v, n in zip((before, after), areas.sizes, strict=True))
    for a, b in zip(*maps, strict=True):
        sums = map_sums(a, areas.weights[0], *others[0]), map_sums(b, areas.weights[1], *others[1])
        looks.append(_Look(*sums, _pole_spread(b, areas.target_shape) if areas.polar else 0.0))
    return looks


def _pole_spread(values: np.ndarray, shape: tuple[int, ...]) -> float:
    """The larger spread of both rows of points at the poles; zero where one of them has no value."""
    rows = values.reshape(shape)[[0, -1]].astype(np.float64)
    if np.isnan(rows).all(axis=1).any():
        return 0.0
    return float(np.nanmax(np.nanmax(rows, 1) - np.nanmin(rows, 1)))


def _relative_error(look: _Look, which: int) -> float | None:
    """The difference of two integrals, relative to that of the absolute value; None where unknown."""
    if look.before.gaps[which] or look.after.gaps[which]:
        return None
    scale = look.before.absolutes[which]
    return abs(look.after.integrals[which] - look.before.integrals[which]) / scale if scale > 0 else 0.0


def _measure(looks: Sequence[_Look], areas: _Areas) -> dict[str, Any]:
    low, high = [np.inf, np.inf], [-np.inf, -np.inf]
    variances = np.zeros(2)
    errors: dict[str, float | None] = {"shared": None, "shared_polygons": None}
    known = [name for name in errors if getattr(areas, name) is not None]
    pole_spread = 0.0
    for look in looks:
        ends = (look.before, look.after)
        if any(end.maximum < end.minimum for end in ends):
            continue
        for i, end in enumerate(ends):
            low[i], high[i] = min(low[i], end.minimum), max(high[i], end.maximum)
            variances[i] += end.variance
        for which, name in enumerate(known):
            errors[name] = _worse(errors[name], _relative_error(look, which))
        span = look.before.maximum - look.before.minimum
        if span > 0:
            pole_spread = max(pole_spread, look.pole_spread / span)
    missing = np.array([(look.before.missing, look.after.missing) for look in looks]).reshape(-1, 2)
    span = high[0] - low[0]
    beyond = max(0.0, low[0] - low[1], high[1] - high[0])
    return {
        "area_integral_error": errors["shared"],
        "conservation_error": errors["shared_polygons"],
        "minimum": [_number(v) for v in low],
        "maximum": [_number(v) for v in high],
        "overshoot": float(beyond / span) if np.isfinite(span) and span > 0 else 0.0,
        "missing_area": missing.mean(axis=0).tolist() if len(missing) else [0.0, 0.0],
        "variance_ratio": float(variances[1] / variances[0]) if variances[0] > 0 else None,
        "pole_row_spread": pole_spread if areas.polar else None,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
