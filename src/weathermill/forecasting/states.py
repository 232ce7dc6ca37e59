"""Initial states for a network, from any source that can be ingested."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import EmptySelectionError, GridError, MissingDataError, ModelError, ParameterError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding
from weathermill.fields.flatten import to_channels
from weathermill.fields.grids import build_grid, grid_hash, grid_of
from weathermill.fields.own_cells import same_points
from weathermill.fields.plausibility import Limits
from weathermill.fields.regridding import RegridWeights, apply_weights, make_weights
from weathermill.fields.timeaxis import to_axis_type
from weathermill.fields.weight_making import grid_shape
from weathermill.forecasting.forcings import ForcingReader, Formulas
from weathermill.forecasting.options import ReadOptions
from weathermill.forecasting.plausibility import judge_states
from weathermill.models.forecaster import Forecaster
from weathermill.tensors.channels import Channel
from weathermill.verification.times import add_hours, time_key

logger = logging.getLogger(__name__)


def wanted_variables(channels: Sequence[Channel]) -> dict[str, Any]:
    """The arguments of ``canonicalise`` that give some channels."""
    pressure = [c for c in channels if c.level is not None]
    surface = [c.name for c in channels if c.level is None]
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
        How the states are regridded, where they are on another grid; None refuses them.
    vectors
        Regrid wind components through three-dimensional tangent vectors.
    options
        What is said of the sources; see `ReadOptions`.
    target
        The grid of the network with its cells, where these do not meet midway between points.

    Raises
    ------
    MissingVariableError, MissingLevelError, UnitsError
        As ``canonicalise``.
    GridError
        If the states are on another grid and there is no method, or do not cover the network's.
    """

    def __init__(
        self,
        datasets: Sequence[xr.Dataset],
        model: Forecaster,
        *,
        names: Sequence[str] | None = None,
        method: str | None = "conservative",
        vectors: bool = False,
        options: ReadOptions | None = None,
        target: xr.Dataset | None = None,
    ) -> None:
        self.names, self._method, self._vectors = list(names or []), method, vectors
        self._options = options or ReadOptions()
        self._missing = model.missing
        self._target = build_grid(model.latitude, model.longitude)
        if target is not None and same_points(target, self._target):
            self._target = target
        self._weights: dict[str, RegridWeights] = {}
        table = model.channels
        wanted = wanted_variables([table[i] for i in table.prognostic])
        self._findings: list[Finding] = []
        self._told: list[str] = []
        fields = canonicalise(
            datasets, **wanted, **self._options.of_canonicalise, source_names=names, findings=self._findings
        )
        self._limits = {c.name: self._options.limits_of(c.variable, c.level) for c in table}
        self.source_grid = grid_of(fields)
        if same_points(self.source_grid, self._target):
            # The training took these points with their own cells, too.
            self._target = self.source_grid
        if self.regrids and method is not None:
            logger.info("The initial states are regridded to the grid of the network (%s)", method)
        fields = self._regridded(self._options.prepared(fields))
        channels, _ = to_channels(fields, prognostic=[*wanted["variables"], *wanted["surface_variables"]])
        self._states = channels.sel(channel=[table[i].name for i in table.prognostic])
        self._step_hours = model.time_step / 3600
        self.times: np.ndarray = fields["time"].values
        self._forcings: ForcingReader | None = None
        if table.n_forcing:
            self._forcings = ForcingReader(
                datasets,
                [table[i] for i in table.forcing],
                model.std[table.forcing],
                names=names,
                options=self._options,
                regrid=self._regridded,
                formulas=lambda wanted: Formulas(
                    wanted, self.source_grid, self._weights_from(self.source_grid), self._target
                ),
                shape=model.grid_shape,
            )

    @property
    def limits(self) -> dict[str, Limits]:
        """Physical limits of the network's channels by name: the user's, else those of the vocabulary."""
        return dict(self._limits)

    @property
    def regrids(self) -> bool:
        """Whether the states come on another grid than the network's."""
        return grid_hash(self.source_grid) != grid_hash(self._target)

    @property
    def notes(self) -> list[str]:
        """What had to be assumed of the sources, and what of the states they do not hold."""
        assumed = [
            f"{each.subject}: {each.message}." for each in self._findings if each.severity == "warning"
        ]
        made = [] if self._forcings is None else self._forcings.unread
        return assumed + self._told + ([f"{', '.join(made)}: computed from time and place."] if made else [])

    def _weights_from(self, grid: xr.Dataset) -> RegridWeights | None:
        if grid_hash(grid) == grid_hash(self._target) or same_points(grid, self._target):
            return None
        if (key := grid_hash(grid)) not in self._weights:
            self._weights[key] = self._make_weights(grid)
        return self._weights[key]

    def _make_weights(self, grid: xr.Dataset) -> RegridWeights:
        sizes = [" x ".join(map(str, grid_shape(each))) for each in (grid, self._target)]
        where = ", ".join(self.names) or None
        if self._method is None:
            raise GridError(
                f"the states are on a grid of {sizes[0]} ({_span(grid)}), the network's is {sizes[1]}"
                f" ({_span(self._target)})",
                where=where,
                remedy="Regrid them, or name the method by which they shall be: conservative or bilinear"
                ' (of a request, params {"regrid": "conservative"}).',
            )
        weights = make_weights(grid, self._target, self._method)
        covered = float(weights.mapped().mean())
        if covered < 1:
            raise GridError(
                f"the states cover {100 * covered:.3g} % of the network's grid: they are on {sizes[0]} ({_span(grid)}),"
                f" the network is on {sizes[1]} ({_span(self._target)})",
                where=where,
                remedy="Give states that cover the whole grid of the network.",
            )
        return weights

    def _regridded(self, fields: xr.Dataset) -> xr.Dataset:
        weights = self._weights_from(grid_of(fields))
        return (
            fields if weights is None else apply_weights(fields, weights, self._target, vectors=self._vectors)
        )

    def index(self, time: Any) -> int:
        """The position of the state at a time (ISO 8601, datetime64 or cftime).

        Raises
        ------
        EmptySelectionError
            If there is no state at that time; it says which there are.
        """
        found = np.flatnonzero(self.times == _on_axis(time, self.times))
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
        inside = np.ones(len(self.times), dtype=bool)
        if start is not None:
            inside &= self.times >= _on_axis(start, self.times)
        if stop is not None:
            inside &= self.times < _on_axis(stop, self.times)
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

        That is the last one of all, or, for a network with forcings that are read, the last from which the source holds
        them.

        Raises
        ------
        ModelError
            If the source holds the forcings from no state for so long.
        """
        for position in reversed(range(len(self.times))):
            if not self._lacking(position, steps):
                return position
        raise self._lacks_forcings(self.times[0], steps)

    def forcings(self, positions: Sequence[int], steps: int) -> np.ndarray | None:
        """Give the forcings at the ends of all steps but the last.

        Those that the source holds are read; those that time and place determine go on by their formula beyond it; see
        `weathermill.forecasting.forcings.ForcingReader`.

        Returns
        -------
        numpy.ndarray or None
            (n, steps - 1, forcing, latitude, longitude), float32, physical units; None where there are none.

        Raises
        ------
        ModelError
            If the source lacks a time of a forcing that cannot be computed, or differs from the formula of one that can.
        MissingDataError
            If forcings have missing values.
        """
        if self._forcings is None or steps < 2:
            return None
        for position in positions:
            if self._lacking(position, steps):
                raise self._lacks_forcings(self.times[position], steps)
        windows = [self._valid_times(position, steps)[1:-1] for position in positions]
        needed = {time_key(time): time for window in windows for time in window}
        # Forecasts from many times overlap: each time is read or computed once.
        values = self._checked(self._forcings.at(np.array(list(needed.values())))).values
        place = {key: i for i, key in enumerate(needed)}
        return np.stack([values[[place[time_key(time)] for time in window]] for window in windows])

    def _valid_times(self, position: int, steps: int) -> np.ndarray:
        start = self.times[[position]]
        return np.concatenate([add_hours(start, self._step_hours * step) for step in range(steps + 1)])

    def _lacking(self, position: int, steps: int) -> list[str]:
        if self._forcings is None:
            return []
        return self._forcings.lacking(self._valid_times(position, steps)[:-1])

    def _lacks_forcings(self, time: Any, steps: int) -> ModelError:
        lacking = self._forcings.lacking(self._valid_times(self.index(time), steps)[:-1])
        return ModelError(
            f"the network needs forcings ({', '.join(lacking)}) at every step, and the source does not hold them"
            f" for {self._step_hours * (steps - 1):g} h from {_text(time)}; it ends at {_text(self._forcings.last)}",
            where=", ".join(self.names) or None,
            remedy="Choose an earlier initial time or a shorter lead time, or add a source with the forcings to come.",
        )

    def read(self, positions: Sequence[int], *, judge: bool = True) -> xr.DataArray:
        """Read some states: (time, channel, latitude, longitude), float32, physical units, forcings included.

        Parameters
        ----------
        positions
            In ``times``.
        judge
            Whether values are held to their physical limits; without, only what cannot be is refused as it is read.

        Raises
        ------
        MissingDataError
            If a state has missing values; it names channels and time.
        ImplausibleValueError
            If values are infinite, stand for missing ones, or lie beyond the physical limits in more than one per cent
            of a channel; fewer are warned of.
        """
        states = self._states.isel(time=list(positions)).compute()
        if self._forcings is not None:
            forcings = self._forcings.at(self.times[list(positions)])
            coords = {name: states[name] for name in ("time", "latitude", "longitude")}
            names = [*states["channel"].values.tolist(), *forcings["channel"].values.tolist()]
            data = np.concatenate([states.values, forcings.values], axis=1)
            states = xr.DataArray(data, dims=states.dims, coords={**coords, "channel": names})
        return self._checked(states, judge)

    def _checked(self, states: xr.DataArray, judge: bool = True) -> xr.DataArray:
        names = [str(name) for name in states["channel"].values]
        for time, values in zip(states["time"].values, states.values, strict=True):
            if bad := self._missing.unexpected(values[None], names):
                raise MissingDataError(
                    f"the state at {_text(time)} has missing values in {', '.join(bad)}",
                    where=", ".join(self.names) or None,
                    remedy="Choose another initial time, or fill the gaps: in the source, or by ingest.fill. A network takes"
                    " them only where it was trained with them (ingest.allow_missing).",
                )
        if not judge:
            return states
        limits = [self._limits[name] for name in names]
        times = [_text(time) for time in states["time"].values]
        for note in judge_states(states.values, names, limits, times, where=", ".join(self.names) or None):
            if note not in self._told:
                logger.warning("%s", note)
                self._told.append(note)
        return states


def _span(grid: xr.Dataset) -> str:
    axes = [(grid[axis].values.min(), grid[axis].values.max()) for axis in ("latitude", "longitude")]
    return ", ".join(
        f"{axis} {low:g} to {high:g}"
        for axis, (low, high) in zip(("latitudes", "longitudes"), axes, strict=True)
    )


def _on_axis(time: Any, times: np.ndarray) -> Any:
    try:
        return to_axis_type(time, times)
    except ParameterError as error:
        raise EmptySelectionError(
            f"{time!r} is not a time of the source: {error.what}",
            remedy="Write times as ISO 8601, such as 2020-01-31T06:00, in the calendar of the source.",
        ) from error


def _text(time: Any) -> str:
    return str(np.datetime_as_string(time, "m")) if isinstance(time, np.datetime64) else time.isoformat()
