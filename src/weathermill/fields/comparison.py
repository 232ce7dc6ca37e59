"""Whether two fields of the same thing agree, and where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from weathermill.fields.layout import HorizontalOrder

Verdict = Literal["same", "second", "differ"]


def compare(left: np.ndarray, right: np.ndarray, resolution: float) -> Verdict:
    """Compare two fields of the same thing.

    Parameters
    ----------
    left, right
        Of the same shape, float32 with NaN where missing.
    resolution
        By how much equal numbers may differ through the packing of both, in the units of the fields. Rounding to
        float32 is allowed for besides.

    Returns
    -------
    str
        ``same`` (the second may be missing altogether), ``second`` (only the second has data) or ``differ``.
    """
    left_missing, right_missing = np.isnan(left), np.isnan(right)
    if right_missing.all():
        return "same"
    if left_missing.all():
        return "second"
    if not np.array_equal(left_missing, right_missing):
        return "differ"
    valid = ~left_missing
    a, b = left[valid].astype(np.float64), right[valid].astype(np.float64)
    tolerance = resolution * 1.001 + 4.0 * np.finfo(np.float32).eps * np.abs(a).max()
    return "same" if np.abs(a - b).max() <= tolerance else "differ"


def difference_text(
    left: np.ndarray,
    right: np.ndarray,
    order: HorizontalOrder,
    units: str = "",
    levels: Sequence[float] | None = None,
) -> str:
    """Return how far and where two fields (..., rows, columns) in canonical order differ.

    Parameters
    ----------
    left, right
        Of the same shape, NaN where missing.
    order
        Of their points.
    units
        For the text.
    levels
        hPa, of fields (levels, rows, columns).
    """
    missing = np.isnan(left) != np.isnan(right)
    apart = np.where(missing, np.inf, np.abs(np.nan_to_num(left - right)))
    *above, row, column = (int(i) for i in np.unravel_index(int(np.argmax(apart)), apart.shape))
    place = (
        (row, column) if order.latitude.ndim == 2 else (row,),
        (row, column) if order.longitude.ndim == 2 else (column,),
    )
    at = f"at latitude {order.latitude[place[0]]:g}, longitude {order.longitude[place[1]]:g}"
    if levels is not None and above:
        at = f"at {levels[above[-1]]:g} hPa, {at.removeprefix('at ')}"
    if missing.any():
        return f"values are missing in one of them, at {int(missing.sum())} points, the first {at}"
    return f"by up to {apart.max():.4g}{f' {units}' if units else ''}, {at}"
