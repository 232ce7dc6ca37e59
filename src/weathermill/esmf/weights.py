"""From two fields and options to weights: the part of `Regrid` that does not look like ESMPy."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

import numpy as np
from scipy import sparse

from weathermill.esmf import bilinear, conservative, geometry, nearest, patch
from weathermill.esmf.constants import ExtrapMethod, NormType, PoleMethod, RegridMethod
from weathermill.esmf.grid import Grid
from weathermill.esmf.provider import PROVIDER

logger = logging.getLogger("weathermill.esmf")


class Weights(NamedTuple):
    """A sparse matrix from source to destination values."""

    row: np.ndarray
    """int32, from 1: destination, ascending."""
    col: np.ndarray
    """int32, from 1: source, ascending in a row."""
    factor: np.ndarray
    """float64; zeros may be among them."""


class Options(NamedTuple):
    """How weights are made; the fields are the arguments of `Regrid`."""

    regrid_method: RegridMethod = RegridMethod.BILINEAR
    pole_method: PoleMethod | None = None
    norm_type: NormType = NormType.DSTAREA
    src_mask_values: object = None
    dst_mask_values: object = None
    ignore_degenerate: bool = False
    extrap_method: ExtrapMethod = ExtrapMethod.NONE
    extrap_dist_exponent: float = 2.0
    extrap_num_src_pnts: int = 8


def make_weights(source, target, options: Options) -> Weights:
    """Make the weights between two fields.

    Parameters
    ----------
    source, target : weathermill.esmf.field.Field
        From where and to where.
    options : Options
        How.

    Returns
    -------
    Weights

    Raises
    ------
    ValueError
        If the method does not suit the fields, or cells are degenerate.
    """
    started = time.perf_counter()
    method = RegridMethod(options.regrid_method)
    source_mask = geometry.mask_of(source, options.src_mask_values)
    target_mask = geometry.mask_of(target, options.dst_mask_values)
    if method == RegridMethod.CONSERVE:
        parts = [_conservative(source, target, options, source_mask, target_mask)]
    elif method in (RegridMethod.BILINEAR, RegridMethod.PATCH):
        parts = [_interpolating(source, target, options, source_mask, target_mask)]
    elif method == RegridMethod.NEAREST_STOD:
        points = geometry.points_of(source), geometry.points_of(target)
        parts = [nearest.nearest_source_weights(*points, source_mask, target_mask)]
    elif method == RegridMethod.NEAREST_DTOS:
        points = geometry.points_of(source), geometry.points_of(target)
        parts = [nearest.nearest_target_weights(*points, source_mask, target_mask)]
    else:
        raise ValueError(
            f"{method.name} is not implemented by weathermill.esmf; use conservative, bilinear, patch or a "
            "nearest method, or install ESMPy from conda-forge"
        )
    if options.extrap_method != ExtrapMethod.NONE:
        if method == RegridMethod.CONSERVE:
            raise ValueError("extrapolation is not for conservative weights")
        parts.append(_extrapolated(source, target, options, source_mask, target_mask, parts[0][0]))
    n_source, n_target = geometry.size_of(source), geometry.size_of(target)
    weights = _sorted(parts, n_source, n_target)
    logger.info(
        "%s made %d %s weights from %d to %d points in %.2f s",
        PROVIDER,
        len(weights.factor),
        method.name.lower(),
        n_source,
        n_target,
        time.perf_counter() - started,
    )
    return weights


def _sorted(parts, n_source, n_target) -> Weights:
    """Join pairs, add up those that are equal, and sort them by row and column."""
    row, col, factor = (np.concatenate(values) for values in zip(*parts, strict=True))
    matrix = sparse.coo_matrix((factor, (row, col)), shape=(n_target, n_source)).tocsr()
    matrix.sort_indices()
    row = np.repeat(np.arange(1, n_target + 1, dtype=np.int32), np.diff(matrix.indptr))
    return Weights(row, matrix.indices.astype(np.int32) + np.int32(1), matrix.data)


def _conservative(source, target, options, source_mask, target_mask):
    degenerate = bool(options.ignore_degenerate)
    cells = conservative.cell_mesh(
        *geometry.cells_of(source), source_mask, ignore_degenerate=degenerate, split=True, what="source"
    )
    target_cells = conservative.cell_mesh(
        *geometry.cells_of(target), target_mask, ignore_degenerate=degenerate, what="destination"
    )
    normalise = options.norm_type == NormType.FRACAREA
    return conservative.conservative_weights(cells, target_cells, normalise=normalise)


def _interpolating(source, target, options, source_mask, target_mask):
    points = geometry.points_of(target)
    active = np.ones(len(points), dtype=bool) if target_mask is None else ~target_mask
    mesh = geometry.node_mesh_of(source, poles=options.pole_method in (None, PoleMethod.ALLAVG))
    usable = bilinear.usable_elements(mesh, source_mask)
    owner, corner_weights = bilinear.locate_points(points, active, mesh, usable)
    if isinstance(source.grid, Grid):
        nx, ny = source.spatial_shape
        bilinear.settle_pole_points(
            owner,
            corner_weights,
            points,
            geometry.lonlat_of(target)[0],
            mesh,
            (ny, nx),
            geometry.lonlat_of(source)[0],
            usable,
            source.grid.num_peri_dims == 1,
        )
    if options.regrid_method == RegridMethod.PATCH:
        row, col, weight = patch.patch_weights(owner, corner_weights, mesh, usable)
    else:
        row, col, weight = bilinear.element_weights(owner, corner_weights, mesh)
    return bilinear.spread_poles(row, col, weight, mesh, source_mask)


def _extrapolated(source, target, options, source_mask, target_mask, mapped_rows):
    active = np.ones(geometry.size_of(target), dtype=bool) if target_mask is None else ~target_mask
    active[mapped_rows] = False
    points = geometry.points_of(source), geometry.points_of(target)
    if options.extrap_method == ExtrapMethod.NEAREST_STOD:
        return nearest.inverse_distance_weights(*points, active, source_mask, count=1)
    if options.extrap_method == ExtrapMethod.NEAREST_IDAVG:
        return nearest.inverse_distance_weights(
            *points,
            active,
            source_mask,
            count=options.extrap_num_src_pnts,
            exponent=options.extrap_dist_exponent,
        )
    raise ValueError(
        f"extrapolation by {ExtrapMethod(options.extrap_method).name} is not implemented by weathermill.esmf; "
        "use nearest_s2d or inverse_dist"
    )
