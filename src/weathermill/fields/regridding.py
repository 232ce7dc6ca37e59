"""Regridding through xESMF: weights made once, applied lazily in blocks, and measured.

Weights come from the real ``xesmf.Regridder``, with what it leaves to the user settled from the grids: whether
they are periodic, corners clipped at the poles, a duplicated cyclic column. Applying them is ours: blocks along
time, float32 kept, unmapped points NaN, missing values neither spread by zero weights nor dilute coasts.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

import dask
import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import RegridWeightsError
from weathermill.fields.coordinates import find_coordinate
from weathermill.fields.findings import Finding, tell
from weathermill.fields.geometry import cyclic_duplicates, has_pole_points
from weathermill.fields.grids import grid_hash, grid_of, is_rectilinear
from weathermill.fields.own_cells import corners_of_grid, with_own_cells
from weathermill.fields.regrid_quality import regrid_report
from weathermill.fields.sparse_product import SparseOperator, promoted
from weathermill.fields.vectors import reaches_a_pole, rotate_weights, vector_pairs
from weathermill.fields.weight_making import grid_shape, make_weights, resolution_ratio
from weathermill.fields.weights import CONSERVATIVE, METHODS, RegridWeights, weights_key

__all__ = [
    "METHODS",
    "RegridWeights",
    "apply_weights",
    "make_weights",
    "operator_of",
    "regrid_report",
    "resolution_ratio",
    "weights_key",
]

#: Share of a target cell that must have data for it to get a value.
MINIMUM_VALID = 0.5


def operator_of(
    weights: RegridWeights,
    *,
    minimum_valid: float = MINIMUM_VALID,
    renormalise: bool | None = None,
    vectors: bool = False,
) -> SparseOperator:
    """Return the matrix that is applied.

    Conservative weights of cells that the source covers in part (a mask, the edge of a region) are divided by
    the covered share, so that values are not diluted, if that share is at least ``minimum_valid``; others
    become NaN. Weights of nearest_d2s, which ESMF leaves to add up, are divided by their sum.

    Parameters
    ----------
    weights
        From :func:`make_weights`.
    minimum_valid
        See above; also the share that must have data where values are missing.
    renormalise
        Whether valid points stand in for missing ones; by default for the conservative methods only.
    vectors
        True for the operator on ``[u, v]`` through three-dimensional tangent vectors.
    """
    row, col, s = weights.row.astype(np.int64) - 1, weights.col.astype(np.int64) - 1, weights.s
    if renormalise is None:
        renormalise = weights.method in CONSERVATIVE
    if weights.method == "nearest_d2s":
        # ESMF adds up all the source points that fall to a target; their mean is what a field has there.
        s = s / weights.row_sums()[row]
    if weights.method == "conservative":
        sums = weights.row_sums()
        scale = np.ones_like(sums)
        partial = sums < 1.0 - 1e-6
        scale[partial] = np.where(
            sums[partial] >= minimum_valid, 1.0 / np.maximum(sums[partial], 1e-300), 0.0
        )
        s = s * scale[row]
    base = s
    n_target, n_source = weights.n_target, weights.n_source
    if vectors:
        row, col, s, base = rotate_weights(row, col, s, weights.source, weights.target)
        n_target, n_source = 2 * n_target, 2 * n_source
    return SparseOperator(
        row,
        col,
        s,
        n_target=n_target,
        n_source=n_source,
        base=base,
        minimum_valid=minimum_valid,
        renormalise=renormalise,
    )


def apply_weights(
    fields: xr.Dataset,
    weights: RegridWeights,
    target: xr.Dataset | None = None,
    *,
    minimum_valid: float = MINIMUM_VALID,
    renormalise: bool | None = None,
    vectors: bool | Sequence[tuple[str, str]] = False,
    findings: MutableSequence[Finding] | None = None,
) -> xr.Dataset:
    """Regrid fields, lazily where they are lazy.

    Parameters
    ----------
    fields
        With the horizontal grid that the weights were made for. Variables without it pass through.
    weights
        From :func:`make_weights`.
    target
        The target grid, to be checked against the weights; theirs by default.
    minimum_valid, renormalise
        See :func:`operator_of`.
    vectors
        True to regrid known pairs of wind components through three-dimensional tangent vectors, or the pairs
        themselves. Near the poles, where east and north turn between neighbours, components by themselves mix.
    findings
        Where to record what was noticed, beside the log.

    Returns
    -------
    xarray.Dataset
        float32 stays float32 and float64 float64; integers are promoted. Dask arrays keep their chunks along
        other dimensions, and have one chunk in the horizontal.

    Raises
    ------
    RegridWeightsError
        Where the fields or the target are on another grid than the weights.
    """
    given, target = target, weights.target if target is None else grid_of(target)
    if given is not None and grid_hash(target) != weights.target_hash:
        raise RegridWeightsError("the weights were made for another target grid")
    fields = _without_cyclic_column(fields, findings)
    grid = grid_of(fields)
    if grid_hash(grid) != weights.source_hash:
        raise RegridWeightsError(
            f"the weights were made for another source grid, of {weights.source_shape} points; the fields have"
            f" {grid_shape(grid)}"
        )
    dims = _horizontal_dims(fields)
    settings = {"minimum_valid": minimum_valid, "renormalise": renormalise}
    operator = operator_of(weights, **settings)
    shared = dask.delayed(operator, name=f"regrid-{weights.key[:12]}-{minimum_valid}-{renormalise}")
    pairs = vector_pairs(fields, vectors)
    if not pairs and weights.method != "nearest_s2d" and is_rectilinear(target):
        winds = vector_pairs(fields, True)
        if winds and has_pole_points(target.latitude.values):
            tell(
                findings,
                "info",
                "regridding",
                "wind components are regridded as scalars, and mean little on the pole rows of the target",
                "Set vectors to true to regrid them through three-dimensional tangent vectors.",
            )
    if not pairs and weights.method != "nearest_s2d" and reaches_a_pole(grid) and vector_pairs(fields, True):
        tell(
            findings,
            "warning",
            "regridding",
            "wind components are regridded as scalars, while the source covers a pole, around which east and north turn"
            " between neighbours: they are wrong within a few cells of it",
            "Set vectors to true to regrid them through three-dimensional tangent vectors.",
        )
    split = [str(n) for n, v in fields.data_vars.items() if set(dims) <= set(v.dims) and _is_split(v, dims)]
    if split:
        tell(
            findings,
            "warning",
            "regridding",
            f"chunks divide latitude or longitude in {', '.join(split)}; they are joined, so that each block"
            " holds whole maps",
            "Chunk along time only.",
        )
    result: dict[str, xr.DataArray] = {}
    for name, field in fields.data_vars.items():
        if not set(dims) <= set(field.dims):
            if not set(dims) & set(field.dims):
                result[str(name)] = field
            continue
        if name not in {component for pair in pairs for component in pair}:
            result[str(name)] = _regrid(field, operator, shared, weights, target, dims)
    if pairs:
        operator = operator_of(weights, vectors=True, **settings)
        shared = dask.delayed(
            operator, name=f"regrid-vectors-{weights.key[:12]}-{minimum_valid}-{renormalise}"
        )
        for eastward, northward in pairs:
            both = xr.concat(
                [fields[eastward], fields[northward]], dim="component", coords="minimal", compat="override"
            )
            both = both.transpose(..., "component", *dims)
            both = _regrid(both, operator, shared, weights, target, ("component", *dims))
            for i, name in enumerate((eastward, northward)):
                result[name] = both.isel(component=i).rename(name).assign_attrs(fields[name].attrs)
    ordered = {str(name): result[str(name)] for name in fields.data_vars if str(name) in result}
    regridded = xr.Dataset(ordered, attrs=dict(fields.attrs))
    if is_rectilinear(target):
        regridded = with_own_cells(regridded, corners_of_grid(target))
    regridded.attrs["regridding"] = (
        f"{weights.method}, {'x'.join(map(str, weights.source_shape))} to"
        f" {'x'.join(map(str, weights.target_shape))}, weights {weights.key[:16]} by {weights.provider}"
    )
    return regridded


def _horizontal_dims(fields: xr.Dataset) -> tuple[str, ...]:
    latitude, longitude = (fields[find_coordinate(fields, axis)] for axis in ("latitude", "longitude"))
    if latitude.ndim == 2 or latitude.dims == longitude.dims:
        return tuple(map(str, latitude.dims))
    return str(latitude.dims[0]), str(longitude.dims[0])


def _without_cyclic_column(fields: xr.Dataset, findings: MutableSequence[Finding] | None) -> xr.Dataset:
    name = find_coordinate(fields, "longitude")
    if name is None or fields[name].ndim != 1 or len(_horizontal_dims(fields)) == 1:
        return fields
    duplicated = cyclic_duplicates(fields[name].values)
    if not duplicated.any():
        return fields
    tell(
        findings,
        "warning",
        "longitude",
        f"the fields repeat the meridian {float(fields[name].values[duplicated][0]):g}; the copy is left out",
    )
    return fields.isel({fields[name].dims[0]: np.flatnonzero(~duplicated)})


def _is_split(field: xr.DataArray, dims: tuple[str, ...]) -> bool:
    return field.chunks is not None and any(len(field.chunksizes[dim]) > 1 for dim in dims)


def _regrid(field, operator, shared, weights, target, dims) -> xr.DataArray:
    field = field.transpose(..., *dims)
    count = len(dims)
    shape = (2, *weights.target_shape) if dims[0] == "component" else weights.target_shape
    dtype = promoted(field.dtype)
    leading = field.ndim - count
    axes = leading + len(shape)
    if isinstance(field.data, da.Array):
        data = field.data.rechunk({axis: -1 for axis in range(leading, field.ndim)})
        regridded = da.map_blocks(
            _apply_block,
            data,
            operator=shared,
            count=count,
            shape=shape,
            dtype=dtype,
            chunks=(*data.chunks[:-count], *((n,) for n in shape)),
            drop_axis=list(range(axes, field.ndim)) or None,
            new_axis=list(range(field.ndim, axes)) or None,
            meta=np.empty((0,) * axes, dtype=dtype),
        )
    else:
        regridded = _apply_block(field.values, operator=operator, count=count, shape=shape)
    horizontal = ("latitude", "longitude") if is_rectilinear(target) else target.latitude.dims
    kept = {
        name: coordinate
        for name, coordinate in field.coords.items()
        if not set(coordinate.dims) & set(dims) and name not in ("latitude", "longitude")
    }
    out = xr.DataArray(
        regridded,
        dims=(*field.dims[:leading], *(("component",) if dims[0] == "component" else ()), *horizontal),
        coords=kept,
        name=field.name,
        attrs=field.attrs,
    )
    return out.assign_coords({axis: target[axis].variable for axis in ("latitude", "longitude")})


def _apply_block(
    block: np.ndarray, *, operator: SparseOperator, count: int, shape: tuple[int, ...]
) -> np.ndarray:
    leading = block.shape[: block.ndim - count]
    maps = block.reshape(-1, operator.n_source)
    return operator.apply(maps).reshape(*leading, *shape)
