"""Reduced Gaussian grids, whose rows have fewer points towards the poles: refused, or expanded row by row."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from weathermill.fields.coordinates import (
    LATITUDE,
    LONGITUDE,
    REDUCED,
    find_coordinate,
    reduced_grid_error,
)
from weathermill.fields.findings import Finding, tell
from weathermill.fields.opening import OpenedSources
from weathermill.fields.rows import RowExpansion, rows_of

Policy = Literal["refuse", "expand"]


class _ExpandedArray(BackendArray):
    """(..., latitude, longitude) of a variable whose last dimension counts points, expanded as it is read."""

    def __init__(self, variable: xr.Variable, expansion: RowExpansion) -> None:
        self.variable = variable
        self.expansion = expansion
        self.shape = (*variable.shape[:-1], len(expansion.counts), expansion.columns)
        self.dtype = np.dtype(variable.dtype if variable.dtype.kind == "f" else np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        values = self.variable[(*key[:-2], slice(None))].values.astype(self.dtype, copy=False)
        maps = self.expansion(values)
        # One after the other: two lists of positions at once would pick single points.
        columns = maps[..., key[-1]]
        return (
            columns[..., key[-2], :] if not isinstance(key[-1], int | np.integer) else columns[..., key[-2]]
        )


def _expanded(dataset: xr.Dataset) -> xr.Dataset | None:
    """Return a dataset of points as one on the full grid, lazily; None where it is none."""
    found = [find_coordinate(dataset, axis) for axis in (LATITUDE, LONGITUDE)]
    if None in found or any(dataset[one].ndim != 1 for one in found):
        return None
    latitude, longitude = (dataset[one] for one in found)
    if latitude.dims != longitude.dims:
        return None
    rows = rows_of(latitude.values, longitude.values)
    if rows is None:
        return None
    (points,) = latitude.dims
    expansion = rows[1]
    variables = {}
    for key, variable in dataset.variables.items():
        if points not in variable.dims or variable.dtype.kind not in "fiu" or key in found:
            continue
        moved = variable.transpose(..., points)
        data = indexing.LazilyIndexedArray(_ExpandedArray(moved, expansion))
        full = xr.Variable((*moved.dims[:-1], LATITUDE, LONGITUDE), data, variable.attrs)
        chunks = variable.encoding.get("preferred_chunks", {})
        full.encoding = {
            k: v for k, v in variable.encoding.items() if k in ("dtype", "scale_factor", "units")
        }
        full.encoding["preferred_chunks"] = {d: n for d, n in chunks.items() if d != points}
        variables[key] = full
    kept = dataset.drop_dims(points)
    axes = {
        LATITUDE: (LATITUDE, rows[0], {"units": "degrees_north"}),
        LONGITUDE: (
            LONGITUDE,
            np.arange(expansion.columns) * 360.0 / expansion.columns,
            {"units": "degrees_east"},
        ),
    }
    result = kept.assign(variables).assign_coords(axes).assign_attrs({REDUCED: expansion.name})
    result.encoding = dict(dataset.encoding)
    return result


def settle_reduced_grids(
    opened: OpenedSources, policy: Policy, findings: MutableSequence[Finding] | None = None
) -> OpenedSources:
    """Refuse or expand the sources that lie on reduced Gaussian grids.

    Parameters
    ----------
    opened
        Any sources. Those in GRIB are expanded as they are read, and say so by an attribute.
    policy
        ``expand`` to the regular Gaussian grid of the same rows, each row linearly along itself; or ``refuse``.
    findings
        Where to record what was expanded.

    Raises
    ------
    CoordinateError
        Under ``refuse``, naming the source, with the ways out.
    """
    datasets = []
    for dataset, name in opened:
        expanded = dataset if REDUCED in dataset.attrs else _expanded(dataset)
        if expanded is not None:
            grid = expanded.attrs[REDUCED]
            if policy == "refuse":
                raise reduced_grid_error(grid, name)
            tell(
                findings,
                "warning",
                "grid",
                f"{name} is on the reduced Gaussian grid {grid}; each row is interpolated linearly to"
                f" {4 * int(grid[1:])} longitudes",
            )
            dataset = expanded.copy()
            del dataset.attrs[REDUCED]
        datasets.append(dataset)
    return replace(opened, datasets=datasets)
