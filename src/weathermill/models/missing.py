"""Cells without a value: what a network sees there, where a forecast has none, and where its loss is taken.

A channel that may be missing, such as sea surface temperature over land, holds NaN where there is no value. The network
sees zero there, which is the mean of the training period in normalised units. Cells are *held* at that mean for a whole
forecast, and come out as NaN in physical units, where

- the training period never had a value, so that nothing was learnt; or
- the initial state has none and the network predicts tendencies, so that there is nothing to add them to.

A network that predicts the state itself gives a value wherever it learnt to, also where the initial state has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from weathermill.errors import ModelError
from weathermill.models.subset import on_channels
from weathermill.tensors.channels import ChannelTable


class MissingValues(nn.Module):
    """Handles the missing values of a forecaster's states; falsy where no channel may have any.

    All methods take tensors of the forecaster's device and wait for nothing, so that CUDA graphs can hold them.

    Parameters
    ----------
    channels
        Which of them may be missing.
    grid_shape
        (latitudes, longitudes).
    share
        float32 (channels that may be missing, latitudes, longitudes): share of the training times without a value; one
        where there never was one. None: of every cell there was always one.
    tendencies
        Whether the network predicts tendencies.

    Raises
    ------
    ModelError
        When `share` has another shape.
    """

    def __init__(
        self,
        channels: ChannelTable,
        grid_shape: tuple[int, int],
        share: np.ndarray | None = None,
        *,
        tendencies: bool = True,
    ) -> None:
        super().__init__()
        self.channels = channels.may_be_missing
        self.names = [channels[i].name for i in self.channels]
        self.tendencies, self.n_prognostic = tendencies, channels.n_prognostic
        if not self.channels:
            return
        shape = (len(self.channels), *grid_shape)
        share = np.zeros(shape) if share is None else np.asarray(share)
        if share.shape != shape:
            raise ModelError(
                f"The shares of missing values have shape {share.shape}; they should have {shape}."
            )
        self.register_buffer("share", torch.tensor(share, dtype=torch.float32))
        # Work is done on these channels alone, which are few.
        predicted = [c for c in self.channels if c < self.n_prognostic]
        self.register_buffer("index", torch.tensor(self.channels), persistent=False)
        self.register_buffer("predicted", torch.tensor(predicted, dtype=torch.int64), persistent=False)
        # Channels are in order, those that are predicted before forcings.
        self._n_predicted = len(predicted)

    def __bool__(self) -> bool:
        return bool(self.channels)

    def held(self, state: Tensor) -> Tensor:
        """Say where a forecast from `state` has no value.

        Parameters
        ----------
        state
            (batch, n_dynamic, latitudes, longitudes) with NaN where there is no value.

        Returns
        -------
        torch.Tensor
            bool (batch, n_prognostic, latitudes, longitudes).
        """
        held = torch.zeros_like(state[:, : self.n_prognostic], dtype=torch.bool)
        return held.index_copy(1, self.predicted, self._held(state))

    def _held(self, state: Tensor) -> Tensor:
        """Where there is no forecast, of the predicted channels that may be missing."""
        never = self.share[: self._n_predicted] >= 1.0
        if not self.tendencies:
            return never.expand(state.shape[0], -1, -1, -1)
        return torch.isnan(state.index_select(1, self.predicted)) | never

    def filled(self, state: Tensor, held: Tensor) -> Tensor:
        """Put the mean of the training period where there is no value, or where `held` says so.

        NaN in a channel that may not be missing stays, so that a network that has run wild is seen.
        """

        def change(mine: Tensor, held: Tensor) -> Tensor:
            gone = torch.isnan(mine)
            gone[:, : self._n_predicted] |= held
            return torch.where(gone, _zero(mine), mine)

        return on_channels(change, state, self.index, held.index_select(1, self.predicted))

    def hold(self, prognostic: Tensor, held: Tensor) -> Tensor:
        """Put the mean of the training period where `held` says so."""
        return on_channels(
            lambda mine, held: torch.where(held, _zero(mine), mine),
            prognostic,
            self.predicted,
            held.index_select(1, self.predicted),
        )

    def known(self, target: Tensor, held: Tensor) -> Tensor:
        """Say over which cells a loss is to be taken: where there is a true value and the forecast can have one.

        Parameters
        ----------
        target
            (batch, n_prognostic, latitudes, longitudes), NaN where unknown; NaN in a channel that may not be missing is
            taken for known, and seen in the loss.
        held
            From `held`, of the initial state.

        Returns
        -------
        torch.Tensor
            bool, of the shape of `target`.
        """
        unknown = torch.isnan(target.index_select(1, self.predicted)) | held.index_select(1, self.predicted)
        known = torch.ones_like(held)
        return known.index_copy(1, self.predicted, ~unknown)

    def unexpected(self, values: np.ndarray, names: Sequence[str]) -> dict[str, int]:
        """Count the values that are not finite where the training period always had one.

        Parameters
        ----------
        values
            (n, channel, latitudes, longitudes), in any units.
        names
            Of the channels.

        Returns
        -------
        dict
            Name of a channel -> how many, of the channels that have any.
        """
        shares = dict(zip(self.names, self.share.cpu().numpy(), strict=True)) if self.names else {}
        counts = {}
        for channel, name in enumerate(names):
            here = values[:, channel]
            bad = ~np.isfinite(here)
            if name in shares:
                bad &= ~(np.isnan(here) & (shares[name] > 0))
            if bad.any():
                counts[name] = int(bad.sum())
        return counts


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device=like.device)
