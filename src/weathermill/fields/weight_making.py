"""Making regridding weights with xESMF, and judging them."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import MutableSequence
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import GridError, ParameterError
from weathermill.extent import reaches_poles
from weathermill.fields.cell_vertices import repeated_cells, unit_vectors
from weathermill.fields.findings import Finding, tell
from weathermill.fields.geometry import is_global_longitude, octahedral_number
from weathermill.fields.grids import (
    grid_corners,
    grid_hash,
    grid_of,
    grid_points,
    is_point_list,
    is_rectilinear,
)
from weathermill.fields.weights import CONSERVATIVE, METHODS, RegridWeights, weights_key

logger = logging.getLogger(__name__)


def make_weights(
    source: xr.Dataset,
    target: xr.Dataset,
    method: str,
    *,
    mask: np.ndarray | xr.DataArray | None = None,
    findings: MutableSequence[Finding] | None = None,
    **options: Any,
) -> RegridWeights:
    """Make regridding weights with ``xesmf.Regridder``.

    Parameters
    ----------
    source, target
        Grids, or datasets that have one: rectilinear, curvilinear with two-dimensional coordinates, or a list of
        points (a reduced grid): as a target for all but the conservative methods, as a source for the nearest ones.
    method
        ``bilinear``, ``conservative``, ``conservative_normed``, ``nearest_s2d``, ``nearest_d2s`` or ``patch``.
    mask
        Of the source's shape, True or 1 where data is valid.
    findings
        Where to record what was noticed, beside the log.
    options
        Handed on to xESMF: ``extrap_method``, ``extrap_dist_exponent``, ``extrap_num_src_pnts``,
        ``ignore_degenerate``.

    Returns
    -------
    RegridWeights
        Sorted by target, then source.

    Raises
    ------
    GridError
        Where the grids do not fit the method, or ESMPy refuses them.
    ParameterError
        For an unknown method.
    """
    if method not in METHODS:
        raise ParameterError(f"the regridding method {method!r} is unknown; there are {', '.join(METHODS)}")
    source, target = grid_of(source, findings=findings), grid_of(target, findings=findings)
    _require_method_for_points(source, target, method)
    valid = None if mask is None else np.asarray(mask) != 0
    if valid is not None and valid.shape != grid_shape(source):
        raise GridError(f"the mask has the shape {valid.shape}, the source grid {grid_shape(source)}")
    import xesmf

    from weathermill.esmf import provider_name

    provider = provider_name()
    told: list[Finding] = []
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input array is not F_CONTIGUOUS")
        try:
            regridder = xesmf.Regridder(
                _for_xesmf(source, method, _without_repeated_cells(source, method, valid, told)),
                _for_xesmf(target, method, None),
                method,
                periodic=_is_periodic(source),
                locstream_in=is_point_list(source),
                locstream_out=is_point_list(target),
                **options,
            )
        except (ValueError, RuntimeError, AssertionError, KeyError) as error:
            raise GridError(
                f"xESMF cannot make {method} weights from {grid_shape(source)} to {grid_shape(target)}: {error}",
                remedy="Check that both grids are valid, or choose another method.",
            ) from error
    matrix = regridder.weights.data
    row, col = np.asarray(matrix.coords, dtype=np.int64)
    values = np.asarray(matrix.data, dtype=np.float64)
    if method in ("bilinear", "patch") and not options.get("extrap_method"):
        kept = _between_rows(source, target)[row]
        row, col, values = row[kept], col[kept], values[kept]
    if valid is not None and is_point_list(source):
        col = np.flatnonzero(valid)[col]
    order = np.lexsort((col, row))
    seconds = time.perf_counter() - started
    weights = RegridWeights(
        row=(row[order] + 1).astype(np.int32),
        col=(col[order] + 1).astype(np.int32),
        s=values[order],
        source_shape=grid_shape(source),
        target_shape=grid_shape(target),
        method=method,
        key=weights_key(source, target, method, valid, **options),
        source_hash=grid_hash(source),
        target_hash=grid_hash(target),
        provider=provider,
        source=source,
        target=target,
        mask=None if valid is None else valid.astype(np.int32),
        attrs={"seconds": round(seconds, 3), "xesmf": xesmf.__version__, **options},
    )
    weights.validate()
    logger.info(
        "Regridding weights: %s, %s to %s, %d weights by %s in %.1f s",
        method,
        weights.source_shape,
        weights.target_shape,
        weights.s.size,
        provider,
        seconds,
    )
    _judge(weights, told)
    # Weights are kept and reused: what is to be said of them stays with them.
    weights.attrs["findings"] = [finding.to_dict() for finding in told]
    if findings is not None:
        findings.extend(told)
    return weights


def _require_method_for_points(source: xr.Dataset, target: xr.Dataset, method: str) -> None:
    """Refuse methods that need cells, or neighbours of the source, where there are points alone."""
    if is_point_list(target) and method in CONSERVATIVE:
        raise GridError(
            f"{method} averages over cells, and the target {target.attrs['grid']} is a list of points without cell"
            " corners",
            remedy="Interpolate to it (bilinear, patch, nearest_s2d), or name a regular grid such as 1deg or N80.",
        )
    if is_point_list(source) and not method.startswith("nearest"):
        raise GridError(
            f"{method} needs to know which points are neighbours, and the source {source.attrs['grid']} is a list of"
            " points",
            remedy="Use nearest_s2d, or bring the data to a regular grid first (ECMWF's MARS and CDO do).",
        )


def grid_shape(grid: xr.Dataset) -> tuple[int, ...]:
    """Return (latitude, longitude), (y, x) or (points,) sizes."""
    if grid.latitude.ndim == 2 or is_point_list(grid):
        return tuple(grid.latitude.shape)
    return grid.latitude.size, grid.longitude.size


def _for_xesmf(grid: xr.Dataset, method: str, valid: np.ndarray | None) -> xr.Dataset:
    """Return a grid under the names that xESMF looks for first, with corners where the method needs them."""
    if is_point_list(grid):
        # xESMF has no masks for these: what is masked is not handed to it.
        kept = slice(None) if valid is None else valid
        return xr.Dataset(
            coords={
                "lat": ("points", grid.latitude.values[kept]),
                "lon": ("points", grid.longitude.values[kept]),
            }
        )
    dims = (("lat",), ("lon",)) if grid.latitude.ndim == 1 else (("y", "x"), ("y", "x"))
    coords: dict[str, Any] = {
        "lat": (dims[0], grid.latitude.values),
        "lon": (dims[1], grid.longitude.values),
    }
    if method in CONSERVATIVE:
        rows, columns = grid_corners(grid)
        corner_dims = (("lat_b",), ("lon_b",)) if rows.ndim == 1 else (("y_b", "x_b"), ("y_b", "x_b"))
        coords["lat_b"], coords["lon_b"] = (corner_dims[0], rows), (corner_dims[1], columns)
    dataset = xr.Dataset(coords=coords)
    if valid is not None:
        dataset["mask"] = (("lat", "lon") if grid.latitude.ndim == 1 else ("y", "x"), valid.astype(np.int32))
    return dataset


def _without_repeated_cells(
    grid: xr.Dataset, method: str, valid: np.ndarray | None, findings: MutableSequence[Finding]
) -> np.ndarray | None:
    """Return the mask without cells that repeat others (the halo of an ocean grid), which would count twice."""
    if method not in CONSERVATIVE or grid.latitude.ndim == 1:
        return valid
    repeated = repeated_cells(*grid_corners(grid))
    if not repeated.any():
        return valid
    tell(
        findings,
        "info",
        "regridding",
        f"{int(repeated.sum())} cells of the source repeat others, and are left out, so that no area counts twice",
    )
    return ~repeated if valid is None else valid & ~repeated


def _between_rows(source: xr.Dataset, target: xr.Dataset) -> np.ndarray:
    """Return which target points do not lie beyond the last rows of a source that ends short of a pole; bool (points,).

    ESMF closes every grid that goes round the circle by a point on each pole, the mean of the last row: on a band of
    latitudes that would make up values for the polar caps, which the source does not hold.
    """
    latitude, _ = grid_points(target)
    inside = np.ones(latitude.size, dtype=bool)
    if not is_rectilinear(source) or not is_global_longitude(source.longitude.values):
        return inside
    rows = source.latitude.values
    for row, pole in zip(rows[[0, -1]], reaches_poles(rows), strict=True):
        if not pole:
            beyond = latitude - row if row == rows.max() else row - latitude
            inside &= beyond <= 1e-9
    return inside


def _is_periodic(grid: xr.Dataset) -> bool:
    """Whether the last column neighbours the first: by longitude, or by distance on a curvilinear grid."""
    if is_point_list(grid):
        return False
    if grid.longitude.ndim == 1:
        return is_global_longitude(grid.longitude.values)
    points = unit_vectors(grid.latitude.values, grid.longitude.values)
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    seam = np.linalg.norm(points[:, 0] - points[:, -1], axis=-1)
    return bool(np.median(seam / np.maximum(np.median(steps, axis=1), 1e-12)) < 1.5)


def _judge(weights: RegridWeights, findings: MutableSequence[Finding] | None) -> None:
    """Tell what a user should know of these weights: no detail made, detail aliased, coasts diluted."""
    mapped = weights.mapped()
    covered = weights.row_sums().max(initial=0.0)
    if weights.method == "conservative" and covered > 1.0 + 1e-3:
        raise GridError(
            f"cells of the source overlap: they cover target cells up to {covered:.3g} times",
            where=str(weights.source.attrs.get("grid", "")),
            remedy="Correct the vertices, or use a method that needs none: bilinear, patch, nearest_s2d.",
        )
    if not mapped.any():
        raise GridError(
            "no target point lies within the source grid"
            + (", as far as the mask leaves it" if weights.mask is not None else ""),
            remedy="Choose a target that overlaps the source.",
        )
    if not mapped.all():
        reason = "they lie outside the source grid"
        if weights.method == "nearest_d2s":
            reason = "they are nearest to no source point"
        elif weights.mask is not None:
            reason += " or where it is masked"
        tell(
            findings,
            "warning",
            "regridding",
            f"{int((~mapped).sum())} of {mapped.size} target points get no value: {reason}",
            "Choose a smaller or coarser target, or the method nearest_s2d.",
        )
    ratio = resolution_ratio(weights)
    if ratio is not None and ratio < 0.95:
        tell(
            findings,
            "warning",
            "regridding",
            f"the source is {1 / ratio:.3g} times coarser than the target: interpolation makes no detail",
            "Choose a target no finer than the source.",
        )
    if weights.method not in (*CONSERVATIVE, "nearest_d2s") and ratio is not None and ratio > 1.2:
        used = np.unique(weights.col[np.abs(weights.s) > 1e-9]).size / weights.n_source
        single = _share_of_copies(weights)
        remedy = "Use the method conservative, which averages over cells."
        if is_point_list(weights.source) or is_point_list(weights.target):
            remedy = "Choose a finer target."
        if single > 0.9:
            tell(
                findings,
                "warning",
                "regridding",
                f"{weights.method} takes every target value from one source point: this is plain subsampling,"
                f" and {100 * (1 - used):.0f} % of the source points count for nothing",
                remedy,
            )
        elif used < 0.75:
            tell(
                findings,
                "warning",
                "regridding",
                f"{100 * (1 - used):.0f} % of the source points count for nothing with {weights.method}: detail"
                " finer than the target is aliased",
                remedy,
            )
    if weights.mask is not None and weights.method == "conservative":
        tell(
            findings,
            "info",
            "regridding",
            "cells that the mask covers in part are renormalised when the weights are applied, so that coasts"
            " are not diluted",
        )


def _share_of_copies(weights: RegridWeights) -> float:
    largest = np.zeros(weights.n_target)
    np.maximum.at(largest, weights.row - 1, weights.s)
    mapped = weights.mapped()
    return float((largest[mapped] > 0.999).mean()) if mapped.any() else 0.0


def resolution_ratio(weights: RegridWeights) -> float | None:
    """Return the linear size of target cells over that of source cells (above 1: the target is coarser)."""
    sizes = []
    for grid in (weights.source, weights.target):
        if grid.latitude.ndim == 2:
            steps = np.diff(unit_vectors(grid.latitude.values, grid.longitude.values), axis=0)
            sizes.append(np.degrees(np.median(np.linalg.norm(steps, axis=-1))))
        elif is_point_list(grid):
            n = octahedral_number(grid.latitude.values, grid.longitude.values)
            if n is None:
                return None
            # Between rows, and along the rows at the equator.
            sizes.append(float(np.sqrt(90.0 / n * 360.0 / (4 * n + 16))))
        else:
            latitude, longitude = grid.latitude.values, grid.longitude.values
            if min(latitude.size, longitude.size) < 2:
                return None
            sizes.append(
                float(np.sqrt(np.median(np.abs(np.diff(latitude))) * np.median(np.abs(np.diff(longitude)))))
            )
    return float(sizes[1] / sizes[0])
