"""A trained network as a catalog entry: safetensors weights and a JSON description, nothing pickled."""

from __future__ import annotations

from typing import Any

import numpy as np

from weathermill.datasets.local import LocalDataset, staged
from weathermill.models.forecaster import Forecaster


class ForecasterDataset(LocalDataset):
    """A folder with ``model.safetensors`` and ``model.json``."""

    def load(self) -> Forecaster:
        """Load the network to the CPU."""
        return Forecaster.load(self._require("train"), device="cpu")

    def save(self, data: Forecaster) -> None:
        """Write the network: weights and description change together, or not at all."""
        with staged(self._filepath) as partial:
            data.save(partial)

    def verify(self, *, checksums: bool) -> None:
        """Load the network, which compares its files with their checksums."""
        Forecaster.load(self._filepath, device="cpu")

    def shapes(self) -> dict[str, Any]:
        """Numbers of channels and the grid, as the tracker's model signature needs them."""
        forecaster = self.load()
        return {
            "n_input": forecaster.n_dynamic,
            "n_output": forecaster.n_prognostic,
            "grid_shape": tuple(forecaster.grid_shape),
        }

    def input_example(self) -> np.ndarray:
        """One state (1, channel, latitude, longitude) in physical units: the training mean everywhere."""
        forecaster = self.load()
        mean = forecaster.mean[: forecaster.n_dynamic].astype(np.float32)
        return np.broadcast_to(mean[None, :, None, None], (1, mean.size, *forecaster.grid_shape)).copy()
