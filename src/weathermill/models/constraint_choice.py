"""Which constraints a forecaster is under: from names in its configuration to channels and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from weathermill.errors import ModelError
from weathermill.models.constraints import (
    BudgetMean,
    ConserveDryMass,
    ConserveMean,
    Constraint,
    Constraints,
    NonNegative,
    PinMean,
    ZonalFilter,
)

if TYPE_CHECKING:
    from weathermill.models.forecaster import Forecaster
    from weathermill.tensors.channels import ChannelTable

#: Standard acceleration of free fall (ISO 80000-3), m s⁻².
GRAVITY = 9.80665


def make_constraints(forecaster: Forecaster) -> Constraints:
    """Build the constraints that a forecaster's configuration names.

    Raises
    ------
    ModelError
        When a name is that of no prognostic variable or channel, a global mean is asked of one that may be missing or
        asked twice, what the mass of dry air is made of is not predicted.
    """
    config, table = forecaster.config, forecaster.channels
    std, areas = forecaster.std, _areas(forecaster.latitude)
    rates = {c: rate for name, rate in config.budget_mean for c in _channels([name], table)}
    vapour = _dry_mass(table) if config.conserve_dry_mass else None
    means = {
        "conserve_mean": _channels(config.conserve_mean, table),
        "pin_mean": _channels(config.pin_mean, table),
        "budget_mean": list(rates),
        "conserve_dry_mass": vapour[0][:1] if vapour is not None else [],
    }
    _refuse_contradictions(means, table)
    _refuse_gaps([c for channels in means.values() for c in channels], table)
    constraints: list[Constraint] = []
    if config.zonal_filter is not None:
        # The waves of a field with gaps are not its own.
        channels = [i for i in table.prognostic if not table[i].may_be_missing]
        grid = forecaster.latitude, forecaster.grid_shape[1]
        constraints.append(ZonalFilter(channels, std[channels], *grid, config.zonal_filter))
    if channels := means["conserve_mean"]:
        constraints.append(ConserveMean(channels, std[channels], areas))
    if channels := means["pin_mean"]:
        constraints.append(PinMean(channels, std[channels], areas))
    if channels := means["budget_mean"]:
        change = np.array([rates[c] for c in channels]) * forecaster.time_step / 86400.0
        constraints.append(BudgetMean(channels, std[channels], areas, change))
    if config.non_negative:
        channels = _channels(config.non_negative, table)
        constraints.append(NonNegative(channels, forecaster.mean[channels], std[channels]))
    if vapour is not None:
        channels, weights = vapour
        _refuse_gaps(channels, table)
        constraints.append(ConserveDryMass(channels, weights, std[channels], areas))
    return Constraints(constraints, table.names[: table.n_prognostic])


def _channels(names: Sequence[str], table: ChannelTable) -> list[int]:
    indices: list[int] = []
    for name in names:
        found = [i for i in table.prognostic if name in (table[i].name, table[i].variable)]
        if not found:
            known = sorted({table[i].variable for i in table.prognostic})
            raise ModelError(
                f"A constraint names {name!r}, which is no prognostic variable or channel; variables are "
                f"{', '.join(known)}."
            )
        indices += [i for i in found if i not in indices]
    return indices


def _dry_mass(table: ChannelTable) -> tuple[list[int], np.ndarray]:
    """Channel of pressure and those of water vapour, and what one unit of each of the latter weighs in Pa."""
    by_variable: dict[str, list[int]] = {}
    for i in table.prognostic:
        by_variable.setdefault(table[i].variable, []).append(i)
    pressure = by_variable.get("surface_pressure") or by_variable.get("mean_sea_level_pressure")
    if pressure is None:
        raise ModelError(
            "The mass of dry air needs surface_pressure or mean_sea_level_pressure among the predicted channels.",
            where="model.conserve_dry_mass",
            remedy="Predict one of them, or leave conserve_dry_mass out.",
        )
    if column := by_variable.get("total_column_water_vapour"):
        return [pressure[0], column[0]], np.array([GRAVITY])
    levels = sorted((table[i].level, i) for i in by_variable.get("specific_humidity", []))
    if len(levels) < 2:
        raise ModelError(
            "The mass of dry air needs total_column_water_vapour or specific_humidity on two levels at least.",
            where="model.conserve_dry_mass",
            remedy="Predict one of them, or use conserve_mean of the pressure.",
        )
    p = np.array([100.0 * level for level, _ in levels])
    thickness = np.zeros(len(p))
    thickness[1:] += np.diff(p) / 2
    thickness[:-1] += np.diff(p) / 2
    return [pressure[0], *(i for _, i in levels)], thickness


def _refuse_contradictions(means: dict[str, list[int]], table: ChannelTable) -> None:
    for channel in {c for channels in means.values() for c in channels}:
        holding = [name for name, channels in means.items() if channel in channels]
        if len(holding) > 1:
            raise ModelError(
                f"The global mean of {table[channel].name} cannot obey {' and '.join(holding)} at once.",
                where=", ".join(f"model.{name}" for name in holding),
                remedy="Keep one of them.",
            )


def _refuse_gaps(channels: Sequence[int], table: ChannelTable) -> None:
    gaps = [table[i].name for i in channels if table[i].may_be_missing]
    if gaps:
        raise ModelError(
            f"The global mean of {', '.join(gaps)} cannot be held, as cells may be missing there.",
            where="model.conserve_mean, model.pin_mean, model.budget_mean, model.conserve_dry_mass",
            remedy="Leave the channel out of all, or fill its gaps with `ingest.fill`.",
        )


def _areas(latitude: np.ndarray) -> np.ndarray:
    """Areas of latitude bands that meet half-way between rows, differences of the sine of their edges."""
    latitude = np.asarray(latitude, dtype=np.float64)
    inner = (latitude[1:] + latitude[:-1]) / 2
    first, last = latitude[0] + (latitude[0] - inner[0]), latitude[-1] + (latitude[-1] - inner[-1])
    edges = np.clip(np.concatenate([[first], inner, [last]]), -90.0, 90.0)
    return np.abs(np.diff(np.sin(np.deg2rad(edges))))
