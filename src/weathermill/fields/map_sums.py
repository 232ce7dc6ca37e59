"""Sums over one map in compiled loops: integrals, extremes, missing area and variance in two passes."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

#: Values are summed in pieces of so many first: the error of a sum grows with the length of what is summed in a row.
_PIECE = 1024


class MapSums(NamedTuple):
    """Of one map.

    Parameters
    ----------
    minimum, maximum
        Of what is not missing; infinite where all is.
    missing
        The share of the area that is missing.
    variance
        Weighted by area.
    integrals, absolutes
        Of the values and of their absolute values, over each of the other areas; missing values count as zero.
    gaps
        Whether a value is missing where that area is positive.
    """

    minimum: float
    maximum: float
    missing: float
    variance: float
    integrals: tuple[float, ...]
    absolutes: tuple[float, ...]
    gaps: tuple[bool, ...]


@numba.njit(cache=True, nogil=True)
def _moments(x, area):  # pragma: no cover - compiled
    low, high = np.inf, -np.inf
    weight, total, missing = 0.0, 0.0, 0.0
    for start in range(0, x.size, _PIECE):
        piece_weight, piece_total, piece_missing = 0.0, 0.0, 0.0
        for i in range(start, min(start + _PIECE, x.size)):
            value = np.float64(x[i])
            if value == value:
                piece_weight += area[i]
                piece_total += area[i] * value
                low = min(low, value)
                high = max(high, value)
            else:
                piece_missing += area[i]
        weight += piece_weight
        total += piece_total
        missing += piece_missing
    mean = total / weight if weight > 0.0 else 0.0
    squares = 0.0
    for start in range(0, x.size, _PIECE):
        piece = 0.0
        for i in range(start, min(start + _PIECE, x.size)):
            value = np.float64(x[i])
            if value == value:
                piece += area[i] * (value - mean) * (value - mean)
        squares += piece
    return low, high, missing / (weight + missing), squares / weight if weight > 0.0 else 0.0


@numba.njit(cache=True, nogil=True)
def _integral(x, area):  # pragma: no cover - compiled
    total, absolute = 0.0, 0.0
    gap = False
    for start in range(0, x.size, _PIECE):
        piece, piece_absolute = 0.0, 0.0
        for i in range(start, min(start + _PIECE, x.size)):
            value = np.float64(x[i])
            if value == value:
                piece += area[i] * value
                piece_absolute += area[i] * abs(value)
            elif area[i] > 0.0:
                gap = True
        total += piece
        absolute += piece_absolute
    return total, absolute, gap


def map_sums(values: np.ndarray, area: np.ndarray, *others: np.ndarray) -> MapSums:
    """Sum over one map.

    Parameters
    ----------
    values
        (cells,) of any floating type; NaN is missing.
    area
        (cells,) float64: what the share that is missing and the variance are weighted with.
    others
        (cells,) float64: areas to integrate over.
    """
    values = np.ascontiguousarray(values).reshape(-1)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    low, high, missing, variance = _moments(values, area)
    sums = [_integral(values, other) for other in others]
    integrals, absolutes, gaps = zip(*sums, strict=True) if sums else ((), (), ())
    return MapSums(low, high, missing, variance, integrals, absolutes, gaps)
