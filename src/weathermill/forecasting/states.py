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
    """The arguments of ``canonicalise`` that give the prognostic and forcing channels of a network.

    Static channels are not among them: the network carries its own.
    """
    dynamic = [channels[i] for i in channels.dynamic]
    pressure = [c for c in dynamic if c.level is not None]
    surface = [c.name for c in dynamic if c.level is None]
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
        self._states = channels.sel(channel=[model.channels[i].name for i in model.channels.dynamic])
        self._forcings = [model.channels[i].name for i in model.channels.forcing]
        self._step_hours = model.time_step / 3600
        self._by_time: dict[str, int] | None = None
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

    def last(self, steps: int) -> int:
        """The position of the last state from which a forecast of ``steps`` steps can be made.

        That is the last one of all, or, for a network with forcings, the last from which the source holds them.

        Raises
        ------
        ModelError
            If the source holds the forcings from no state for so long.
        """
        for position in reversed(range(len(self.times))):
            if not self._missing_forcing(position, steps):
                return position
        raise self._lacks_forcings(self.times[0], steps)

    def forcings(self, positions: Sequence[int], steps: int) -> np.ndarray | None:
        """Read the forcings at the ends of all steps but the last.

        Returns
        -------
        numpy.ndarray or None
            (n, steps - 1, forcing, latitude, longitude), float32, physical units; None where there are none to read.

        Raises
        ------
        ModelError
            If the source lacks a time.
        MissingDataError
            If forcings have missing values.
        """
        if not self._forcings or steps < 2:
            return None
        windows = []
        for position in positions:
            if self._missing_forcing(position, steps):
                raise self._lacks_forcings(self.times[position], steps)
            windows.append(self._valid_positions(position, steps))
        needed = sorted({index for window in windows for index in window})
        values = self._checked(self._states.sel(channel=self._forcings).isel(time=needed).compute()).values
        place = {index: i for i, index in enumerate(needed)}
        return np.stack([values[[place[index] for index in window]] for window in windows])

    def _valid_positions(self, position: int, steps: int) -> list[int | None]:
        keys = self._positions_by_time()
        start = self.times[[position]]
        later = [add_hours(start, self._step_hours * step)[0] for step in range(1, steps)]
        return [keys.get(_text(time)) for time in later]

    def _positions_by_time(self) -> dict[str, int]:
        if self._by_time is None:
            self._by_time = {_text(time): i for i, time in enumerate(self.times)}
        return self._by_time

    def _missing_forcing(self, position: int, steps: int) -> bool:
        return bool(self._forcings) and None in self._valid_positions(position, steps)

    def _lacks_forcings(self, time: Any, steps: int) -> ModelError:
        return ModelError(
            f"the network needs forcings ({', '.join(self._forcings)}) at every step, and the source does not hold them"
            f" for {self._step_hours * (steps - 1):g} h from {_text(time)}; it ends at {_text(self.times[-1])}",
            where=", ".join(self.names) or None,
            remedy="Choose an earlier initial time or a shorter lead time, or add a source with the forcings to come.",
        )

    def read(self, positions: Sequence[int]) -> xr.DataArray:
        """Read some states: (time, channel, latitude, longitude), float32, physical units, forcings included.

        Raises
        ------
        MissingDataError
            If a state has missing values; it names channels and time.
        """
        return self._checked(self._states.isel(time=list(positions)).compute())

    def _checked(self, states: xr.DataArray) -> xr.DataArray:
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
