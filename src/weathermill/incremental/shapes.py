"""How much data a run will handle: times, channels and cells, from axes alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from kedro.io import DataCatalog

from weathermill.errors import WeathermillError
from weathermill.fields.choices import SourceOptions
from weathermill.fields.findings import Held
from weathermill.fields.grids import named_grid
from weathermill.fields.survey import Source, survey
from weathermill.fields.vocabulary import CONVENTIONS, split_flat_name
from weathermill.parameters import IngestParameters, Parameters
from weathermill.tensors.store import TensorStore

logger = logging.getLogger(__name__)

FLOAT = 4


@dataclass(frozen=True)
class Shapes:
    """Sizes of the data of a run.

    Parameters
    ----------
    times
        Time steps.
    levels
        Pressure levels of each variable that has them.
    prognostic, forcing, static
        Channels of each role.
    source
        Rows and columns of the source grid; a list of points has one row.
    target
        Those of the network's grid.
    step_hours
        The time step; 6 where one time alone does not tell.
    axes
        Latitudes and longitudes of the network's grid in degrees; None where they are not known.
    time_axis
        The times themselves, where fields will be made of sources; else None.
    curvilinear
        Whether the source grid is.
    """

    times: int
    levels: int
    prognostic: int
    forcing: int
    static: int
    source: tuple[int, int]
    target: tuple[int, int]
    step_hours: float = 6.0
    axes: tuple[np.ndarray, np.ndarray] | None = field(default=None, compare=False, repr=False)
    time_axis: np.ndarray | None = field(default=None, compare=False, repr=False)
    curvilinear: bool = False

    @property
    def whole(self) -> bool:
        """Whether there is anything of everything; nothing can be predicted of nothing."""
        return min(self.times, self.prognostic, *self.source, *self.target) > 0

    @property
    def dynamic(self) -> int:
        """Channels that vary in time."""
        return self.prognostic + self.forcing

    @property
    def source_step(self) -> int:
        """Bytes of one time step of all variables on the source grid, float32."""
        return self.dynamic * math.prod(self.source) * FLOAT

    @property
    def target_step(self) -> int:
        """Bytes of one time step of all channels on the network's grid, float32."""
        return self.dynamic * math.prod(self.target) * FLOAT

    @property
    def cells(self) -> int:
        """Cells of the network's grid."""
        return math.prod(self.target)

    def steps(self, hours: float) -> int:
        """Forecast steps that reach a lead time."""
        return max(1, round(hours / self.step_hours))


def shapes_of(catalog: DataCatalog, parameters: Parameters, made: Collection[str]) -> Shapes | None:
    """Find out how much data a run will handle, without reading any.

    Parameters
    ----------
    catalog
        The catalog.
    parameters
        All parameters.
    made
        Outputs that the run will make anew: their sizes are those of what they are made of.

    Returns
    -------
    Shapes or None
        None where neither the stores nor the sources can say.
    """
    for name, read in (("tensors", _of_store), ("fields", _of_fields), ("raw_fields", _of_sources)):
        if name in made or name not in catalog or (name != "raw_fields" and not catalog.exists(name)):
            continue
        try:
            shapes = read(catalog.load(name), parameters)
            return shapes if shapes.whole else None
        except WeathermillError as error:
            # Whoever reads it tells what is wrong with it.
            logger.debug("%s does not say how large it is: %s", name, error)
        except Exception as error:
            logger.debug("%s cannot be read for an estimate: %s", name, error)
    return None


def _of_store(store: TensorStore, parameters: Parameters) -> Shapes:
    table = store.channels
    levels = max((sum(c.variable == other.variable for other in table) for c in table), default=1)
    grid = store.grid_shape
    sizes = (len(store), levels, table.n_prognostic, table.n_forcing, table.n_static)
    return Shapes(*sizes, grid, grid, store.time_step / 3600, (store.latitude, store.longitude))


def _of_fields(fields: xr.Dataset, parameters: Parameters) -> Shapes:
    levels = int(fields.sizes.get("level", 1))
    horizontal = next(
        [size for dim, size in v.sizes.items() if dim not in ("time", "level")]
        for v in fields.data_vars.values()
    )
    source = (horizontal[0], math.prod(horizontal[1:])) if len(horizontal) > 1 else (1, horizontal[0])
    return Shapes(
        int(fields.sizes.get("time", 1)),
        levels,
        *_channels(parameters.ingest, levels),
        source,
        _target(parameters, source),
        _step_hours(fields["time"].values) if "time" in fields.coords else 6.0,
        _axes(
            parameters,
            *(fields[name].values if name in fields else None for name in ("latitude", "longitude")),
        ),
        fields["time"].values if "time" in fields.coords else None,
        len(horizontal) > 1 and not {"latitude", "longitude"} <= set(fields.dims),
    )


def _of_sources(opened: Any, parameters: Parameters) -> Shapes:
    ingest = parameters.ingest
    with opened:
        surveyed = survey(
            opened.datasets,
            opened.names,
            Held("prediction"),
            options=SourceOptions(ingest.names, ingest.select, ingest.units, winds=ingest.winds),
        )
    wanted = {*ingest.variables, *ingest.surface_variables, *ingest.forcing_variables}
    wanted = {split_flat_name(name)[0] if _is_flat(name) else name for name in wanted}
    used = [s for s in surveyed if any(offer.variable in wanted for offer in s.offers)] or surveyed
    levels = len(ingest.levels) if ingest.levels else _levels(used)
    times = _common_times(surveyed, wanted, ingest)
    order = used[0].order
    source = order.latitude.shape if order.latitude.ndim == 2 else (order.rows.size, order.columns.size)
    return Shapes(
        times.size,
        levels,
        *_channels(ingest, levels),
        source,
        _target(parameters, source),
        _step_hours(times),
        _axes(parameters, order.latitude, order.longitude),
        times,
        order.latitude.ndim == 2,
    )


def _common_times(
    surveyed: Sequence[Source], wanted: Collection[str], ingest: IngestParameters
) -> np.ndarray:
    """Return the times that every wanted variable has; those of all sources where none has any of its own."""

    def chosen(source: Source) -> np.ndarray:
        return source.times[source.positions(ingest.start, ingest.stop)]

    axes = []
    for name in sorted(wanted):
        held = [s for s in surveyed if s.times.size and any(o.variable == name for o in s.offers)]
        if held:
            axes.append(np.unique(np.concatenate([chosen(source) for source in held])))
    if not axes:
        axes = [np.unique(np.concatenate([chosen(s) for s in surveyed if s.times.size] or [np.empty(0)]))]
    common = axes[0]
    for axis in axes[1:]:
        common = np.intersect1d(common, axis)
    return common


def _is_flat(name: str) -> bool:
    return name not in CONVENTIONS and split_flat_name(name) is not None


def _levels(surveyed: Sequence[Source]) -> int:
    found = {
        float(p) for s in surveyed for offer in s.offers if offer.levels is not None for p in offer.levels
    }
    return max(1, len(found))


def _channels(ingest: IngestParameters, levels: int) -> tuple[int, int, int]:
    prognostic = sum(1 if _is_flat(name) else levels for name in ingest.variables)
    return (
        prognostic + len(ingest.surface_variables),
        len(ingest.forcing_variables),
        len(ingest.static_variables),
    )


def _target(parameters: Parameters, source: tuple[int, int]) -> tuple[int, int]:
    if parameters.regrid.target is None:
        return source
    grid = named_grid(parameters.regrid.target)
    return grid.sizes["latitude"], grid.sizes["longitude"]


def _axes(
    parameters: Parameters, latitude: np.ndarray | None, longitude: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Axes of the network's grid: the target's, else the source's where it has rows and columns."""
    if parameters.regrid.target is not None:
        grid = named_grid(parameters.regrid.target)
        latitude, longitude = grid["latitude"].values, grid["longitude"].values
    if latitude is None or longitude is None:
        return None
    for axis in (latitude, longitude):
        steps = np.diff(axis) if axis.ndim == 1 and axis.size > 1 else np.zeros(1)
        if not ((steps > 0).all() or (steps < 0).all()):
            return None
    return latitude, longitude


def _step_hours(times: np.ndarray) -> float:
    if times.size < 2:
        return 6.0
    step = min(np.diff(times))
    return float(step / np.timedelta64(1, "h")) if times.dtype.kind == "M" else step.total_seconds() / 3600
