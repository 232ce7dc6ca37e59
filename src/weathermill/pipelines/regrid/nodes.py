"""Nodes of the regrid pipeline."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import xarray as xr

from weathermill.errors import GridError
from weathermill.fields.grids import grid_hash, grid_of, is_point_list, named_grid
from weathermill.fields.origins import trace_to_stored
from weathermill.fields.own_cells import same_points
from weathermill.fields.regrid_page import render_regrid_report, require_thresholds
from weathermill.fields.regridding import (
    RegridWeights,
    apply_weights,
    make_weights,
    regrid_report,
    weights_key,
)
from weathermill.fields.value_counts import attach_counts, counts_of
from weathermill.incremental.code import code_digest
from weathermill.parameters import RegridParameters

logger = logging.getLogger(__name__)


def choose_target_grid(fields: xr.Dataset, parameters: RegridParameters) -> xr.Dataset:
    """Make the target grid, or take that of the fields; refuse lists of points, which networks cannot take."""
    source = grid_of(fields)
    target = source if parameters.target is None else named_grid(parameters.target)
    if target is not source and same_points(source, target):
        # Values are means over the cells of the source, which regridding to others around the same points would blur.
        target = source
    if is_point_list(target):
        raise GridError(
            f"the network needs a latitude-longitude grid, and {target.attrs['grid']} is a list of points",
            remedy="Name a regular grid in `regrid.target`, such as 1deg, or N96 for the rows of O96.",
        )
    return target


def make_regrid_weights(
    fields: xr.Dataset, target: xr.Dataset, known: RegridWeights | None, parameters: RegridParameters
) -> RegridWeights:
    """Make the weights, or take the known ones if they are of these grids, mask and method."""
    source, method = grid_of(fields), parameters.method
    if grid_hash(source) == grid_hash(target):
        method = "nearest_s2d"  # the identity
    key = weights_key(source, target, method)
    if known is not None and known.key == key:
        logger.info("Regridding weights: %s, reused (made by %s)", key[:12], known.provider)
        return known
    return make_weights(source, target, method)


def regrid_fields(
    fields: xr.Dataset, weights: RegridWeights, target: xr.Dataset, parameters: RegridParameters
) -> xr.Dataset:
    """Apply the weights, lazily; fields that are on the target grid already stay as they are."""
    if grid_hash(grid_of(fields)) == grid_hash(target):
        regridded = fields.copy()
    else:
        regridded = apply_weights(fields, weights, target, vectors=parameters.vectors)
    attach_counts(regridded, counts_of(fields))
    # So that a store takes over the steps that it has already.
    content = hashlib.sha256(b"".join(a.tobytes() for a in (weights.row, weights.col, weights.s))).hexdigest()
    trace_to_stored(regridded, fields, [weights.key, content, parameters.vectors, code_digest(regrid_fields)])
    return regridded


def report_regridding(
    fields: xr.Dataset, regridded: xr.Dataset, weights: RegridWeights
) -> tuple[dict[str, Any], str]:
    """Measure what regridding did to the fields; as numbers and as a page with maps."""
    report = regrid_report(fields, regridded, weights)
    return report, render_regrid_report(report, fields, regridded)


def judge_regridding(report: dict[str, Any], parameters: RegridParameters) -> dict[str, float]:
    """Refuse a report that exceeds its thresholds; give the numbers that runs are compared by."""
    require_thresholds(report, parameters.thresholds)
    return {
        f"regrid/{measure}/{name}": value
        for name, measures in report["variables"].items()
        for measure, value in measures.items()
        if isinstance(value, float)
    }
