"""Forecasts from many initial times, made piece by piece and written as they come: memory holds one piece."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.fields.flatten import from_channels
from weathermill.forecasting.instability import ATTRIBUTE, InstabilityCheck
from weathermill.forecasting.states import StateReader
from weathermill.models.forecaster import Forecaster
from weathermill.progress import Progress
from weathermill.verification.times import add_hours

#: Aimed-at size of a chunk of one variable.
CHUNK_BYTES = 8 * 2**20

INIT_TIME = {"standard_name": "forecast_reference_time", "long_name": "initial time"}
LEAD_TIME = {"standard_name": "forecast_period", "long_name": "lead time", "units": "hours"}
VALID_TIME = {"standard_name": "time", "long_name": "valid time"}


def step_count(model: Forecaster, lead_time_hours: float) -> int:
    """How many steps reach a lead time, rounded up."""
    return max(1, math.ceil(lead_time_hours * 3600 / model.time_step - 1e-9))


def label(model: Forecaster, states: Any, init_times: np.ndarray, first_step: int = 1) -> xr.Dataset:
    """Put names, units and times to states.

    Parameters
    ----------
    model
        The network that made them.
    states
        (init_time, lead_time, prognostic channel, latitude, longitude), NumPy or Dask, physical units.
    init_times
        Initial times.
    first_step
        The time step of the first lead time.

    Returns
    -------
    xarray.Dataset
        Canonical variables (init_time, lead_time, [level,] latitude, longitude) with CF names of times; ``time`` is
        the valid time (init_time, lead_time).
    """
    channels = [c for c in model.channels.to_dicts() if c["role"] == "prognostic"]
    leads = model.time_step / 3600 * (first_step + np.arange(states.shape[1]))
    array = xr.DataArray(
        states,
        dims=("init_time", "lead_time", "channel", "latitude", "longitude"),
        coords={
            "init_time": ("init_time", init_times, INIT_TIME),
            "lead_time": ("lead_time", leads, LEAD_TIME),
            "channel": [c["name"] for c in channels],
            "latitude": ("latitude", model.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": (
                "longitude",
                model.longitude,
                {"standard_name": "longitude", "units": "degrees_east"},
            ),
        },
    )
    result = from_channels(array, channels)
    valid = np.stack([add_hours(init_times, float(lead)) for lead in leads], axis=1)
    result = result.assign_coords(time=(("init_time", "lead_time"), valid, VALID_TIME))
    result.attrs |= {
        "Conventions": "CF-1.11",
        "title": "Weathermill forecast",
        "source": f"{model.config.name} trained by weathermill",
    }
    return result


class ForecastStream:
    """Forecasts that are made while they are iterated over.

    Parameters
    ----------
    model
        The network, on the device where it shall run.
    reader
        Where initial states come from.
    positions
        Of the initial states in ``reader.times``.
    lead_time_hours
        How far, rounded up to a time step.
    batch_size
        Forecasts at once.
    chunk_bytes
        Aimed-at size of a chunk of one variable.
    """

    def __init__(
        self,
        model: Forecaster,
        reader: StateReader,
        positions: Sequence[int],
        *,
        lead_time_hours: float = 240.0,
        batch_size: int = 8,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.model, self.reader, self.positions = model, reader, list(positions)
        self.steps = step_count(model, lead_time_hours)
        self.batch_size = min(batch_size, len(self.positions))
        self.init_times = reader.times[self.positions]
        level_counts: dict[str, int] = {}
        for index in model.channels.prognostic:
            variable = model.channels[index].variable
            level_counts[variable] = level_counts.get(variable, 0) + 1
        largest = 4 * max(level_counts.values()) * math.prod(model.grid_shape)
        self.lead_chunk = min(self.steps, max(1, chunk_bytes // largest))
        #: What is unstable in the forecasts that were made last, or None.
        self.warning: str | None = None
        fits = self.batch_size * self.lead_chunk * largest <= chunk_bytes
        self.init_chunk = self.batch_size if fits else 1

    def template(self) -> xr.Dataset:
        """The whole result, of zeros that take no memory, in the chunks of the store."""
        shape = (len(self.positions), self.steps, self.model.n_prognostic, *self.model.grid_shape)
        chunks = (self.init_chunk, self.lead_chunk, *shape[2:])
        return label(self.model, da.zeros(shape, dtype=np.float32, chunks=chunks), self.init_times)

    def __iter__(self) -> Iterator[tuple[dict[str, slice], xr.Dataset]]:
        """Yield pieces: where each belongs, and what it is.

        Where forecasts are unstable, that is logged at the end, `warning` says it, and so does the attribute
        ``forecast_warning`` of the pieces from there on.
        """
        total = len(self.positions) * self.steps
        limits = self.reader.limits
        names = [self.model.channels[i].name for i in self.model.channels.prognostic]
        check = InstabilityCheck(self.model, [limits[name] for name in names])
        self.warning = None
        try:
            yield from self._pieces(check, total)
        finally:
            # Also where the consumer stops early: what was made so far is told.
            self.warning = check.tell()

    def _pieces(self, check: InstabilityCheck, total: int) -> Iterator[tuple[dict[str, slice], xr.Dataset]]:
        with Progress("forecast", total, "forecast steps") as progress:
            for first in range(0, len(self.positions), self.batch_size):
                batch = self.positions[first : first + self.batch_size]
                where = slice(first, first + len(batch))
                initial, times = self.reader.read(batch).values, self.reader.times[batch]
                check.begin(initial, times)
                gathered: list[np.ndarray] = []
                forcings = self.reader.forcings(batch, self.steps)
                rollout = self.model.rollout_physical(initial, self.steps, forcings)
                for step, state in enumerate(rollout, start=1):
                    check.look(state, step)
                    gathered.append(state)
                    progress.update(len(batch))
                    if len(gathered) == self.lead_chunk or step == self.steps:
                        begin = step - len(gathered)
                        piece = label(self.model, np.stack(gathered, axis=1), times, begin + 1)
                        if check.warning is not None:
                            piece.attrs[ATTRIBUTE] = check.warning
                        yield {"init_time": where, "lead_time": slice(begin, step)}, piece
                        gathered = []

    def to_zarr(self, path: str | Path) -> None:
        """Write a Zarr v3 store, piece by piece; at ``path`` there must be nothing yet."""
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        template = self.template()
        # The checksum has a flipped bit noticed as it is read, instead of decoded to another value.
        compressors = (ZstdCodec(), Crc32cCodec())
        encoding: dict[str, dict[str, Any]] = {
            name: {"chunks": tuple(chunks[0] for chunks in variable.chunks), "compressors": compressors}
            for name, variable in template.data_vars.items()
        }
        for name in ("init_time", "time"):
            first = template[name].values.flat[0]
            encoding[name] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
            if not isinstance(first, np.datetime64):
                encoding[name]["calendar"] = first.calendar
        template.to_zarr(path, mode="w-", zarr_format=3, compute=False, encoding=encoding, consolidated=False)
        for region, piece in self:
            piece.attrs.pop(ATTRIBUTE, None)
            piece.drop_vars(list(piece.coords)).to_zarr(path, region=region, consolidated=False)
        if self.warning is not None:
            zarr.open_group(path, mode="r+").attrs[ATTRIBUTE] = self.warning
