"""What a predicted tendency is added to: the state itself, or the state drawn towards its climatology."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.tensors.shards import decode

if TYPE_CHECKING:
    from weathermill.tensors.store import TensorStore

#: Training states that the climatology of a residual is taken from, at most.
STATES = 256


def damping(ratio: np.ndarray) -> np.ndarray:
    """Share of an anomaly that is left after one time step, as the best forecast by damped persistence has it.

    It is the autocorrelation over one step. Of a stationary series it follows from the variance of its changes,
    ``tendency_std² = 2 std² (1 - autocorrelation)`` (the variogram: Wilks, Statistical Methods in the Atmospheric
    Sciences, 4th ed. 2019).

    Parameters
    ----------
    ratio
        Standard deviation of the changes over one step, divided by that of the anomalies.

    Returns
    -------
    numpy.ndarray
        In [0, 1], the shape of `ratio`.
    """
    return np.clip(1.0 - np.asarray(ratio, dtype=np.float64) ** 2 / 2.0, 0.0, 1.0)


class Residual(nn.Module):
    """Persistence, ``state``, or damped persistence, ``climatology + kept * (state - climatology)``.

    Where the network adds nothing, a forecast from persistence stands still, and one from damped persistence falls back
    to the climatology of each cell: errors die out rather than pile up in long forecasts.

    Parameters
    ----------
    n_prognostic
        Number of channels.
    grid_shape
        (latitudes, longitudes).
    damped
        Whether anomalies are damped; how much, and around what, is set by `fit` or by loading a model.
    factor
        How many times as fast as in the training period they are damped. With more than one the network has to uphold
        what lasts, and what it does not know to uphold fades.
    """

    def __init__(
        self, n_prognostic: int, grid_shape: tuple[int, int], *, damped: bool, factor: float = 1.0
    ) -> None:
        super().__init__()
        self.damped, self.factor = damped, factor
        self.register_buffer("kept", torch.ones(n_prognostic, 1, 1), persistent=damped)
        shape = (n_prognostic, *grid_shape) if damped else (0,)
        # (1 - kept) * climatology, so that a step is one multiplication and one addition.
        self.register_buffer("offset", torch.zeros(shape), persistent=damped)

    def forward(self, state: Tensor) -> Tensor:
        """Give what tendencies are added to.

        Parameters
        ----------
        state
            (batch, n_prognostic, latitudes, longitudes), normalised.

        Returns
        -------
        torch.Tensor
            The shape and dtype of `state`.
        """
        if not self.damped:
            return state
        return state * self.kept.to(state.dtype) + self.offset.to(state.dtype)

    @torch.no_grad()
    def fit(self, store: TensorStore) -> None:
        """Take the climatology of each cell, and how fast anomalies fade, from the training period.

        The climatology is the mean of at most `STATES` training states, drawn at random so that all hours and seasons
        count; the variance of anomalies is their area-weighted mean square.

        Parameters
        ----------
        store
            Of the same channels and grid.
        """
        if not self.damped:
            return
        n = self.kept.shape[0]
        times = np.concatenate([np.arange(*run) for run in store.splits["train"]])
        if len(times) > STATES:
            times = np.sort(np.random.default_rng(0).choice(times, STATES, replace=False))
        shape = (n, *store.grid_shape)
        total, squares, known = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for time in times:
            values = decode(store.read(int(time))[:n], store.dtype).astype(np.float64)
            there = np.isfinite(values)
            values = np.where(there, values, 0.0)
            total += values
            squares += values**2
            known += there
        climatology = total / np.maximum(known, 1)
        variance = np.maximum(squares / np.maximum(known, 1) - climatology**2, 0.0)
        weights = np.asarray(store.area_weights, dtype=np.float64)
        weights = (weights if weights.ndim == 2 else weights[:, None]) * known
        variance = (variance * weights).sum(axis=(1, 2)) / np.maximum(weights.sum(axis=(1, 2)), 1e-30)
        ratio = (store.tendency_std / store.std[: len(store.tendency_std)])[:n]
        kept = damping(ratio / np.sqrt(np.maximum(variance, 1e-12)))[:, None, None]
        kept = np.maximum(1.0 - self.factor * (1.0 - kept), 0.0)
        self.kept.copy_(torch.tensor(kept))
        self.offset.copy_(torch.tensor((1.0 - kept) * climatology))
