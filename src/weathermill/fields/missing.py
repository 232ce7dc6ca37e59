"""What happens where values are missing, or cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import MissingDataError
from weathermill.fields.plausibility import Limits, axes_of, limits_of, place_text, refuse_implausible


def refuse_missing(fields: xr.Dataset, *, allow: Sequence[str] = ()) -> xr.Dataset:
    """Return the same fields, which raise when a missing, infinite or impossible value is read.

    Nothing is read here: the check rides on the blocks as they are computed, so that fields of any size are
    checked whole, once, at no further reading.

    Parameters
    ----------
    fields
        Canonical fields, lazy or not. Limits other than those of the vocabulary are those that
        `weathermill.fields.plausibility.with_limits` gave.
    allow
        Variables that may have missing values (sea surface temperature, say).

    Returns
    -------
    xarray.Dataset
        Of the same values. Computing it raises `MissingDataError`, which names the variable, the number of
        missing values in the block and the first time that has one, or `ImplausibleValueError` for values that
        `weathermill.fields.plausibility.find_implausible` finds.
    """
    return _checked(fields, list(fields.data_vars), allow)


def refuse_infinite(fields: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Return the same fields, of which some raise when an infinite or impossible value is read; NaN passes.

    For variables whose gaps are filled by other values, which must not be infinite or fill values themselves.
    """
    return _checked(fields, [name for name in names if name in fields.data_vars], names)


def _checked(fields: xr.Dataset, names: Sequence[str], allow: Sequence[str]) -> xr.Dataset:
    checked = {}
    for name in names:
        field = fields[name]
        if field.dtype.kind != "f":
            continue
        options = {
            "name_of": str(name),
            "dims": tuple(map(str, field.dims)),
            "axes": axes_of(field),
            "limits": limits_of(str(name), field.attrs),
            "missing": name in allow,
        }
        if isinstance(field.data, da.Array):
            data = field.data.map_blocks(
                _check, dtype=field.dtype, meta=np.empty((0,) * field.ndim, field.dtype), **options
            )
        else:
            data = _check(field.data, **options)
        checked[name] = field.copy(data=data)
    return fields.assign(checked)


def _check(
    block: np.ndarray,
    name_of: str,
    dims: tuple[str, ...],
    axes: Mapping[str, np.ndarray],
    limits: Limits,
    missing: bool,
    block_info: dict | None = None,
) -> np.ndarray:
    location = block_info[0]["array-location"] if block_info and block_info.get(0) else None
    offset = [0] * block.ndim if location is None else [start for start, _ in location]
    # A minimum is NaN where anything is, and takes less time than looking for it.
    if not missing and block.size and np.isnan(_minimum(block)):
        gone = np.isnan(block)
        first = np.unravel_index(int(np.argmax(gone)), block.shape)
        place = place_text(dims, axes, [int(i) + o for i, o in zip(first, offset, strict=True)], prefix="")
        raise MissingDataError(
            f"{name_of} has {int(gone.sum())} missing values (NaN) of {block.size} that were read together, first at"
            f" {place}",
            remedy="Fill the gaps (ingest.fill) or correct the source, choose another period, or name the variable in"
            " ingest.allow_missing.",
        )
    refuse_implausible(name_of, block, limits, dims, axes, offset=offset)
    return block


def _minimum(block: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        return float(block.min())
