"""Filling missing values of named variables: by a constant, the nearest value, or a mean over time."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableSequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from weathermill.errors import MissingVariableError, ParameterError
from weathermill.fields.coordinates import LATITUDE, LONGITUDE, TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.timeaxis import first_text, selection

logger = logging.getLogger(__name__)

Rule = float | str


def fill_missing(
    fields: xr.Dataset,
    rules: Mapping[str, Rule],
    *,
    start: Any = None,
    stop: Any = None,
    findings: MutableSequence[Finding] | None = None,
) -> xr.Dataset:
    """Fill missing values, lazily.

    Parameters
    ----------
    fields
        Canonical fields.
    rules
        Variable -> a number; ``nearest``: the value of the nearest point on the sphere that has one, map by
        map; or ``climatology``: the mean over time at the point (and level), then ``nearest`` where there is
        never a value.
    start, stop
        The period [start, stop) that a climatology is taken from, as dates or times of the axis: that of training, so that
        nothing leaks.
    findings
        Where to record what was done.

    Returns
    -------
    xarray.Dataset
        Maps without any value stay missing under ``nearest``.

    Raises
    ------
    MissingVariableError
        Where a named variable is absent.
    ParameterError
        For an unknown rule.
    """
    filled = {}
    for name, rule in rules.items():
        if name not in fields.data_vars:
            raise MissingVariableError(f"{name}, whose gaps are to be filled, is not among the fields")
        field = fields[name].transpose(..., LATITUDE, LONGITUDE)
        if isinstance(rule, bool) or not isinstance(rule, int | float | str):
            raise ParameterError(f"the rule {rule!r} to fill {name} is neither a number nor a name")
        if isinstance(rule, str) and rule not in ("nearest", "climatology"):
            raise ParameterError(
                f"the rule {rule!r} to fill {name} is unknown: a number, nearest, climatology"
            )
        if rule == "climatology":
            mean = _time_mean(field, start, stop)
            filler = NearestFiller(fields[LATITUDE].values, fields[LONGITUDE].values)
            filled[name] = _blockwise(field, _fill_with, mean=filler(mean))
        elif rule == "nearest":
            filled[name] = _blockwise(field, NearestFiller(fields[LATITUDE].values, fields[LONGITUDE].values))
        else:
            filled[name] = _blockwise(field, _fill_with, mean=np.asarray(rule, dtype=field.dtype))
        tell(findings, "info", name, f"missing values are filled: {rule}")
    return fields.assign(filled)


class DeferredClimatology:
    """Fills gaps by the mean of the training period, which is read only once a gap is met.

    For initial states: most have none, and their source may not hold the training period.

    Parameters
    ----------
    field
        Canonical, of all the times that the source has.
    training
        [start, stop) of the training period; None where it is not known.
    """

    def __init__(self, field: xr.DataArray, training: tuple[str | None, str | None] | None) -> None:
        self.field, self.training = field.transpose(..., LATITUDE, LONGITUDE), training
        self._lock = threading.Lock()
        self._mean: np.ndarray | None = None

    def apply(self) -> xr.DataArray:
        """Return the field with its gaps filled, lazily.

        Raises
        ------
        ParameterError
            When a block with a gap is computed and the training period is not known, or the source does not hold it.
        """
        return _blockwise(self.field, self)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Fill a block of whole maps and levels."""
        return _fill_with(block, self._climatology()) if np.isnan(block).any() else block

    def _climatology(self) -> np.ndarray:
        with self._lock:
            if self._mean is None:
                self._mean = self._read()
            return self._mean

    def _read(self) -> np.ndarray:
        name = self.field.name
        remedy = "Give a source without these gaps, or fill them by a number or by nearest (ingest.fill)."
        if self.training is None:
            raise ParameterError(
                f"{name} has gaps in the initial state, which ingest.fill fills by the climatology of the training period;"
                " this period is not known: splits.train is a fraction, and the network does not say when it was trained",
                remedy=f"{remedy} With dates in splits.train, or a network trained anew, it is read from initial_fields.",
            )
        start, stop = self.training
        times = self.field[TIME].values
        chosen = selection(times, start, stop)
        if not chosen.size:
            raise ParameterError(
                f"{name} has gaps in the initial state, which ingest.fill fills by the climatology of the training period"
                f" [{start or 'the beginning'}, {stop or 'the end'}), and initial_fields runs from"
                f" {first_text(times[0])} to {first_text(times[-1])}",
                remedy=f"Add the files of the training period to initial_fields. {remedy}",
            )
        logger.warning(
            "%s: gaps of initial states are filled by the mean from %s to %s, of the training period [%s, %s)",
            name,
            first_text(times[chosen[0]]),
            first_text(times[chosen[-1]]),
            start or "the beginning",
            stop or "the end",
        )
        # This runs inside a task already, whose threads must not wait for each other.
        with dask.config.set(scheduler="synchronous"):
            mean = _time_mean(self.field, start, stop)
        return NearestFiller(self.field[LATITUDE].values, self.field[LONGITUDE].values)(mean)


def _blockwise(field: xr.DataArray, function, **options) -> xr.DataArray:
    if isinstance(field.data, da.Array):
        data = field.data.rechunk({field.ndim - 2: -1, field.ndim - 1: -1})
        if isinstance(function, DeferredClimatology) and field.ndim > 3:
            data = data.rechunk(dict.fromkeys(range(1, field.ndim), -1))
        if "mean" in options and options["mean"].ndim > 2:
            data = data.rechunk({axis: -1 for axis in range(field.ndim - options["mean"].ndim, field.ndim)})
        meta = np.empty((0,) * field.ndim, field.dtype)
        return field.copy(data=da.map_blocks(function, data, dtype=field.dtype, meta=meta, **options))
    return field.copy(data=function(field.values, **options))


def _fill_with(block: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(block), mean, block).astype(block.dtype, copy=False)


def _time_mean(field: xr.DataArray, start: Any, stop: Any) -> np.ndarray:
    """Return the mean over the chosen times, block by block; NaN where there is never a value."""
    if TIME not in field.dims:
        return field.values
    positions = selection(field[TIME].values, start, stop)
    if positions.size == 0:
        raise ParameterError(
            f"no time of [{start}, {stop}) is there to take a climatology of {field.name} from"
        )
    chosen = field.transpose(TIME, ...).isel({TIME: positions})
    data = chosen.data if isinstance(chosen.data, da.Array) else da.from_array(chosen.values, chunks=-1)
    sums = da.nansum(data, axis=0, dtype=np.float64)
    counts = (~da.isnan(data)).sum(axis=0)
    total, count = dask.compute(sums, counts)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(field.dtype)


class NearestFiller:
    """Fills each map from the nearest point that has a value, by distance on the sphere.

    Which point is nearest depends on where values are missing, and that seldom changes: the last few patterns
    are kept.

    Parameters
    ----------
    latitude, longitude
        One-dimensional degrees.
    """

    def __init__(self, latitude: np.ndarray, longitude: np.ndarray) -> None:
        phi, lam = np.meshgrid(np.radians(latitude), np.radians(longitude), indexing="ij")
        self.points = np.stack(
            [np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1
        ).reshape(-1, 3)
        self._known: OrderedDict[bytes, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {"points": self.points}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.points = state["points"]
        self._known = OrderedDict()

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return a filled copy of (..., latitude, longitude)."""
        out = np.array(block)
        maps = out.reshape(-1, self.points.shape[0])
        for row in maps:
            missing = np.isnan(row)
            if missing.any() and not missing.all():
                targets, sources = self._pattern(missing)
                row[targets] = row[sources]
        return out

    def _pattern(self, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        key = np.packbits(missing).tobytes()
        known = self._known.get(key)
        if known is None:
            targets, valid = np.flatnonzero(missing), np.flatnonzero(~missing)
            _, nearest = cKDTree(self.points[valid]).query(self.points[targets])
            known = targets, valid[nearest]
            self._known[key] = known
            while len(self._known) > 8:
                try:
                    self._known.popitem(last=False)
                except KeyError:
                    break
        return known
