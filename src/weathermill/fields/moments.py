"""Weighted moments of blocks of channels in compiled loops, and their merging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np


@dataclass
class Moments:
    """What one part of the data contributes, by channel.

    ``squares`` are weighted sums of squared deviations from the mean; ``first_missing`` is the lowest time index
    with a NaN, or -1; ``pairs`` counts the time pairs that make tendencies.
    """

    weight: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    missing: np.ndarray
    first_missing: np.ndarray
    tendency_weight: np.ndarray
    tendency_mean: np.ndarray
    tendency_squares: np.ndarray
    pairs: int


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _plane(x, y, difference, w):  # pragma: no cover - compiled
    """Return (weight, mean, squares, minimum, maximum, missing) of one map ``x``, or of ``y - x``."""
    rows, columns = x.shape
    weight = 0.0
    total = 0.0
    low = np.inf
    high = -np.inf
    missing = 0
    for i in range(rows):
        row_weight = 0.0
        row_total = 0.0
        for j in range(columns):
            value = np.float64(x[i, j])
            if difference:
                value = np.float64(y[i, j]) - value
            if value == value:
                row_weight += w[i, j]
                row_total += w[i, j] * value
                low = min(low, value)
                high = max(high, value)
            else:
                missing += 1
        weight += row_weight
        total += row_total
    mean = total / weight if weight > 0.0 else 0.0
    squares = 0.0
    for i in range(rows):
        row_squares = 0.0
        for j in range(columns):
            value = np.float64(x[i, j])
            if difference:
                value = np.float64(y[i, j]) - value
            if value == value:
                deviation = value - mean
                row_squares += w[i, j] * deviation * deviation
        squares += row_squares
    return weight, mean, squares, low, high, missing


@numba.njit(cache=True, nogil=True)
def _block(data, pair, w, steps, out, missing, first_missing):  # pragma: no cover - compiled
    """Fill ``out`` (channel, 8) with the merged moments of a block; see :func:`block_moments`."""
    channels = data.shape[1]
    for c in range(channels):
        weight = mean = squares = 0.0
        low = np.inf
        high = -np.inf
        d_weight = d_mean = d_squares = 0.0
        for t in range(steps):
            a, m, s, lo, hi, gone = _plane(data[t, c], data[t, c], False, w)
            if gone > 0:
                missing[c] += gone
                if first_missing[c] < 0:
                    first_missing[c] = t
            if a > 0.0:
                delta = m - mean
                both = weight + a
                mean += delta * a / both
                squares += s + delta * delta * weight * a / both
                weight = both
                low = min(low, lo)
                high = max(high, hi)
            if t < pair.shape[0] and pair[t]:
                a, m, s, lo, hi, gone = _plane(data[t, c], data[t + 1, c], True, w)
                if a > 0.0:
                    delta = m - d_mean
                    both = d_weight + a
                    d_mean += delta * a / both
                    d_squares += s + delta * delta * d_weight * a / both
                    d_weight = both
        out[c, 0] = weight
        out[c, 1] = mean
        out[c, 2] = squares
        out[c, 3] = low
        out[c, 4] = high
        out[c, 5] = d_weight
        out[c, 6] = d_mean
        out[c, 7] = d_squares


def block_moments(
    data: np.ndarray, pair: np.ndarray, weights: np.ndarray, first: int, steps: int | None = None
) -> Moments:
    """Return the moments of one block.

    Parameters
    ----------
    data
        (time, channel, latitude, longitude), float32 or float64; may hold one step more than ``steps``, the
        first of the next block, which serves tendencies only.
    pair
        Whether step i and i + 1 make a tendency.
    weights
        (latitude, longitude) float64.
    first
        Time index of the first step, for ``first_missing``.
    steps
        How many steps count; all by default.
    """
    data = np.ascontiguousarray(data)
    if data.dtype not in (np.float32, np.float64):
        data = data.astype(np.float64)
    channels = data.shape[1]
    out = np.empty((channels, 8))
    missing = np.zeros(channels, dtype=np.int64)
    first_missing = np.full(channels, -1, dtype=np.int64)
    pair = np.ascontiguousarray(pair, dtype=np.bool_)
    _block(data, pair, weights, data.shape[0] if steps is None else steps, out, missing, first_missing)
    first_missing[first_missing >= 0] += first
    return Moments(
        weight=out[:, 0],
        mean=out[:, 1],
        squares=out[:, 2],
        minimum=out[:, 3],
        maximum=out[:, 4],
        missing=missing,
        first_missing=first_missing,
        tendency_weight=out[:, 5],
        tendency_mean=out[:, 6],
        tendency_squares=out[:, 7],
        pairs=int(pair.sum()),
    )


@numba.njit(cache=True, nogil=True)
def _affine(data, shift, scale, out):  # pragma: no cover - compiled
    for i in range(data.shape[0]):
        for c in range(data.shape[1]):
            a, b = scale[c], shift[c]
            for k in range(data.shape[2]):
                out[i, c, k] = np.float64(data[i, c, k]) * a + b


def affine(block: np.ndarray, shift: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """Return ``block * scale + shift`` by channel, computed in float64 and rounded once to float32.

    Parameters
    ----------
    block
        Any shape, with channels along ``axis``. No float64 copy of it is made.
    shift, scale
        (channel,) float64.
    axis
        The dimension of channels.
    """
    block = np.ascontiguousarray(block)
    if block.dtype not in (np.float32, np.float64):
        block = block.astype(np.float32)
    out = np.empty(block.shape, dtype=np.float32)
    shape = (int(np.prod(block.shape[:axis])), block.shape[axis], int(np.prod(block.shape[axis + 1 :])))
    _affine(
        block.reshape(shape),
        np.ascontiguousarray(shift, dtype=np.float64),
        np.ascontiguousarray(scale, dtype=np.float64),
        out.reshape(shape),
    )
    return out


def _combined(weight_a, mean_a, squares_a, weight_b, mean_b, squares_b):
    """Merge two sets of moments (Chan, Golub and LeVeque 1983, eq. 2.1)."""
    weight = weight_a + weight_b
    safe = np.where(weight > 0, weight, 1.0)
    delta = mean_b - mean_a
    mean = mean_a + delta * weight_b / safe
    squares = squares_a + squares_b + delta * delta * weight_a * weight_b / safe
    return weight, mean, squares


def merge(parts: Sequence[Moments]) -> Moments:
    """Return the moments of several parts together, in their order."""
    total = parts[0]
    for part in parts[1:]:
        weight, mean, squares = _combined(
            total.weight, total.mean, total.squares, part.weight, part.mean, part.squares
        )
        d_weight, d_mean, d_squares = _combined(
            total.tendency_weight,
            total.tendency_mean,
            total.tendency_squares,
            part.tendency_weight,
            part.tendency_mean,
            part.tendency_squares,
        )
        first = np.where(
            (total.first_missing >= 0)
            & ((part.first_missing < 0) | (total.first_missing <= part.first_missing)),
            total.first_missing,
            part.first_missing,
        )
        total = Moments(
            weight=weight,
            mean=mean,
            squares=squares,
            minimum=np.minimum(total.minimum, part.minimum),
            maximum=np.maximum(total.maximum, part.maximum),
            missing=total.missing + part.missing,
            first_missing=first,
            tendency_weight=d_weight,
            tendency_mean=d_mean,
            tendency_squares=d_squares,
            pairs=total.pairs + part.pairs,
        )
    return total
