"""Least squares cell by cell where values are missing at times."""

from __future__ import annotations

import numpy as np

#: A fit needs so many values for each of its terms, as many as one of whole fields.
VALUES_PER_TERM = 4
#: Largest ratio of eigenvalues of a cell's normal equations. Times all round the year give about two; values from half of
#: the year alone would let three harmonics swing through the other half.
MOST_CONDITION = 100.0
_CELLS = 65536


class GapCounter:
    """Keeps, for each cell that is ever missing, what its normal equations lack.

    Parameters
    ----------
    n_terms
        Terms of the basis, of which the first is one.
    n_channels, n_cells
        Of the states; memory is taken only for channels in which something is missing.
    """

    def __init__(self, n_terms: int, n_channels: int, n_cells: int) -> None:
        self.n_terms, self.n_cells = n_terms, n_cells
        self._pairs = np.triu_indices(n_terms)
        self._lost: dict[int, np.ndarray] = dict.fromkeys(range(n_channels))  # type: ignore[arg-type]

    def add(self, basis: np.ndarray, absent: np.ndarray) -> None:
        """Take note of some states.

        Parameters
        ----------
        basis
            (time, term).
        absent
            bool (time, channel times cells).
        """
        products = basis[:, self._pairs[0]] * basis[:, self._pairs[1]]
        by_channel = absent.reshape(len(absent), -1, self.n_cells)
        for channel in np.flatnonzero(by_channel.any(axis=(0, 2))).tolist():
            if self._lost[channel] is None:
                self._lost[channel] = np.zeros((products.shape[1], self.n_cells))
            # Single precision within a batch, double between batches.
            self._lost[channel] += products.T.astype(np.float32) @ by_channel[:, channel].astype(np.float32)

    def solve(self, gram: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Solve the normal equations of every cell.

        Parameters
        ----------
        gram
            (term, term) of all times.
        sums
            (term, channel times cells), over the times at which each cell has a value.

        Returns
        -------
        numpy.ndarray
            As `sums`. Cells with too few values, or from a part of the year alone, get the mean of those they have; cells
            without any get NaN.
        """
        solution = np.linalg.solve(gram, sums)
        for channel, lost in self._lost.items():
            if lost is None:
                continue
            gaps = np.flatnonzero(lost[0] > 0)
            for first in range(0, len(gaps), _CELLS):
                cells = gaps[first : first + _CELLS]
                at = channel * self.n_cells + cells
                solution[:, at] = self._solve_cells(gram, lost[:, cells], sums[:, at])
        return solution

    def _solve_cells(self, gram: np.ndarray, lost: np.ndarray, sums: np.ndarray) -> np.ndarray:
        grams = np.broadcast_to(gram, (lost.shape[1], *gram.shape)).copy()
        for pair, (i, j) in enumerate(zip(*self._pairs, strict=True)):
            grams[:, i, j] -= lost[pair]
            if i != j:
                grams[:, j, i] -= lost[pair]
        count = np.round(grams[:, 0, 0])
        result = np.zeros_like(sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[0] = np.where(count > 0, sums[0] / count, np.nan)
        enough = np.flatnonzero(count >= VALUES_PER_TERM * self.n_terms)
        if enough.size:
            eigenvalues = np.linalg.eigvalsh(grams[enough])
            enough = enough[eigenvalues[:, 0] * MOST_CONDITION > eigenvalues[:, -1]]
            result[:, enough] = np.linalg.solve(grams[enough], sums[:, enough].T[..., None])[..., 0].T
        return result
