"""Initial states for a network, from any source that can be ingested."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import cftime
import numpy as np
import xarray as xr

from weathermill.errors import EmptySelectionError, MissingDataError, ModelError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.flatten import to_channels
from weathermill.fields.grids import build_grid, grid_hash, grid_of
from weathermill.fields.regridding import apply_weights, make_weights
from weathermill.models.forecaster import Forecaster
from weathermill.tensors.channels import ChannelTable
from weathermill.verification.times import add_hours

logger = logging.getLogger(__name__)


def wanted_variables(channels: ChannelTable) -> dict[str, Any]:
    """The arguments of ``canonicalise`` that give the prognostic channels of a network.

    Static channels are not among them: the network carries its own.

    Raises
    ------
    ModelError
        If the network needs forcings, which no initial state gives for the times to come.
    """
    forcings = [c.name for c in channels if c.role == "forcing"]
    if forcings:
        raise ModelError(
            f"the network needs forcings ({', '.join(forcings)}) at every step, which an initial state does not give",
            remedy="Forecast from a tensor store that holds them (Forecaster.rollout_physical with forcings), or train"
            " without them.",
        )
    pressure = [c for c in channels if c.role == "prognostic" and c.level is not None]
    surface = [c.name for c in channels if c.role == "prognostic" and c.level is None]
    levels = {
        variable: {c.level for c in pressure if c.variable == variable}
        for variable in dict.fromkeys(c.variable for c in pressure)
    }
    common = {level for held in levels.values() for level in held}
    if all(held == common for held in levels.values()):
        return {
            "variables": list(levels),
            "surface_variables": surface,
            "levels": sorted(common) if common else None,
        }
    # Variables that differ in their levels are asked for level by level, so that none is asked for what nobody needs.
    return {"variables": [c.name for c in pressure], "surface_variables": surface, "levels": None}


class StateReader:
    """The states of some sources, on the grid and in the channels of a network, read when they are asked for.

    Parameters
    ----------
    datasets
        Sources as opened; see ``weathermill.fields.opening``.
    model
        The network.
    names
        Of the sources, for messages.
    method
        How the states are regridded, where they are on another grid.
    vectors
        Regrid wind components through three-dimensional tangent vectors.

    Raises
    ------
    ModelError
        If the network needs forcings.
    MissingVariableError, MissingLevelError, UnitsError
        As ``canonicalise``.
    """

    def __init__(
        self,
        datasets: Sequence[xr.Dataset],
        model: Forecaster,
        *,
        names: Sequence[str] | None = None,
        method: str = "conservative",
        vectors: bool = False,
    ) -> None:
        wanted = wanted_variables(model.channels)
        self.names = list(names or [])
        fields = canonicalise(datasets, **wanted, source_names=names)
        target = build_grid(model.latitude, model.longitude)
        if grid_hash(grid_of(fields)) != grid_hash(target):
            logger.info("The initial states are regridded to the grid of the network (%s)", method)
            weights = make_weights(grid_of(fields), target, method)
            fields = apply_weights(fields, weights, target, vectors=vectors)
        channels, _ = to_channels(fields, prognostic=[*wanted["variables"], *wanted["surface_variables"]])
        self._states = channels.sel(channel=[model.channels[i].name for i in model.channels.prognostic])
        self.times: np.ndarray = fields["time"].values

    def index(self, time: Any) -> int:
        """The position of the state at a time (ISO 8601, datetime64 or cftime).

        Raises
        ------
        EmptySelectionError
            If there is no state at that time; it says which there are.
        """
        if np.issubdtype(self.times.dtype, np.datetime64):
            found = np.flatnonzero(self.times == _datetime64(time))
        else:
            wanted = time.isoformat() if isinstance(time, cftime.datetime) else str(_datetime64(time, "s"))
            found = np.flatnonzero([t.isoformat() == wanted for t in self.times])
        if not found.size:
            raise EmptySelectionError(
                f"there is no state at {time}; the source has {len(self.times)}, from {_text(self.times[0])} to"
                f" {_text(self.times[-1])}",
                where=", ".join(self.names) or None,
                remedy="Choose another initial time.",
            )
        return int(found[0])

    def choose(
        self,
        times: Sequence[Any] | None = None,
        *,
        start: str | None = None,
        stop: str | None = None,
        every_hours: float | None = None,
    ) -> list[int]:
        """The positions of many states: those of ``times``, or those in [start, stop), ``every_hours`` apart.

        Raises
        ------
        EmptySelectionError
            If a time is not there, or none is left.
        """
        if times is not None:
            return sorted({self.index(time) for time in times})
        plain = np.issubdtype(self.times.dtype, np.datetime64)
        keys = self.times if plain else np.array([time.isoformat() for time in self.times])

        def key(time: str) -> Any:
            return _datetime64(time) if plain else str(_datetime64(time, "s"))

        inside = np.ones(len(keys), dtype=bool)
        if start is not None:
            inside &= keys >= key(start)
        if stop is not None:
            inside &= keys < key(stop)
        chosen = np.flatnonzero(inside).tolist()
        if every_hours is not None and chosen:
            first, last = self.times[chosen[0]], self.times[chosen[-1]]
            wanted, time = set(), first
            while time <= last:
                wanted.add(_text(time))
                time = add_hours(np.array([time]), every_hours)[0]
            chosen = [i for i in chosen if _text(self.times[i]) in wanted]
        if not chosen:
            raise EmptySelectionError(
                f"no state lies in [{start or 'the beginning'}, {stop or 'the end'}); the source runs from"
                f" {_text(self.times[0])} to {_text(self.times[-1])}",
                where=", ".join(self.names) or None,
                remedy="Choose other initial times.",
            )
        return chosen

    def read(self, positions: Sequence[int]) -> xr.DataArray:
        """Read some states: (time, channel, latitude, longitude), float32, physical units.

        Raises
        ------
        MissingDataError
            If a state has missing values; it names channels and time.
        """
        states = self._states.isel(time=list(positions)).compute()
        absent = states.isnull().any(("latitude", "longitude"))
        if bool(absent.any()):
            at = int(np.flatnonzero(absent.any("channel").values)[0])
            channels = states["channel"].values[absent.isel(time=at).values]
            raise MissingDataError(
                f"the initial state at {_text(states['time'].values[at])} has missing values in"
                f" {', '.join(map(str, channels))}",
                where=", ".join(self.names) or None,
                remedy="Choose another initial time, or fill the gaps in the source.",
            )
        return states


def _datetime64(time: Any, unit: str = "ns") -> np.datetime64:
    try:
        return np.datetime64(time, unit)
    except ValueError as error:
        raise EmptySelectionError(
            f"{time!r} is not a time", remedy="Write times as ISO 8601, such as 2020-01-31T06:00."
        ) from error


def _text(time: Any) -> str:
    return str(np.datetime_as_string(time, "m")) if isinstance(time, np.datetime64) else time.isoformat()
