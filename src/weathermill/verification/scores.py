"""Scores that accumulate while forecasting: no forecast need be kept. Their definitions are in `formulas`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from weathermill.errors import VerificationError
from weathermill.verification import times as clock
from weathermill.verification.baselines import Climatology
from weathermill.verification.formulas import (
    CLIMATOLOGY,
    DIMENSIONAL,
    FORECAST,
    LONG_NAMES,
    PER_INIT,
    PERSISTENCE,
    SCORES,
    aggregate,
    per_init_scores,
    sums_of_climatology,
)
from weathermill.verification.moments import MOMENTS, accumulate_moments, runs_of_patterns
from weathermill.verification.regions import GLOBAL, Region, region_masks, standard_regions

__all__ = ["CLIMATOLOGY", "DIMENSIONAL", "FORECAST", "PERSISTENCE", "SCORES", "ScoreAccumulator", "to_frame"]

_CACHE_BYTES = 256 * 2**20


class ScoreAccumulator:
    """Scores of forecasts, persistence and climatology by channel, region and lead time.

    Only a few numbers per initial time are kept (about 64 bytes for each source, channel, region and lead
    time), from which means, confidence intervals and paired tests are made.

    Parameters
    ----------
    channels
        Names of the channels.
    lead_times
        Lead times in hours.
    area_weights
        Cell areas up to a factor, (latitude,) or (latitude, longitude).
    latitude, longitude
        Cell centres in degrees; without them all cells are scored as one region, which is taken to be the globe.
    units
        Units of the channels: a sequence in their order, or a mapping from name to units.
    regions
        Regions to score; those of `weathermill.verification.regions.standard_regions` by default.
    attrs
        Attributes for the result, such as how the climatology was made.

    Raises
    ------
    VerificationError
        If lengths do not fit.
    """

    def __init__(
        self,
        channels: Sequence[str],
        lead_times: Sequence[float],
        area_weights: np.ndarray,
        *,
        latitude: np.ndarray | None = None,
        longitude: np.ndarray | None = None,
        units: Sequence[str] | Mapping[str, str] | None = None,
        regions: Sequence[Region] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self.channels = [str(name) for name in channels]
        self.lead_times = np.asarray(lead_times)
        self.attrs = dict(attrs or {})
        if isinstance(units, Mapping):
            units = [units.get(name, "") for name in self.channels]
        self.units = list(units) if units is not None else [""] * len(self.channels)
        if len(self.units) != len(self.channels):
            raise VerificationError(f"{len(self.units)} units were given for {len(self.channels)} channels")
        if len(set(self.channels)) != len(self.channels):
            raise VerificationError("channel names are not unique")
        if self.lead_times.ndim != 1 or len(set(self.lead_times.tolist())) != self.lead_times.size:
            raise VerificationError(f"lead times must be distinct hours, not {self.lead_times.tolist()}")

        self._area_weights = np.asarray(area_weights, dtype=np.float64)
        self._latitude, self._longitude, self._regions = latitude, longitude, regions
        self.regions: list[Region] = []
        self._runs = self._membership = self._weights = self._region_area = None
        self._rows: dict[str, dict[str, np.ndarray]] = {}
        self._init_times: dict[str, Any] = {}
        self._recent: dict[str, np.ndarray] = {}
        self._recent_of: Climatology | None = None

    def update(
        self,
        forecast: np.ndarray | Mapping[str, np.ndarray],
        truth: np.ndarray,
        climatology: Any = None,
        init_times: Any = None,
        *,
        persistence: np.ndarray | None = None,
        lead_times: Sequence[float] | None = None,
    ) -> None:
        """Add the forecasts of some initial times, whole or some lead times at a time.

        Parameters
        ----------
        forecast
            (init, lead, channel, latitude, longitude), physical units; or a mapping of several such arrays by
            source name ("forecast", "regression", ...), empty where baselines alone are scored.
        truth
            As the forecast.
        climatology
            As the forecast; or a `weathermill.verification.baselines.Climatology`, evaluated at one valid
            time after another; or nothing: then there are neither anomalies nor climatology's own scores.
        init_times
            The initial times (init,).
        persistence
            The initial states (init, channel, latitude, longitude); scored as source "persistence".
        lead_times
            The lead times of this piece in hours; all of them by default.

        Raises
        ------
        VerificationError
            If shapes do not fit, a lead time is unknown, or a pair of initial and lead time came before.
        """
        sources = dict(forecast) if isinstance(forecast, Mapping) else {FORECAST: forecast}
        truth = np.asarray(truth)
        leads = self.lead_times if lead_times is None else np.atleast_1d(np.asarray(lead_times))
        slots = self._lead_slots(leads)
        init_times = clock.as_times(init_times)
        shape = (len(init_times), len(leads), len(self.channels), *truth.shape[3:])
        for name, array in (*sources.items(), ("truth", truth)):
            if np.shape(array) != shape or truth.ndim != 5:
                raise VerificationError(
                    f"{name} has shape {np.shape(array)}, but {len(init_times)} initial times, {len(leads)}"
                    f" lead times and {len(self.channels)} channels make it {shape}"
                )
        if persistence is not None and np.shape(persistence) != (shape[0], *shape[2:]):
            raise VerificationError(
                f"persistence has shape {np.shape(persistence)}, not {(shape[0], *shape[2:])}"
            )
        self._prepare(truth.shape[3:])
        self.attrs = {**(climatology.attrs if isinstance(climatology, Climatology) else {}), **self.attrs}

        kind = np.result_type(truth, *sources.values(), np.float32)
        for position, init_time in enumerate(init_times):
            reference = None if persistence is None else _contiguous(persistence[position], kind)
            anomalies = self._climatology(climatology, init_time, position, leads, shape[1:], kind)
            fields = {name: array[position] for name, array in sources.items()}
            if reference is not None:
                fields[PERSISTENCE] = np.broadcast_to(reference, shape[1:])
            observed = _contiguous(truth[position], kind)
            has_anomalies = anomalies is not None
            sums = None
            for name, array in fields.items():
                sums = self._sums(_contiguous(array, kind), observed, anomalies, reference)
                values = per_init_scores(sums, self._region_area, has_anomalies)
                self._store(init_time, slots, name, values)
            if has_anomalies:
                if sums is None:
                    sums = self._sums(observed, observed, anomalies, reference)
                values = per_init_scores(sums_of_climatology(sums), self._region_area, True)
                self._store(init_time, slots, CLIMATOLOGY, values)

    def merge(self, other: ScoreAccumulator) -> ScoreAccumulator:
        """Take over the initial times of another accumulator of the same layout (of another process, say).

        Raises
        ------
        VerificationError
            If the layouts differ or an initial time is in both.
        """
        if self.channels != other.channels or not np.array_equal(self.lead_times, other.lead_times):
            raise VerificationError("accumulators of other channels or lead times cannot be merged")
        if self.regions and other.regions and self.regions != other.regions:
            raise VerificationError("accumulators of other regions cannot be merged")
        common = set(self._rows) & set(other._rows)
        if common:
            raise VerificationError(f"initial time {min(common)} is in both accumulators")
        if not self.regions:
            self.regions = list(other.regions)
        self._rows.update(other._rows)
        self._init_times.update(other._init_times)
        return self

    def result(self, *, by_init: bool = True) -> xr.Dataset:
        """Return the scores over all initial times so far.

        Parameters
        ----------
        by_init
            Keep ``mse_by_init``, ``bias_by_init`` and ``acc_by_init``, which confidence intervals and
            comparisons of runs are made from.

        Returns
        -------
        xarray.Dataset
            `SCORES`, ``n_init`` and ``valid_fraction`` with dimensions (source, channel, region, lead_time),
            float64; coordinates ``units`` of the channels and ``lead_time`` in hours.

        Raises
        ------
        VerificationError
            If nothing was accumulated.
        """
        if not self._rows:
            raise VerificationError("no forecast was scored", remedy="Call update before result.")
        keys = sorted(self._rows, key=lambda key: self._init_times[key])
        names = sorted({name for row in self._rows.values() for name in row}, key=_source_order)
        empty = np.full((len(PER_INIT), len(self.channels), len(self.regions), len(self.lead_times)), np.nan)
        stacked = np.stack([np.stack([self._rows[key].get(name, empty) for name in names]) for key in keys])
        dims = ("init_time", "source", "channel", "region", "lead_time")
        per_init = xr.Dataset(
            {name: (dims, stacked[:, :, position]) for position, name in enumerate(PER_INIT)},
            coords={
                "init_time": np.array([self._init_times[key] for key in keys]),
                "source": names,
                "channel": self.channels,
                "region": [region.name for region in self.regions],
                "lead_time": self.lead_times,
                "units": ("channel", self.units),
            },
        )
        result = aggregate(per_init)
        if by_init:
            for name in ("mse", "bias", "acc"):
                variable = per_init[name]
                # Squares of errors beyond 1.8e19 do not fit into float32.
                fits = not (np.abs(variable) > np.finfo(np.float32).max).any()
                variable = variable.astype(np.float32) if fits else variable
                result[f"{name}_by_init"] = variable.transpose(*dims[1:], "init_time")
        result["lead_time"].attrs = {"long_name": "lead time", "units": "h"}
        result["init_time"].attrs = {"long_name": "initial time", "standard_name": "forecast_reference_time"}
        for name, variable in result.data_vars.items():
            variable.attrs["long_name"] = LONG_NAMES[name]
            dimensional = name in DIMENSIONAL or name == "bias_by_init"
            if not dimensional and name != "mse_by_init":
                variable.attrs["units"] = "1"
        result.attrs = {
            "title": "Forecast scores",
            "references": "WMO-No. 485; WeatherBench 2 (Rasp et al. 2024, doi:10.1029/2023MS004019)",
            "n_init_times": len(keys),
            **self.attrs,
        }
        return result

    def _prepare(self, grid_shape: tuple[int, ...]) -> None:
        if self._runs is not None:
            if self._weights.shape != tuple(grid_shape):
                raise VerificationError(
                    f"fields have shape {grid_shape}, after ones of {self._weights.shape}"
                )
            return
        weights = self._area_weights
        if weights.ndim == 1:
            weights = np.repeat(weights[:, None], grid_shape[1], axis=1)
        if weights.shape != tuple(grid_shape):
            raise VerificationError(
                f"area weights have shape {self._area_weights.shape}, fields {grid_shape}"
            )
        if self._latitude is None or self._longitude is None:
            if self._regions is not None and tuple(self._regions) != (GLOBAL,):
                raise VerificationError("regions need the latitude and longitude of the grid")
            regions, masks = [GLOBAL], np.ones((1, *grid_shape), dtype=bool)
        else:
            regions = (
                list(self._regions)
                if self._regions is not None
                else standard_regions(self._latitude, self._longitude)
            )
            masks = region_masks(regions, self._latitude, self._longitude)
        self._runs, self._membership = runs_of_patterns(masks)
        self._weights = np.ascontiguousarray(weights)
        self._region_area = np.einsum("rhw,hw->r", masks, weights)
        self.regions = regions

    def _lead_slots(self, leads: np.ndarray) -> np.ndarray:
        known = {float(lead): slot for slot, lead in enumerate(self.lead_times)}
        try:
            return np.array([known[float(lead)] for lead in leads], dtype=np.int64)
        except KeyError as error:
            raise VerificationError(
                f"lead time {error.args[0]:g} h is not among {self.lead_times.tolist()}"
            ) from error

    def _climatology(self, climatology, init_time, position, leads, shape, kind) -> np.ndarray | None:
        if climatology is None:
            return None
        if isinstance(climatology, Climatology):
            fields = np.empty(shape, dtype=kind)
            for slot, lead in enumerate(leads):
                fields[slot] = self._climatology_at(climatology, clock.add_hours(init_time, lead)[0])
            return fields
        if np.shape(climatology)[1:] != shape or len(climatology) <= position:
            raise VerificationError(f"climatology has shape {np.shape(climatology)}, not (init, {shape})")
        return _contiguous(climatology[position], kind)

    def _climatology_at(self, climatology: Climatology, valid_time: Any) -> np.ndarray:
        """Evaluate the climatology, or take it from the last evaluations: forecasts overlap in valid time."""
        if climatology is not self._recent_of:
            self._recent_of, self._recent = climatology, {}
        key = clock.time_key(valid_time)
        if key not in self._recent:
            field = climatology.at(valid_time)[0]
            while self._recent and (len(self._recent) + 1) * field.nbytes > _CACHE_BYTES:
                self._recent.pop(next(iter(self._recent)))
            self._recent[key] = field
        return self._recent[key]

    def _sums(self, forecast, truth, climatology, reference) -> np.ndarray:
        n_leads, n_channels = truth.shape[:2]
        out = np.zeros((n_leads, n_channels, self._membership.shape[1], len(MOMENTS)))
        has_climatology = climatology is not None
        if reference is None:
            reference = np.zeros((1, *truth.shape[2:]), dtype=truth.dtype)
            reference = np.ascontiguousarray(np.broadcast_to(reference, truth.shape[1:]))
        accumulate_moments(
            forecast,
            truth,
            climatology if has_climatology else truth[:1, :1],
            reference,
            self._weights,
            self._runs,
            has_climatology,
            out,
        )
        # 0 times NaN is NaN: a region must not catch the NaN of patterns outside it.
        sums = np.zeros((len(MOMENTS), n_channels, len(self.regions), n_leads))
        for region, members in enumerate(self._membership > 0):
            sums[:, :, region] = out[:, :, members].sum(axis=2).transpose(2, 1, 0)
        return sums

    def _store(self, init_time: Any, slots: np.ndarray, source: str, values: np.ndarray) -> None:
        key = clock.time_key(init_time)
        row = self._rows.setdefault(key, {})
        self._init_times[key] = init_time
        if source not in row:
            shape = (len(PER_INIT), len(self.channels), len(self.regions), len(self.lead_times))
            row[source] = np.full(shape, np.nan)
        target = row[source]
        if np.isfinite(target[-1][..., slots]).any():
            raise VerificationError(f"{source} from {key} was scored before at one of these lead times")
        target[..., slots] = values


def to_frame(scores: xr.Dataset) -> pd.DataFrame:
    """Return the scores as a tidy table (a run's CSV): a row per source, channel, region and lead time."""
    names = [name for name in scores.data_vars if "init_time" not in scores[name].dims]
    frame = scores[names].to_dataframe(dim_order=["source", "channel", "region", "lead_time"]).reset_index()
    frame = frame.rename(columns={"lead_time": "lead_time_h"})
    first = ["source", "channel", "units", "region", "lead_time_h"]
    return frame[first + [name for name in frame.columns if name not in first]]


def _contiguous(array: Any, kind: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=kind)


def _source_order(name: str) -> tuple[int, str]:
    order = (FORECAST, PERSISTENCE, CLIMATOLOGY)
    return (order.index(name) if name in order else len(order), name)
