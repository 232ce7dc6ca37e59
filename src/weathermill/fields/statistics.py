"""Training-period statistics of channels in one pass: mean, standard deviation, tendency, bounds.

Moments are kept as (weight, mean, sum of squared deviations) in float64 and merged by the pairwise update of
Chan, Golub and LeVeque (1983), so that neither a mean far from zero (geopotential) nor a tiny spread (specific
humidity at 50 hPa, about 1e-7) loses its digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import ConstantChannelError, MissingDataError, SplitError
from weathermill.fields.coordinates import LATITUDE, LONGITUDE, TIME
from weathermill.fields.flatten import CHANNEL
from weathermill.fields.moments import Moments, affine, block_moments, merge
from weathermill.fields.timeaxis import first_text, step_seconds

#: Aimed-at size of the piece of data that one task looks at.
PIECE_BYTES = 64 * 2**20


def compute_statistics(
    array: xr.DataArray,
    area_weights: np.ndarray,
    training: Sequence[tuple[int, int]],
    time_step: int | float | timedelta | np.timedelta64,
    *,
    static: xr.DataArray | None = None,
    allow_missing: Sequence[str] | bool = False,
    scheduler: str | None = None,
) -> xr.Dataset:
    """Compute the statistics of channels over the training period.

    Parameters
    ----------
    array
        (time, channel, latitude, longitude), NumPy or Dask, from
        :func:`weathermill.fields.flatten.to_channels`.
    area_weights
        (latitude,) or (latitude, longitude), any positive scale.
    training
        ``[start, stop)`` index runs along time. Tendencies are taken only inside a run, and only between
        times that lie one ``time_step`` apart.
    time_step
        Seconds, or a time difference: the step over which a tendency is the difference.
    static
        (channel, latitude, longitude), appended after the others. Its tendency is zero.
    allow_missing
        True, or the names of channels, in which NaN is passed over instead of refused.
    scheduler
        Dask's; the session's own by default.

    Returns
    -------
    xarray.Dataset
        float64 along ``channel``: ``mean``, ``std``, ``tendency_mean``, ``tendency_std``, ``minimum``,
        ``maximum``, and ``missing`` (int64, the number of NaN).

    Raises
    ------
    ConstantChannelError
        Naming each channel that does not vary, or (prognostic ones) not in time.
    MissingDataError
        Naming channel, number and first time of NaN.
    SplitError
        Where the training period is empty or has no two consecutive steps.
    """
    step = _seconds(time_step)
    runs = [(int(a), int(b)) for a, b in training if b > a]
    if not runs:
        raise SplitError("the training period holds no time step")
    array = array.transpose(TIME, CHANNEL, LATITUDE, LONGITUDE)
    times = array[TIME].values
    weights = np.asarray(area_weights, dtype=np.float64)
    weights = np.broadcast_to(weights[:, None] if weights.ndim == 1 else weights, array.shape[-2:])
    total = _reduce(array, np.ascontiguousarray(weights), runs, times, step, scheduler)
    names = [str(name) for name in array[CHANNEL].values]
    roles = (
        [str(role) for role in array["role"].values]
        if "role" in array.coords
        else ["prognostic"] * len(names)
    )
    _refuse_missing(total, names, times, allow_missing)
    statistics = _dataset(total, names, roles)
    if total.pairs == 0:
        raise SplitError(
            f"no two times of the training period lie {step:g} s apart, so that there is no tendency",
            remedy="Widen the training period, or correct the time step.",
        )
    _refuse_constant(statistics, roles)
    if static is not None and static.sizes[CHANNEL]:
        statistics = xr.concat([statistics, static_statistics(static, weights)], dim=CHANNEL)
    statistics.attrs = {
        "title": "Statistics of the training period",
        "time_step_seconds": step,
        "training_period": "; ".join(
            f"{first_text(times[a])} to {first_text(times[b - 1])}" for a, b in runs[:20]
        ),
        "steps": int(sum(b - a for a, b in runs)),
        "pairs": int(total.pairs),
    }
    return statistics


def static_statistics(static: xr.DataArray, area_weights: np.ndarray) -> xr.Dataset:
    """Compute the statistics of static channels over space.

    Parameters
    ----------
    static
        (channel, latitude, longitude).
    area_weights
        (latitude,) or (latitude, longitude).
    """
    data = np.asarray(static.transpose(CHANNEL, LATITUDE, LONGITUDE).values)[None]
    weights = np.asarray(area_weights, dtype=np.float64)
    weights = np.broadcast_to(weights[:, None] if weights.ndim == 1 else weights, data.shape[-2:])
    moments = block_moments(data, np.zeros(0, dtype=np.bool_), np.ascontiguousarray(weights), 0)
    names = [str(name) for name in static[CHANNEL].values]
    if moments.missing.any():
        worst = int(np.argmax(moments.missing))
        raise MissingDataError(f"the static field {names[worst]} has {moments.missing[worst]} missing values")
    statistics = _dataset(moments, names, ["static"] * len(names))
    statistics["tendency_std"][:] = 0.0
    statistics["tendency_mean"][:] = 0.0
    _refuse_constant(statistics, ["static"] * len(names))
    return statistics


def _seconds(time_step) -> float:
    if isinstance(time_step, np.timedelta64):
        return float(time_step / np.timedelta64(1, "s"))
    if isinstance(time_step, timedelta):
        return time_step.total_seconds()
    return float(time_step)


def _pieces(array: xr.DataArray, runs) -> list[tuple[int, int, bool]]:
    """Cut the training runs into pieces at chunk edges: (start, stop, whether the next step is in the run)."""
    per_step = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    longest = max(1, PIECE_BYTES // per_step)
    edges = (
        np.cumsum([0, *array.chunks[0]]) if array.chunks else np.arange(0, array.shape[0] + longest, longest)
    )
    pieces = []
    for start, stop in runs:
        cuts = [start, *(int(edge) for edge in edges if start < edge < stop), stop]
        begin = start
        for previous, cut in pairwise(cuts):
            # Small chunks are looked at together, to spare the scheduler.
            if cut - begin > longest and previous > begin:
                pieces.append((begin, previous, True))
                begin = previous
        pieces.append((begin, stop, False))
    return pieces


def _reduce(array, weights, runs, times, step, scheduler) -> Moments:
    steps = step_seconds(times)
    follows = np.abs(steps - step) <= 1e-3 * step
    data = array.data
    tasks = []
    for start, stop, more in _pieces(array, runs):
        last = stop + 1 if more else stop
        pair = follows[start : last - 1]
        if isinstance(data, da.Array):
            block = dask.delayed(np.asarray, pure=False)(data[start:last])
        else:
            block = data[start:last]
        tasks.append(dask.delayed(block_moments, pure=False)(block, pair, weights, start, stop - start))
    while len(tasks) > 1:
        tasks = [dask.delayed(merge, pure=False)(tasks[i : i + 8]) for i in range(0, len(tasks), 8)]
    (total,) = dask.compute(tasks[0], **({"scheduler": scheduler} if scheduler else {}))
    return total


def _refuse_missing(total: Moments, names, times, allow_missing) -> None:
    allowed = set(names) if allow_missing is True else set(allow_missing or ())
    for i, name in enumerate(names):
        if total.missing[i] and name not in allowed:
            raise MissingDataError(
                f"{name} has {int(total.missing[i])} missing values in the training period, the first at"
                f" {first_text(times[int(total.first_missing[i])])}",
                remedy="Leave the channel or those times out, fill the gaps, or allow missing values for it.",
            )
        if total.weight[i] == 0:
            raise MissingDataError(f"{name} has no valid value in the training period")


def _dataset(total: Moments, names, roles) -> xr.Dataset:
    with np.errstate(invalid="ignore", divide="ignore"):
        variables = {
            "mean": total.mean,
            "std": np.sqrt(total.squares / total.weight),
            "tendency_mean": total.tendency_mean,
            "tendency_std": np.sqrt(total.tendency_squares / total.tendency_weight),
            "minimum": total.minimum,
            "maximum": total.maximum,
            "missing": total.missing,
        }
    return xr.Dataset(
        {key: (CHANNEL, np.asarray(value)) for key, value in variables.items()},
        coords={CHANNEL: names, "role": (CHANNEL, roles)},
    )


def _refuse_constant(statistics: xr.Dataset, roles) -> None:
    flat = statistics["maximum"].values == statistics["minimum"].values
    flat |= ~(statistics["std"].values > 0.0)
    names = statistics[CHANNEL].values
    if flat.any():
        listed = ", ".join(
            f"{name} (always {statistics['minimum'].values[i]:g})" for i, name in enumerate(names) if flat[i]
        )
        raise ConstantChannelError(f"channels do not vary in the training period: {listed}")
    still = np.array([role == "prognostic" for role in roles]) & ~(statistics["tendency_std"].values > 0.0)
    if still.any():
        raise ConstantChannelError(
            f"prognostic channels do not change in time: {', '.join(map(str, names[still]))}",
            remedy="Give them the role static or forcing.",
        )


def normalise(array: xr.DataArray, statistics: xr.Dataset) -> xr.DataArray:
    """Return ``(array - mean) / std`` by channel, lazily, in float32.

    Parameters
    ----------
    array
        (..., channel, latitude, longitude) with channel names.
    statistics
        From :func:`compute_statistics`; matched by channel name.
    """
    mean, std = _matched(array, statistics)
    return _by_channel(array, _subtract_divide, mean, std)


def denormalise(array: xr.DataArray, statistics: xr.Dataset) -> xr.DataArray:
    """Return ``array * std + mean`` by channel: the inverse of :func:`normalise`."""
    mean, std = _matched(array, statistics)
    return _by_channel(array, _multiply_add, mean, std)


def _matched(array: xr.DataArray, statistics: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    names = [str(name) for name in array[CHANNEL].values]
    held = {str(name) for name in statistics[CHANNEL].values}
    missing = [name for name in names if name not in held]
    if missing:
        raise MissingDataError(f"there are no statistics for {', '.join(missing)}")
    chosen = statistics.sel({CHANNEL: names})
    return chosen["mean"].values, chosen["std"].values


def _by_channel(array: xr.DataArray, function, mean, std) -> xr.DataArray:
    axis = array.dims.index(CHANNEL)
    if isinstance(array.data, da.Array):
        out = da.map_blocks(
            function,
            array.data.rechunk({axis: -1}),
            mean=mean,
            std=std,
            axis=axis,
            dtype=np.float32,
            meta=np.empty((0,) * array.ndim, np.float32),
        )
    else:
        out = function(array.values, mean, std, axis)
    return array.copy(data=out)


def _subtract_divide(block: np.ndarray, mean: np.ndarray, std: np.ndarray, axis: int) -> np.ndarray:
    return affine(block, -mean / std, 1.0 / std, axis)


def _multiply_add(block: np.ndarray, mean: np.ndarray, std: np.ndarray, axis: int) -> np.ndarray:
    return affine(block, mean, std, axis)
