"""The rows of a reduced Gaussian grid, and the full grid that they are expanded to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weathermill.fields.geometry import octahedral_rows


@dataclass(frozen=True)
class RowExpansion:
    """From rows of unequal length to a full grid: along each row linearly and around the globe.

    Nothing is interpolated between rows, so that a full row passes unchanged.

    Attributes
    ----------
    counts
        (rows,) points of each row, evenly spaced from Greenwich on.
    """

    counts: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Longitudes of the full grid: four for each row of a hemisphere, as on the regular Gaussian grid."""
        return 2 * len(self.counts)

    @property
    def points(self) -> int:
        """Points of the reduced grid."""
        return sum(self.counts)

    @property
    def name(self) -> str:
        """ECMWF's name: O and N for octahedral and other grids, with the number of rows of a hemisphere."""
        n = len(self.counts) // 2
        return f"{'O' if np.array_equal(self.counts, octahedral_rows(n)) else 'N'}{n}"

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Expand (..., points) to (..., rows, columns) of the same type; missing where a neighbour in use is missing."""
        expanded = np.empty((*values.shape[:-1], len(self.counts), self.columns), dtype=values.dtype)
        start = 0
        for row, count in enumerate(self.counts):
            part = values[..., start : start + count]
            place = np.arange(self.columns) * count / self.columns
            left = np.floor(place).astype(np.intp)
            weight = (place - left).astype(values.dtype)
            west, east = part[..., left % count], part[..., (left + 1) % count]
            expanded[..., row, :] = np.where(weight == 0, west, west * (1 - weight) + east * weight)
            start += count
        return expanded


def rows_of(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, RowExpansion] | None:
    """Return the rows of a list of points and how to expand them, or None where it is no reduced Gaussian grid.

    Parameters
    ----------
    latitude, longitude
        (points,) degrees, row by row from the north, each row from Greenwich eastwards.
    """
    breaks = np.flatnonzero(np.abs(np.diff(latitude)) > 1e-4) + 1
    starts = np.concatenate([[0], breaks])
    counts = np.diff(np.append(starts, latitude.size))
    rows = np.asarray(latitude, dtype=np.float64)[starts]
    if (
        rows.size < 8
        or rows.size % 2
        or not np.all(np.diff(rows) < 0)
        or np.abs(rows + rows[::-1]).max() > 1e-3
    ):
        return None
    regular = np.concatenate([np.arange(n) * 360.0 / n for n in counts])
    if np.abs((longitude - regular + 180.0) % 360.0 - 180.0).max() > 1e-3 or np.unique(counts).size == 1:
        return None
    return rows, RowExpansion(tuple(int(n) for n in counts))
