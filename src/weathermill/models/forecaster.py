"""A network with all that it needs to forecast: channels, grid, statistics, static fields."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_from
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from weathermill.errors import ModelError
from weathermill.extent import is_globe
from weathermill.models.advance import advance_padded
from weathermill.models.boundary import SPHERE, Edges, boundary_text
from weathermill.models.constraint_choice import make_constraints
from weathermill.models.files import CONFIG_FILE, read_model, write_model
from weathermill.models.missing import MissingValues
from weathermill.models.registry import ModelConfig, build_network, network_module, require_network
from weathermill.models.residual import Residual
from weathermill.models.suitability import require_suitable_grid
from weathermill.tensors.channels import ChannelTable
from weathermill.tensors.files import unseal_json

if TYPE_CHECKING:
    from weathermill.tensors.store import TensorStore

logger = logging.getLogger(__name__)

FORMAT = "weathermill-forecaster/1"


class Forecaster(nn.Module):
    """Advances normalised states of the atmosphere by one time step, or by many.

    Parameters
    ----------
    config
        The network.
    channels
        Names and roles, in the order of the store.
    latitude, longitude
        Degrees, float64; their lengths are the grid.
    mean, std
        Of each channel (dynamic ones, then statics) in physical units, over the training period.
    tendency_std
        Standard deviation of the change of each channel over one time step, in physical units.
    static
        (n_static, latitudes, longitudes), normalised; None without static channels.
    time_step
        Seconds.
    missing_share
        (channels that may be missing, latitudes, longitudes): share of the training times at which a cell has no value,
        see `weathermill.models.missing`.

    Raises
    ------
    ModelError
        When sizes do not fit each other, statistics are not positive and finite, or the boundary or a constraint does not
        suit the grid.
    """

    def __init__(
        self,
        config: ModelConfig,
        channels: ChannelTable,
        latitude: np.ndarray,
        longitude: np.ndarray,
        mean: np.ndarray,
        std: np.ndarray,
        tendency_std: np.ndarray,
        static: np.ndarray | None = None,
        time_step: int = 21600,
        missing_share: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        #: With what it was trained, JSON-ready, see `weathermill.training.history`; empty where not known.
        self.trained_with: dict[str, Any] = {}
        self.latitude = np.asarray(latitude, dtype=np.float64)
        self.longitude = np.asarray(longitude, dtype=np.float64)
        require_suitable_grid(config, self.latitude, self.longitude)
        self.config = config = config.with_edges(self.latitude, self.longitude)
        self.channels, self.time_step = channels, int(time_step)
        self.n_prognostic, self.n_forcing = channels.n_prognostic, channels.n_forcing
        self.n_dynamic, self.n_static = channels.n_dynamic, channels.n_static
        mean, std, tendency_std = (np.asarray(a, dtype=np.float64) for a in (mean, std, tendency_std))
        self._check_statistics(mean, std, tendency_std)
        # float64 and untouched by .half() or .to(dtype): specific humidity at 50 hPa has a std near 1e-7.
        self.mean, self.std, self.tendency_std = mean, std, tendency_std
        static = np.zeros((0, *self.grid_shape)) if static is None else np.asarray(static)
        if static.shape != (self.n_static, *self.grid_shape):
            raise ModelError(
                f"Static fields have shape {static.shape}; the channel table and the grid ask for "
                f"{(self.n_static, *self.grid_shape)}."
            )
        ratio = (tendency_std / std)[: self.n_prognostic]
        self.register_buffer("static", torch.tensor(static, dtype=torch.float32))
        self.register_buffer("tendency_ratio", torch.tensor(ratio, dtype=torch.float32)[:, None, None], False)
        damped = config.target == "tendency" and config.residual == "damped_persistence"
        self.residual = Residual(self.n_prognostic, self.grid_shape, damped=damped, factor=config.damping)
        self.missing = MissingValues(
            channels, self.grid_shape, missing_share, tendencies=config.target == "tendency"
        )
        self.constraints = make_constraints(self)
        self.network = build_network(
            config,
            in_channels=self.n_dynamic + self.n_static,
            out_channels=self.n_prognostic,
            grid_shape=self.grid_shape,
            latitude=self.latitude,
            longitude=self.longitude,
        )

    @classmethod
    def from_store(cls, store: TensorStore, config: ModelConfig, *, fit: bool = True) -> Forecaster:
        """Build an untrained forecaster for the channels, grid and statistics of a training store.

        Without `fit`, what the residual takes from the training period is left out, for which states must be read.
        """
        forecaster = cls(
            config,
            store.channels,
            store.latitude,
            store.longitude,
            store.mean,
            store.std,
            store.tendency_std,
            store.static,
            store.time_step,
            store.missing_share,
        )
        if fit:
            forecaster.residual.fit(store)
        return forecaster

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return len(self.latitude), len(self.longitude)

    @property
    def boundary(self) -> str:
        """What lies beyond the edges of the grid, in words."""
        return boundary_text(self.config.boundary, self.config.edges, self.latitude, self.longitude)

    @property
    def error_scale(self) -> Tensor:
        """(n_prognostic, 1, 1): takes an error of a normalised state to the units of the output."""
        return self.error_scale_in(self.config.target)

    def error_scale_in(self, unit: str) -> Tensor:
        """(n_prognostic, 1, 1): takes an error of a normalised state to units of the ``"tendency"`` or ``"state"``."""
        if unit == "tendency":
            return 1.0 / self.tendency_ratio
        return torch.ones_like(self.tendency_ratio)

    def forward(self, state: Tensor, held: Tensor | None = None) -> Tensor:
        """Advance by one time step.

        Parameters
        ----------
        state
            (batch, n_dynamic, latitudes, longitudes), normalised, any floating dtype; NaN where a channel that may be
            missing has no value.
        held
            Of such channels, where the forecast has no value: ``missing.held`` of its initial state; of `state` when
            None.

        Returns
        -------
        torch.Tensor
            (batch, n_prognostic, latitudes, longitudes), normalised, float32 (float64 for float64 states); zero where
            held.
        """
        if not self.missing:
            return self._advanced(state)
        held = self.missing.held(state) if held is None else held
        return self.missing.hold(self._advanced(self.missing.filled(state, held)), held)

    def _advanced(self, state: Tensor) -> Tensor:
        self._check(state)
        if not self.takes_fast_pass(state):
            return self.advance(state, self.raw_output(state))
        after = advance_padded(self, self.network.forward_padded(state, self.static), state)
        return self.constraints(state[:, : self.n_prognostic], after)

    def raw_output(self, state: Tensor) -> Tensor:
        """Give what the network puts out for `state`: the normalised tendency, or the next state."""
        self._check(state)
        if self.takes_fast_pass(state):
            return self.network(state, self.static)
        state = state.to(self._input_dtype(state))
        if self.n_static:
            static = self.static.to(state.dtype).expand(state.shape[0], -1, -1, -1)
            state = torch.cat([state, static], dim=1)
        return self.network(state)

    def takes_fast_pass(self, state: Tensor) -> bool:
        """Whether the network has a fast pass for `state`; see `weathermill.models.fused`."""
        return hasattr(self.network, "takes_fast_pass") and self.network.takes_fast_pass(state.device)

    def advance(self, state: Tensor, output: Tensor) -> Tensor:
        """Apply the network's output to the state that it was made from; see `forward` for shapes."""
        dtype = torch.float64 if state.dtype == torch.float64 else torch.float32
        output = output.to(dtype)
        before = state[:, : self.n_prognostic].to(dtype)
        if self.config.target == "tendency":
            output = self.residual(before) + output * self.tendency_ratio.to(dtype)
        return self.constraints(before, output)

    def steps(self, state: Tensor, steps: int, forcings: Tensor | None = None) -> Iterator[Tensor]:
        """Forecast `steps` time steps, one at a time.

        Parameters
        ----------
        state
            (batch, n_dynamic, latitudes, longitudes), normalised.
        steps
            Number of time steps.
        forcings
            (batch, >= steps - 1, n_forcing, latitudes, longitudes): those at the end of each step,
            normalised. Needed where there are forcing channels and more than one step.

        Yields
        ------
        torch.Tensor
            (batch, n_prognostic, latitudes, longitudes), normalised.
        """
        if self.n_forcing and steps > 1 and (forcings is None or forcings.shape[1] < steps - 1):
            raise ModelError(
                f"{steps} steps with {self.n_forcing} forcing channels need forcings at {steps - 1} times."
            )
        held = self.missing.held(state) if self.missing else None
        for step in range(steps):
            prognostic = self(state, held)
            yield prognostic
            if step + 1 < steps:
                state = self.join(prognostic, None if forcings is None else forcings[:, step])

    def join(self, prognostic: Tensor, forcing: Tensor | None) -> Tensor:
        """Put prognostic channels and forcings together to a state."""
        if not self.n_forcing:
            return prognostic
        return torch.cat([prognostic, forcing.to(prognostic.dtype)], dim=1)

    def rollout(self, state: Tensor, steps: int, forcings: Tensor | None = None) -> Tensor:
        """Forecast `steps` time steps: (batch, steps, n_prognostic, latitudes, longitudes), normalised."""
        return torch.stack(list(self.steps(state, steps, forcings)), dim=1)

    @torch.no_grad()
    def rollout_physical(
        self, state: np.ndarray, steps: int, forcings: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Forecast in physical units, on the forecaster's own device.

        Parameters
        ----------
        state
            (batch, n_dynamic, latitudes, longitudes) in physical units.
        steps
            Number of time steps.
        forcings
            (batch, >= steps - 1, n_forcing, latitudes, longitudes) in physical units.

        Yields
        ------
        numpy.ndarray
            (batch, n_prognostic, latitudes, longitudes), float32, physical units; one for each step. NaN where the
            forecast has no value.
        """
        if forcings is not None:
            forcings = self.normalise(forcings, slice(self.n_prognostic, self.n_dynamic))
        initial = self.normalise(state)
        held = self.missing.held(initial).cpu().numpy() if self.missing else None
        for prognostic in self.steps(initial, steps, forcings):
            values = self.denormalise(prognostic)
            if held is not None:
                values[held] = np.nan
            yield values

    def normalise(self, values: np.ndarray, channels: slice | None = None) -> Tensor:
        """Physical values (..., channel, latitude, longitude) to a normalised float32 tensor."""
        channels = slice(0, self.n_dynamic) if channels is None else channels
        mean, std = (a[channels, None, None] for a in (self.mean, self.std))
        normalised = ((np.asarray(values, dtype=np.float64) - mean) / std).astype(np.float32)
        return torch.from_numpy(normalised).to(self.static.device)

    def denormalise(self, values: Tensor) -> np.ndarray:
        """Normalised prognostic channels (..., channel, latitude, longitude) to float32 in physical units."""
        mean, std = (a[: self.n_prognostic, None, None] for a in (self.mean, self.std))
        # What overflows comes out as infinite; those who look at forecasts tell of it.
        with np.errstate(over="ignore"):
            return (values.detach().cpu().numpy().astype(np.float64) * std + mean).astype(np.float32)

    def metadata(self) -> dict[str, Any]:
        """All but the weights and the static fields, JSON-ready."""
        return {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "channels": self.channels.to_dicts(),
            "latitude": self.latitude.tolist(),
            "longitude": self.longitude.tolist(),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "tendency_std": self.tendency_std.tolist(),
            "time_step": self.time_step,
            **({"network_module": module} if (module := network_module(self.config.name)) else {}),
            **({"trained_with": self.trained_with} if self.trained_with else {}),
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``model.safetensors`` and ``model.json`` to `folder`, which change together; returns the folder."""
        folder = Path(folder)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        write_model(folder, safetensors_bytes(tensors), self.metadata())
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Forecaster:
        """Read what `save` wrote, in evaluation mode on `device`.

        Raises
        ------
        ModelError
            When a file is missing, damaged or of another format, or its network is not known here.
        """
        folder = Path(folder)
        metadata, data = read_model(folder)
        if metadata.get("format") != FORMAT:
            raise ModelError(
                f"The model has format {metadata.get('format')!r}; this version reads {FORMAT!r}.",
                where=str(folder),
            )
        require_network(
            metadata["config"].get("name", "unet"), metadata.get("network_module", ""), str(folder)
        )
        channels = ChannelTable.from_dicts(metadata["channels"])
        grid = len(metadata["latitude"]), len(metadata["longitude"])
        forecaster = cls(
            _config_of(metadata, folder),
            channels,
            *(np.array(metadata[k]) for k in ("latitude", "longitude", "mean", "std", "tendency_std")),
            static=np.zeros((channels.n_static, *grid)),
            time_step=metadata["time_step"],
        )
        try:
            forecaster.load_state_dict(safetensors_from(data))
        except (SafetensorError, RuntimeError) as error:
            raise ModelError(f"The weights do not fit the model: {error}", where=str(folder)) from error
        forecaster.trained_with = metadata.get("trained_with", {})
        return forecaster.to(device).eval()

    def _check_statistics(self, mean: np.ndarray, std: np.ndarray, tendency_std: np.ndarray) -> None:
        n = len(self.channels)
        for name, values, need in (
            ("mean", mean, n),
            ("std", std, n),
            ("tendency_std", tendency_std, self.n_dynamic),
        ):
            if values.ndim != 1 or len(values) < min(need, self.n_dynamic):
                raise ModelError(f"{name} has shape {values.shape}; there are {need} channels to describe.")
            bad = ~np.isfinite(values[: self.n_dynamic])
            if name != "mean":
                bad |= values[: self.n_dynamic] <= 0
            # A forcing may be constant from one step to the next; only predicted channels need a tendency.
            bad = bad[: self.n_prognostic] if name == "tendency_std" else bad
            if bad.any():
                names = ", ".join(self.channels[int(i)].name for i in np.flatnonzero(bad)[:5])
                raise ModelError(
                    f"{name} is not {'finite' if name == 'mean' else 'positive and finite'} for {names}."
                )

    def _check(self, state: Tensor) -> None:
        if state.ndim != 4 or state.shape[1] != self.n_dynamic or tuple(state.shape[2:]) != self.grid_shape:
            raise ModelError(
                f"A state has shape {tuple(state.shape)}; this forecaster takes (batch, {self.n_dynamic}, "
                f"{self.grid_shape[0]}, {self.grid_shape[1]})."
            )

    @staticmethod
    def _input_dtype(state: Tensor) -> torch.dtype:
        # Stores hold float16, whose convolutions the CPU lacks; autocast lowers float32 again where it
        # should.
        return torch.float32 if state.dtype in (torch.float16, torch.bfloat16) else state.dtype


def _config_of(metadata: dict[str, Any], folder: Path) -> ModelConfig:
    """The configuration of a saved model; the edges of one that does not name them are as it was trained."""
    config = ModelConfig.from_dict(metadata["config"])
    if config.edges is not None:
        return config
    edges = SPHERE if config.boundary == "sphere" else Edges.uniform(config.boundary)
    if edges.is_sphere and not is_globe(np.array(metadata["latitude"]), np.array(metadata["longitude"])):
        logger.warning(
            "The model in %s was trained as if its grid closed on the sphere, which it does not: its opposite edges are "
            "joined. Train it again to have them right.",
            folder,
        )
    return replace(config, edges=edges)


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """``model.json`` of a saved forecaster, without building it; raises `ModelError` when damaged."""
    try:
        return unseal_json((Path(folder) / CONFIG_FILE).read_bytes())
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ModelError(f"The model cannot be read: {error}.", where=str(folder)) from error
