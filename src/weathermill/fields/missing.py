"""What happens where values are missing."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import MissingDataError
from weathermill.fields.coordinates import TIME


def refuse_missing(fields: xr.Dataset, *, allow: Sequence[str] = ()) -> xr.Dataset:
    """Return the same fields, which raise when a missing value is read.

    Nothing is read here: the check rides on the blocks as they are computed, so that fields of any size are
    checked whole, once, at no further reading.

    Parameters
    ----------
    fields
        Canonical fields, lazy or not.
    allow
        Variables that may have missing values (sea surface temperature, say).

    Returns
    -------
    xarray.Dataset
        Of the same values. Computing it raises `MissingDataError`, which names the variable, the number of
        missing values in the block and the first time that has one.
    """
    checked = {}
    for name, field in fields.data_vars.items():
        if name in allow or field.dtype.kind != "f":
            continue
        times = fields[TIME].values if TIME in field.dims else None
        axis = field.dims.index(TIME) if TIME in field.dims else None
        if isinstance(field.data, da.Array):
            data = field.data.map_blocks(
                _check,
                dtype=field.dtype,
                meta=np.empty((0,) * field.ndim, field.dtype),
                name_of=str(name),
                times=times,
                axis=axis,
            )
        else:
            data = _check(field.data, name_of=str(name), times=times, axis=axis)
        checked[name] = field.copy(data=data)
    return fields.assign(checked)


def _check(
    block: np.ndarray,
    name_of: str,
    times: np.ndarray | None,
    axis: int | None,
    block_info: dict | None = None,
) -> np.ndarray:
    missing = np.isnan(block)
    if not missing.any():
        return block
    when = ""
    if times is not None and axis is not None:
        first = int(np.flatnonzero(missing.any(axis=tuple(i for i in range(block.ndim) if i != axis)))[0])
        start = block_info[0]["array-location"][axis][0] if block_info and block_info.get(0) else 0
        when = f", first at {times[start + first]}"
    raise MissingDataError(
        f"{name_of} has {int(missing.sum())} missing values (NaN) of {block.size} that were read together{when}",
        remedy="Fill the gaps in the source, choose another period, or name the variable in ingest.allow_missing.",
    )
