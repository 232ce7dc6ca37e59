"""The forcings of a network at any time: from the sources as far as they reach, else from their formulas."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import MissingVariableError, ModelError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.derived import DERIVATIONS, fields_of_time_and_place
from weathermill.fields.grids import grid_hash
from weathermill.fields.own_cells import same_points
from weathermill.fields.regridding import RegridWeights, apply_weights
from weathermill.fields.survey import find_offers, survey
from weathermill.forecasting.options import ReadOptions
from weathermill.tensors.channels import Channel
from weathermill.verification.times import time_key

logger = logging.getLogger(__name__)

#: The root mean square difference, in standard deviations of the forcing over the training period, up to which a formula
#: may go on where the fields of a source or a store end.
TOLERANCE = 0.05


def is_computable(name: str) -> bool:
    """Whether a forcing follows from time and place, so that it is known for all times."""
    return name in DERIVATIONS and DERIVATIONS[name].of_time_and_place


class Formulas:
    """Forcings of time and place as ingest and regridding would make them.

    They are computed on the grid of the source and regridded, because the mean of an insolation over a cell is not the
    insolation at its centre.

    Parameters
    ----------
    names
        Of the forcings; each must be computable.
    grid
        Of the source.
    weights
        From that grid to ``target``; None where they are one.
    target
        The grid of the network.
    """

    def __init__(
        self, names: Sequence[str], grid: xr.Dataset, weights: RegridWeights | None, target: xr.Dataset
    ) -> None:
        self.names, self._grid, self._weights, self._target = list(names), grid, weights, target

    @classmethod
    def of_weights(cls, names: Sequence[str], weights: RegridWeights, target: xr.Dataset) -> Formulas:
        """Take the source's grid from the weights that a store was regridded with."""
        target = weights.target if same_points(weights.target, target) else target
        same = grid_hash(weights.source) == grid_hash(target)
        return cls(names, weights.source, None if same else weights, target)

    def at(self, times: np.ndarray) -> np.ndarray:
        """Compute (time, forcing, latitude, longitude), float32, physical units."""
        fields = fields_of_time_and_place(self.names, times, self._grid)
        if self._weights is not None:
            fields = apply_weights(fields, self._weights, self._target)
        return np.stack([fields[name].values for name in self.names], axis=1)

    def departures(self, held: np.ndarray, times: np.ndarray, std: np.ndarray) -> np.ndarray:
        """By how many standard deviations fields depart from the formulas: root mean square, (forcing,).

        Parameters
        ----------
        held
            (time, forcing, latitude, longitude) in physical units.
        times
            Their times.
        std
            Of each forcing over the training period.
        """
        difference = np.asarray(held, dtype=np.float64) - self.at(times)
        return np.sqrt((difference**2).mean(axis=(0, 2, 3))) / std


class ForcingReader:
    """The forcings of a network at any time, on its grid.

    A forcing that the sources hold is read from them. One that follows from time and place goes on by its formula where
    they end, if the two agree where they meet; what no source holds comes from the formula alone.

    Parameters
    ----------
    datasets, names
        Sources as opened, and what they are called.
    channels
        The forcing channels of the network.
    std
        Of each, over the training period.
    options
        What is said of the sources.
    regrid
        Canonical fields -> fields on the network's grid.
    formulas
        Names of computable forcings -> how they are computed.
    shape
        Of the network's grid.

    Raises
    ------
    MissingVariableError, MissingLevelError, UnitsError
        Where a forcing is neither in the sources nor computable.
    """

    def __init__(
        self,
        datasets: Sequence[xr.Dataset],
        channels: Sequence[Channel],
        std: np.ndarray,
        *,
        names: Sequence[str] | None,
        options: ReadOptions,
        regrid: Callable[[xr.Dataset], xr.Dataset],
        formulas: Callable[[Sequence[str]], Formulas],
        shape: tuple[int, int],
    ) -> None:
        self._names, self._sources = [channel.name for channel in channels], list(names or [])
        self._shape = shape
        self._std, self._formulas = dict(zip(self._names, std, strict=True)), formulas
        self.computed = [name for name in self._names if is_computable(name)]
        offered = _offered(datasets, names, self.computed, options)
        self.unread = [name for name in self.computed if name not in offered]
        read = [channel for channel in channels if channel.name not in self.unread]
        self.read_names = [channel.name for channel in read]
        self._fields, self._places = xr.Dataset(), dict[str, int]()
        self._agreed: set[str] = set()
        if read:
            # By themselves: forcings may be there for times that the state is not, such as the future.
            fields = canonicalise(
                datasets,
                variables=[channel.name for channel in read if channel.level is not None],
                surface_variables=[channel.name for channel in read if channel.level is None],
                source_names=names,
                **options.of_canonicalise,
            )
            self._fields = regrid(options.prepared(fields))
            self._places = {time_key(time): i for i, time in enumerate(fields["time"].values)}

    @property
    def last(self) -> Any:
        """The last time at which there are forcings that are read."""
        return self._fields["time"].values[-1]

    def lacking(self, times: np.ndarray) -> list[str]:
        """The forcings that cannot be had at all of some times."""
        if all(time_key(time) in self._places for time in times):
            return []
        return [name for name in self.read_names if name not in self.computed]

    def at(self, times: np.ndarray) -> xr.DataArray:
        """Give (time, channel, latitude, longitude), float32, physical units, possibly with missing values.

        Parameters
        ----------
        times
            None of which a forcing is `lacking` at.

        Raises
        ------
        ModelError
            If a formula would have to go on where fields end that it does not agree with.
        """
        held = np.array([time_key(time) in self._places for time in times], dtype=bool)
        columns = {name: np.empty((len(times), *self._shape), np.float32) for name in self._names}
        if self.read_names and held.any():
            read = (
                self._fields[self.read_names]
                .isel(time=[self._places[time_key(t)] for t in times[held]])
                .compute()
            )
            for name in self.read_names:
                columns[name][held] = read[name].values
        wanted = [name for name in self.computed if name in self.unread or not held.all()]
        continued = [name for name in wanted if name not in self.unread]
        if continued:
            self._require_agreement(continued, times[held][-1] if held.any() else self.last)
        if wanted:
            made = self._formulas(wanted).at(times)
            for position, name in enumerate(wanted):
                places = ~held if name in continued else slice(None)
                columns[name][places] = made[places, position]
        data = np.stack([columns[name] for name in self._names], axis=1)
        coords = {"time": times, "channel": self._names}
        return xr.DataArray(data, dims=("time", "channel", "latitude", "longitude"), coords=coords)

    def _require_agreement(self, names: list[str], time: Any) -> None:
        names = [name for name in names if name not in self._agreed]
        if not names:
            return
        known = self._fields[names].isel(time=[self._places[time_key(time)]]).compute()
        held = np.stack([known[name].values for name in names], axis=1)
        std = np.array([self._std[name] for name in names])
        departures = self._formulas(names).departures(held, np.array([time]), std)
        require_agreement(names, departures, time_key(time), where=", ".join(self._sources) or None)
        self._agreed.update(names)


def require_agreement(
    names: Sequence[str], departures: np.ndarray, when: str, *, where: str | None = None
) -> None:
    """Refuse that fields go on by a formula that does not give the fields there are.

    Parameters
    ----------
    names, departures
        Forcings, and by how many standard deviations each departs from its formula.
    when
        At which time.
    where
        The source.

    Raises
    ------
    ModelError
        If one departs by more than `TOLERANCE`.
    """
    for name, departure in zip(names, departures, strict=True):
        if not departure <= TOLERANCE:
            raise ModelError(
                f"{name} cannot go on by its formula where the source ends: at {when} the two differ by {departure:.2g}"
                f" standard deviations, more than {TOLERANCE:g}",
                where=where,
                remedy="Choose an earlier initial time or a shorter lead time, or add a source with the forcings to come;"
                " or leave the variable out of the source, if the network was trained on the computed one.",
            )
        logger.info(
            "%s goes on by its formula, which differs by %.2g standard deviations at %s",
            name,
            departure,
            when,
        )


def _offered(
    datasets: Sequence[xr.Dataset],
    names: Sequence[str] | None,
    wanted: Sequence[str],
    options: ReadOptions,
) -> set[str]:
    if not wanted:
        return set()
    surveyed, offered = survey(datasets, names, [], options.of_survey), set()
    for name in wanted:
        try:
            find_offers(name, surveyed, on_levels=False)
        except MissingVariableError:
            continue
        offered.add(name)
    return offered
