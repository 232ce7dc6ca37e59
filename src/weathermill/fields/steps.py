"""What to do where whole time steps are missing: refuse, leave the gap, or interpolate short ones."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Literal

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import ParameterError, TimeAxisError
from weathermill.fields.coordinates import TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.timeaxis import first_text, gaps, step_seconds, usual_step

Policy = Literal["refuse", "gap", "interpolate"]


def handle_missing_steps(
    fields: xr.Dataset,
    policy: Policy = "gap",
    *,
    step: float | None = None,
    longest: int = 1,
    findings: MutableSequence[Finding] | None = None,
) -> xr.Dataset:
    """Apply a policy to gaps in time, lazily.

    Parameters
    ----------
    fields
        Canonical fields.
    policy
        ``refuse`` raises; ``gap`` leaves the time axis as it is (no training window crosses a gap);
        ``interpolate`` fills gaps of up to ``longest`` steps linearly in time and leaves longer ones.
    step
        Seconds; the most frequent step by default.
    longest
        The largest number of missing steps that is interpolated over.
    findings
        Where to record what was done.

    Returns
    -------
    xarray.Dataset
        With a flag variable ``interpolated`` (time, int8) where steps were filled.

    Raises
    ------
    TimeAxisError
        Under ``refuse``, naming the first gaps; under any policy but ``gap``, where times do not lie on steps.
    ParameterError
        For an unknown policy.
    """
    if policy not in ("refuse", "gap", "interpolate"):
        raise ParameterError(f"the policy {policy!r} for missing steps is unknown: refuse, gap, interpolate")
    if policy == "gap" or TIME not in fields.dims or fields.sizes[TIME] < 2:
        return fields
    times = fields[TIME].values
    step = usual_step(times) if step is None else float(step)
    multiples = step_seconds(times) / step
    uneven = np.flatnonzero(np.abs(multiples - np.round(multiples)) > 1e-3)
    if uneven.size:
        raise TimeAxisError(
            f"times are not on steps of {step / 3600:g} h: {first_text(times[uneven[0]])} is followed by"
            f" {first_text(times[uneven[0] + 1])}",
            remedy="Select times of one step, or set `ingest.missing_steps` to gap.",
        )
    holes = gaps(times, step)
    if not holes:
        return fields
    counts = {position: round(seconds / step) - 1 for position, seconds in holes}
    if policy == "refuse":
        named = ", ".join(f"{n} after {first_text(times[i])}" for i, n in list(counts.items())[:3])
        raise TimeAxisError(
            f"{sum(counts.values())} time steps are missing: {named}" + (", …" if len(counts) > 3 else ""),
            remedy="Add the files that hold them, or set `ingest.missing_steps` to gap or interpolate.",
        )
    short = {position: n for position, n in counts.items() if n <= longest}
    if short:
        tell(
            findings,
            "warning",
            TIME,
            f"{sum(short.values())} missing time steps are interpolated linearly in {len(short)} gaps;"
            f" {len(counts) - len(short)} longer gaps stay",
        )
        return _interpolate(fields, short)
    return fields


def _interpolate(fields: xr.Dataset, short: dict[int, int]) -> xr.Dataset:
    times = fields[TIME].values
    pieces: list[tuple[int, int, float]] = []
    new_times, flags, start = [], [], 0
    # Each entry of the new axis is (left index, right index, fraction of the way to the right one).
    for position in [*sorted(short), times.size - 1]:
        for i in range(start, position + 1):
            pieces.append((i, i, 0.0))
            new_times.append(times[i])
            flags.append(0)
        start = position + 1
        for k in range(1, short.get(position, 0) + 1):
            fraction = k / (short[position] + 1)
            pieces.append((position, position + 1, fraction))
            new_times.append(
                times[position] + (times[position + 1] - times[position]) * k / (short[position] + 1)
            )
            flags.append(1)
    left, right = np.array([p[0] for p in pieces]), np.array([p[1] for p in pieces])
    fraction = np.array([p[2] for p in pieces], dtype=np.float32)
    axis = np.array(new_times, dtype=times.dtype)
    variables: dict[str, xr.DataArray] = {}
    for name, field in fields.data_vars.items():
        if TIME not in field.dims:
            variables[str(name)] = field
            continue
        field = field.transpose(TIME, ...)
        data = field.data
        if isinstance(data, da.Array):
            filled = _fill_lazily(data, left, right, fraction).rechunk({0: max(data.chunks[0])})
        else:
            weight = fraction.reshape(-1, *[1] * (field.ndim - 1))
            filled = np.where(weight == 0, data[left], data[left] * (1 - weight) + data[right] * weight)
            filled = filled.astype(data.dtype)
        coords = {key: value for key, value in field.coords.items() if TIME not in value.dims}
        variables[str(name)] = xr.DataArray(
            filled, dims=field.dims, coords=coords | {TIME: axis}, attrs=field.attrs, name=name
        )
    result = xr.Dataset(variables, attrs=fields.attrs)
    # Cell bounds have a dimension that no variable has.
    result = result.assign_coords({k: v for k, v in fields.coords.items() if k not in result.coords})
    result[TIME].attrs.update(fields[TIME].attrs)
    result["interpolated"] = (
        TIME,
        np.array(flags, dtype=np.int8),
        {"long_name": "1 where interpolated in time"},
    )
    return result


def _fill_lazily(data: da.Array, left: np.ndarray, right: np.ndarray, fraction: np.ndarray) -> da.Array:
    """Concatenate runs of present steps, as they are, with interpolated ones."""
    parts, run = [], [0, 0]
    i = 0
    while i < left.size:
        if fraction[i] == 0.0:
            run = [i, i]
            while i < left.size and fraction[i] == 0.0:
                i += 1
            parts.append(data[int(left[run[0]]) : int(left[i - 1]) + 1])
        else:
            a, b = data[int(left[i]) : int(left[i]) + 1], data[int(right[i]) : int(right[i]) + 1]
            weight = np.float32(fraction[i])
            parts.append((a * (np.float32(1) - weight) + b * weight).astype(data.dtype))
            i += 1
    return da.concatenate(parts, axis=0)
