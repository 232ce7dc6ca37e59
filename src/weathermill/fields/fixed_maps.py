"""Latitudes and longitudes that a file repeats at each time, as WRF's output does."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError
from weathermill.fields.coordinates import find_horizontal

#: Times at which the maps are compared, evenly spaced, the first and the last among them.
_COMPARED = 25


def with_fixed_maps(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Return a dataset whose maps of latitude and longitude have no time, where they are the same at all times.

    Raises
    ------
    CoordinateError
        Where they change: the grid moves.
    """
    repeated = {
        str(name): variable
        for name, variable in dataset.coords.items()
        if variable.ndim == 3 and variable.dtype.kind in "iuf" and min(variable.shape) > 0
    }
    if not repeated:
        return dataset
    fixed = {name: variable.isel({variable.dims[0]: 0}, drop=True) for name, variable in repeated.items()}
    candidate = dataset.drop_vars(list(repeated)).assign_coords(fixed)
    found = [name for name in find_horizontal(candidate) if name in repeated]
    if not found:
        return dataset
    for name in found:
        variable = repeated[name]
        leading = str(variable.dims[0])
        first = fixed[name].values
        for position in np.unique(np.linspace(0, variable.shape[0] - 1, _COMPARED).round().astype(int))[1:]:
            if not np.array_equal(variable.isel({leading: int(position)}).values, first, equal_nan=True):
                raise CoordinateError(
                    f"{name} changes along {leading}: the grid moves",
                    where=source,
                    remedy="Interpolate the fields to a grid that stays, or ingest the times of one grid by themselves.",
                )
    result = dataset.drop_vars(found).assign_coords({name: fixed[name] for name in found})
    result.encoding = dict(dataset.encoding)
    return result
