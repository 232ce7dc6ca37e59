"""The product of a sparse matrix with many maps at once, aware of missing values."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _missing_aware(indptr, indices, data, base, x, row, minimum_valid, renormalise):  # pragma: no cover
    """Return one target value where some source is NaN."""
    total = 0.0
    valid = 0.0
    value = 0.0
    for k in range(indptr[row], indptr[row + 1]):
        total += abs(base[k])
        source = np.float64(x[indices[k]])
        if source == source:
            valid += abs(base[k])
            value += data[k] * source
        elif not renormalise and data[k] != 0.0:
            return np.nan
    if total == 0.0 or valid <= 0.0 or valid < minimum_valid * total * (1.0 - 1e-9):
        return np.nan
    return value * (total / valid)


@numba.njit(cache=True, nogil=True)
def _product(indptr, indices, data, base, x, out, minimum_valid, renormalise):  # pragma: no cover - compiled
    """Fill ``out`` (maps, targets) with the product; see :meth:`SparseOperator.apply`.

    Four maps share one walk through the matrix, whose indices and weights are what costs time to read.
    """
    maps = x.shape[0]
    targets = indptr.shape[0] - 1
    # One map left over is done by itself; two or three fill their group up with the last one again.
    whole = maps - 1 if maps % 4 == 1 else maps
    for t in range(0, whole, 4):
        t1, t2, t3 = min(t + 1, maps - 1), min(t + 2, maps - 1), min(t + 3, maps - 1)
        x0, x1, x2, x3 = x[t], x[t1], x[t2], x[t3]
        for row in range(targets):
            a = 0.0
            b = 0.0
            c = 0.0
            d = 0.0
            start, stop = indptr[row], indptr[row + 1]
            for k in range(start, stop):
                weight = data[k]
                j = indices[k]
                a += weight * np.float64(x0[j])
                b += weight * np.float64(x1[j])
                c += weight * np.float64(x2[j])
                d += weight * np.float64(x3[j])
            if start == stop:
                a = b = c = d = np.nan
            elif not (a == a and b == b and c == c and d == d):
                a = (
                    _missing_aware(indptr, indices, data, base, x0, row, minimum_valid, renormalise)
                    if a != a
                    else a
                )
                b = (
                    _missing_aware(indptr, indices, data, base, x1, row, minimum_valid, renormalise)
                    if b != b
                    else b
                )
                c = (
                    _missing_aware(indptr, indices, data, base, x2, row, minimum_valid, renormalise)
                    if c != c
                    else c
                )
                d = (
                    _missing_aware(indptr, indices, data, base, x3, row, minimum_valid, renormalise)
                    if d != d
                    else d
                )
            out[t, row] = a
            out[t1, row] = b
            out[t2, row] = c
            out[t3, row] = d
    for t in range(whole, maps):
        x0 = x[t]
        for row in range(targets):
            a = 0.0
            start, stop = indptr[row], indptr[row + 1]
            for k in range(start, stop):
                a += data[k] * np.float64(x0[indices[k]])
            if start == stop:
                a = np.nan
            elif a != a:
                a = _missing_aware(indptr, indices, data, base, x0, row, minimum_valid, renormalise)
            out[t, row] = a


class SparseOperator:
    """A sparse matrix in compressed rows that acts on maps.

    Parameters
    ----------
    row, col
        From 0.
    data
        float64. Zero weights are left out: with NaN they would spread it.
    n_target, n_source
        The size of the matrix.
    base
        Weights that tell how much each source counts when others are missing; ``data`` itself by default.
    minimum_valid
        The share of a target's weight that must have data for it to be renormalised rather than missing.
    renormalise
        Whether valid sources stand in for missing ones; otherwise any missing one makes the target missing.
    """

    def __init__(
        self,
        row: np.ndarray,
        col: np.ndarray,
        data: np.ndarray,
        *,
        n_target: int,
        n_source: int,
        base: np.ndarray | None = None,
        minimum_valid: float = 0.5,
        renormalise: bool = True,
    ) -> None:
        base = data if base is None else base
        keep = (data != 0.0) | (base != 0.0)
        row, col, data, base = row[keep], col[keep], data[keep], base[keep]
        order = np.lexsort((col, row))
        self.indices = np.ascontiguousarray(col[order], dtype=np.int32)
        self.data = np.ascontiguousarray(data[order], dtype=np.float64)
        self.base = np.ascontiguousarray(base[order], dtype=np.float64)
        counts = np.bincount(row, minlength=n_target)
        self.indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.n_target, self.n_source = int(n_target), int(n_source)
        self.minimum_valid = float(minimum_valid)
        self.renormalise = bool(renormalise)

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """Return the product for each map.

        Parameters
        ----------
        maps
            (n, n_source). float32 and float64 keep their type; float16 and integers of up to 16 bits become
            float32, wider integers float64. Sums are taken in float64.

        Returns
        -------
        numpy.ndarray
            (n, n_target); NaN where no source counts, or too many are missing.
        """
        maps = np.ascontiguousarray(maps, dtype=promoted(maps.dtype))
        out = np.empty((maps.shape[0], self.n_target), dtype=maps.dtype)
        _product(
            self.indptr,
            self.indices,
            self.data,
            self.base,
            maps,
            out,
            self.minimum_valid,
            self.renormalise,
        )
        return out


def promoted(dtype: np.dtype) -> np.dtype:
    """Return the floating type in which maps of a type are regridded: none is truncated.

    Raises
    ------
    TypeError
        For types that are no real numbers.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return np.dtype(np.float32) if dtype.itemsize <= 4 else np.dtype(np.float64)
    if dtype.kind in "iub":
        return np.dtype(np.float32) if dtype.itemsize <= 2 else np.dtype(np.float64)
    raise TypeError(f"maps of type {dtype} cannot be regridded")
