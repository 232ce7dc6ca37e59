"""The horizontal order of a source, and the lazy steps that lead to canonical order and units."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from itertools import pairwise

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import CoordinateError, UnreadableSourceError
from weathermill.fields.coordinates import CURVILINEAR, LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.geometry import cyclic_duplicates, is_global_longitude
from weathermill.fields.recognition import EXPVER

# Fill values that files forget to declare: 1e20 (CMIP), 9.97e36 (netCDF's default), 3.4e38 (GRIB).
UNDECLARED_FILL = 1.0e19


@dataclass(frozen=True)
class HorizontalOrder:
    """Canonical coordinates of a source and the index that leads to them.

    ``rows`` and ``columns`` are positions in the file; ``latitude`` is descending, ``longitude`` ascending. On a
    curvilinear grid both are two-dimensional, and the order is that of the file.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @property
    def spacing(self) -> float:
        """The usual step between points of a curvilinear grid in degrees; 1 for other grids and single points."""
        if self.latitude.ndim < 2 or min(self.latitude.shape) < 2:
            return 1.0
        return float(np.hypot(*(np.median(np.abs(np.diff(self.latitude, axis=axis))) for axis in (0, 1))))


def horizontal_order(
    dataset: xr.Dataset, source: str, findings: MutableSequence[Finding] | None = None
) -> HorizontalOrder:
    """Return the canonical horizontal coordinates of a standardised dataset.

    Longitudes of a full circle go to [0, 360); a duplicated cyclic column is dropped and told. A region that
    crosses Greenwich keeps together, from a negative longitude, since a cut would tear neighbours apart.

    Raises
    ------
    CoordinateError
        Where a coordinate is missing, repeated or not monotonic.
    """
    if CURVILINEAR[LATITUDE] in dataset.coords:
        points = [dataset[CURVILINEAR[axis]].values for axis in (LATITUDE, LONGITUDE)]
        rows, columns = (np.arange(n) for n in points[0].shape)
        return HorizontalOrder(*points, rows, columns)
    for axis in (LATITUDE, LONGITUDE):
        if axis not in dataset.coords or dataset[axis].ndim != 1:
            raise CoordinateError(f"{axis} has no dimension of its own", where=source)
    latitude, longitude = dataset[LATITUDE].values, dataset[LONGITUDE].values
    if np.unique(latitude).size != latitude.size:
        raise CoordinateError("the same latitude occurs twice", where=source)
    rows = np.argsort(-latitude, kind="stable")
    duplicated = cyclic_duplicates(longitude)
    columns = np.arange(longitude.size)
    if duplicated.any():
        if duplicated.sum() > 2:
            raise CoordinateError(f"{duplicated.sum()} longitudes occur twice", where=source)
        tell(
            findings,
            "warning",
            LONGITUDE,
            f"{source} repeats the meridian {longitude[duplicated][0]:g}; the copy is left out",
        )
        columns = columns[~duplicated]
    turned = np.round(np.mod(longitude[columns], 360.0), 10)
    turned[turned >= 360.0] = 0.0
    order = np.argsort(turned, kind="stable")
    turned, columns = turned[order], columns[order]
    if not is_global_longitude(turned) and turned.size > 1:
        steps = np.append(np.diff(turned), turned[0] + 360.0 - turned[-1])
        seam = int(np.argmax(steps))
        if seam != turned.size - 1:
            turned = np.concatenate([turned[seam + 1 :] - 360.0, turned[: seam + 1]])
            columns = np.concatenate([columns[seam + 1 :], columns[: seam + 1]])
    return HorizontalOrder(latitude[rows], turned, rows, columns)


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Return evenly spaced positions as a slice, which files read far faster than a list of positions."""
    index = np.asarray(index)
    if index.size == 0:
        return slice(0, 0)
    if index.size == 1:
        return slice(int(index[0]), int(index[0]) + 1)
    step = int(index[1] - index[0])
    if step == 0 or not np.all(np.diff(index) == step):
        return index
    stop = int(index[-1]) + (1 if step > 0 else -1)
    return slice(int(index[0]), None if stop < 0 else stop, step)


def level_reading(positions: np.ndarray) -> tuple[slice | np.ndarray, np.ndarray]:
    """Say which levels to read from a file, and where among those the wanted ones are.

    Parameters
    ----------
    positions
        Wanted positions in the file, in canonical order.

    Returns
    -------
    read
        An evenly spaced slice where the wanted levels make one; else all from the first to the last, as one
        piece, unless that were more than three times as many as are wanted.
    index
        Positions of the wanted levels in what is read, in canonical order.
    """
    ascending = np.unique(positions)
    even = as_slice(ascending)
    if isinstance(even, slice):
        return even, np.searchsorted(ascending, positions)
    span = int(ascending[-1] - ascending[0]) + 1
    if span <= 3 * ascending.size:
        return slice(int(ascending[0]), int(ascending[-1]) + 1), positions - ascending[0]
    return ascending, np.searchsorted(ascending, positions)


def time_chunks(positions: np.ndarray, steps: int, native: int) -> tuple[int, ...]:
    """Return chunk lengths for the chosen time positions that keep to the file's own chunks.

    Parameters
    ----------
    positions
        Chosen positions in the file, ascending.
    steps
        Wanted number of steps a chunk.
    native
        The file's own number of steps a chunk.
    """
    n = len(positions)
    if n == 0:
        return (0,)
    length = max(1, steps if native <= 1 else max(1, steps // native) * native)
    contiguous = int(positions[-1]) - int(positions[0]) + 1 == n
    first = length
    if contiguous and native > 1:
        first = length - int(positions[0]) % native
    edges = [0, *range(min(first, n), n, length), n]
    return tuple(int(b - a) for a, b in pairwise(edges) if b > a)


def steps_per_chunk(bytes_per_step: int, target_bytes: int, native: int) -> int:
    """Return how many time steps make a block of about ``target_bytes``.

    A block is a multiple of the file's own chunk as long as that stays below eight times the target; beyond,
    it is shorter than the file's chunk, which is then read more than once.
    """
    steps = max(1, target_bytes // max(1, bytes_per_step))
    if native <= 1:
        return int(steps)
    if steps >= native:
        return int(steps // native * native)
    return int(native) if native * bytes_per_step <= 8 * target_bytes else int(steps)


class GuardedReader:
    """A variable of a file, read block by block, whose read errors name the file.

    Damage inside a file shows only when its bytes are read, long after it was opened.
    """

    def __init__(self, variable: xr.Variable, label: str) -> None:
        self.variable = variable
        self.label = label
        self.shape = variable.shape
        self.ndim = variable.ndim
        self.dtype = variable.dtype
        self.meta = np.empty((0,) * variable.ndim, dtype=variable.dtype)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        try:
            return np.asarray(self.variable[index].values)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            raise UnreadableSourceError(
                f"reading fails: {' '.join(str(error).split())[:300]}", where=self.label
            ) from error


def finish_block(
    block: np.ndarray,
    *,
    scale: float,
    offset: float,
    level_index: np.ndarray | None,
    rows: slice | np.ndarray,
    columns: slice | np.ndarray,
) -> np.ndarray:
    """Bring one block into canonical order, units and type.

    Parameters
    ----------
    block
        (..., [level,] latitude, longitude) in the file's order and units.
    scale, offset
        The linear conversion of units.
    level_index
        Positions of the levels to keep, in canonical order, or None.
    rows, columns
        Positions of latitudes and longitudes in canonical order.

    Returns
    -------
    numpy.ndarray
        float32, C-contiguous; missing and undeclared fill values are NaN.
    """
    if level_index is not None:
        block = block[..., as_slice(level_index), :, :]
    block = block[..., rows, :][..., columns]
    # Scaling in the file's own precision first: int16 unpacks to float64, and is rounded only once.
    working = np.array(block, dtype=np.float64 if block.dtype.kind in "iub" else None, order="C")
    if working.dtype.kind == "f":
        size = np.abs(working)
        bad = (size >= UNDECLARED_FILL) & (size < np.inf) if working.dtype.itemsize > 2 else size != size
        if bad.any():
            working[bad] = np.nan
    if scale != 1.0:
        working *= working.dtype.type(scale)
    if offset != 0.0:
        working += working.dtype.type(offset)
    return np.ascontiguousarray(working, dtype=np.float32)


def finish_lazily(
    array: xr.DataArray,
    order: HorizontalOrder,
    *,
    scale: float,
    offset: float,
    level_index: np.ndarray | None,
    chunks: tuple[int, ...] | None,
    label: str = "",
) -> da.Array:
    """Return an array of a source as lazy canonical float32, chunked along time only.

    Parameters
    ----------
    array
        With dimensions among ``time``, ``expver``, ``level``, ``latitude``, ``longitude``, in any order;
        already cut down to the wanted times. Backed by a file, NumPy or Dask.
    order
        From :func:`horizontal_order`.
    scale, offset, level_index
        As for :func:`finish_block`.
    chunks
        Time chunks; None without a time dimension.
    label
        What to call the source where reading fails.

    Returns
    -------
    dask.array.Array
        ([time,] [level,] latitude, longitude).
    """
    if level_index is not None:
        read, level_index = level_reading(level_index)
        array = array.isel({LEVEL: read})
    wanted = {str(dim): array.sizes[dim] for dim in array.dims}
    if EXPVER in array.dims:
        wanted[EXPVER] = 1
    if TIME in array.dims and chunks is not None:
        wanted[TIME] = chunks
    if array.chunks is None:
        guarded = GuardedReader(array.variable, label or str(array.name))
        sizes_of = tuple(wanted[str(dim)] for dim in array.dims)
        lazy = da.from_array(guarded, chunks=sizes_of, name=False, asarray=False, meta=guarded.meta)
    else:
        lazy = array.variable.chunk(wanted).data
    # Only now: transposing an array that is still in its file makes xarray read it point by point.
    ordered = [dim for dim in (TIME, EXPVER, LEVEL, LATITUDE, LONGITUDE) if dim in array.dims]
    lazy = lazy.transpose([array.dims.index(dim) for dim in ordered])
    if EXPVER in array.dims:
        lazy = _merge_expver(lazy, array, axis=ordered.index(EXPVER))
    sizes = list(lazy.chunks)
    if level_index is not None:
        sizes[-3] = (len(level_index),)
    sizes[-2], sizes[-1] = (len(order.rows),), (len(order.columns),)
    return da.map_blocks(
        finish_block,
        lazy,
        dtype=np.float32,
        chunks=tuple(sizes),
        meta=np.empty((0,) * lazy.ndim, dtype=np.float32),
        scale=scale,
        offset=offset,
        level_index=level_index,
        rows=as_slice(order.rows),
        columns=as_slice(order.columns),
    )


def _merge_expver(lazy: da.Array, array: xr.DataArray, axis: int) -> da.Array:
    """Fill ERA5 (1) with ERA5T (5) where it is missing: the two hold disjoint halves of the period."""
    versions = array[EXPVER].values if EXPVER in array.coords else np.arange(array.sizes[EXPVER])
    ranked = np.argsort([int(v) for v in versions], kind="stable")
    merged = da.take(lazy, int(ranked[0]), axis=axis)
    for position in ranked[1:]:
        other = da.take(lazy, int(position), axis=axis)
        merged = da.where(da.isnan(merged), other, merged)
    return merged
