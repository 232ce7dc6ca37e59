"""Climatologies: baselines that a forecast has to beat. Persistence is the initial state and needs no code.

A climatology is made from the training period only, in one stream over the states (several, over blocks of
channels, where memory is short), and evaluated at any valid time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import ParameterError, SplitError
from weathermill.verification import times as clock
from weathermill.verification.gaps import VALUES_PER_TERM, GapCounter

HARMONIC, HOURLY, MEAN, WEEKLY = "harmonic", "hourly", "mean", "weekly"
DESCRIPTIONS = {
    HARMONIC: "least-squares fit of the annual cycle up to harmonic {harmonics}, by hour of day ({bins} of them)",
    HOURLY: "mean by hour of day ({bins} of them); the training period is too short for an annual cycle",
    MEAN: "mean over the training period, which is too short for a cycle of any kind",
    WEEKLY: "mean of each week of the year (WeatherBench 1)",
}
#: An annual cycle needs a year of data without a hole of two months.
_MIN_COVERED_DAYS, _MAX_HOLE_DAYS = 330.0, 60.0
#: Fewer states than this at an hour of day make its mean noisier than the diurnal cycle it resolves.
_MIN_STATES_PER_HOUR = 10
_BATCH = 16


@dataclass(frozen=True)
class Climatology:
    """Expected fields as a function of the time of day and year.

    Parameters
    ----------
    kind
        "harmonic", "hourly", "mean" or "weekly".
    bins
        Hours of day (for "harmonic" and "hourly"), weeks of the year ("weekly"), or one zero ("mean").
    coefficients
        float32 (bin, term, channel, latitude, longitude), physical units. Terms are 1, cos, sin, cos 2, sin
        2, ... of the annual phase; one term where there are no harmonics.
    attrs
        How it was made, for the record.
    """

    kind: str
    bins: np.ndarray
    coefficients: np.ndarray
    attrs: dict[str, Any] = field(default_factory=dict)

    def at(self, times: Any) -> np.ndarray:
        """Evaluate at some valid times.

        Parameters
        ----------
        times
            datetime64 or cftime, scalar or sequence.

        Returns
        -------
        numpy.ndarray
            float32 (time, channel, latitude, longitude), physical units. Between the hours of day that the
            training data have, values are interpolated linearly; a week they lack is taken from the nearest
            week.
        """
        times = clock.as_times(times)
        result = np.empty((len(times), *self.coefficients.shape[2:]), dtype=np.float32)
        if self.kind == MEAN:
            result[:] = self.coefficients[0, 0]
        elif self.kind == WEEKLY:
            for position, week in enumerate(clock.week_of_year(times)):
                distance = np.abs(self.bins - week)
                result[position] = self.coefficients[np.argmin(np.minimum(distance, 53.5 - distance)), 0]
        else:
            harmonics = (self.coefficients.shape[1] - 1) // 2
            basis = annual_basis(clock.year_fraction(times), harmonics).astype(np.float32)
            terms = self.coefficients.reshape(*self.coefficients.shape[:2], -1)
            flat = result.reshape(len(times), -1)
            for position, hour in enumerate(clock.hour_of_day(times)):
                shares = _hour_shares(self.bins, hour)
                flat[position] = sum(np.float32(share) * (basis[position] @ terms[b]) for share, b in shares)
        return result

    def to_dataset(self, channels: Sequence[str], latitude: np.ndarray, longitude: np.ndarray) -> xr.Dataset:
        """Return the climatology as a Dataset that can be kept as NetCDF."""
        return xr.Dataset(
            {"coefficients": (("bin", "term", "channel", "latitude", "longitude"), self.coefficients)},
            coords={
                "bin": self.bins,
                "channel": list(channels),
                "latitude": np.asarray(latitude),
                "longitude": np.asarray(longitude),
            },
            attrs={"kind": self.kind, **self.attrs},
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Climatology:
        """Take a climatology back from what `to_dataset` made."""
        attrs = {name: value for name, value in dataset.attrs.items() if name != "kind"}
        return cls(
            kind=str(dataset.attrs["kind"]),
            bins=dataset["bin"].to_numpy(),
            coefficients=dataset["coefficients"].to_numpy(),
            attrs=attrs,
        )


def climatology(
    read: Callable[[int], np.ndarray] | np.ndarray,
    times: Any,
    training_runs: Iterable[tuple[int, int]] | None = None,
    *,
    kind: str = "auto",
    harmonics: int | None = None,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    memory_limit: int = 2 * 2**30,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Climatology:
    """Make a climatology from the states of the training period, in a stream.

    Parameters
    ----------
    read
        ``read(i)`` returns the state at ``times[i]``, (channel, latitude, longitude); or an array of all of
        them.
    times
        Times of all states, datetime64 or cftime.
    training_runs
        ``(start, stop)`` index ranges of the training period; all times by default.
    kind
        "auto": annual harmonics for each hour of day where the training period covers the year, else the mean
        of each hour of day, else (fewer than ten states an hour of day) the overall mean. Or one of
        "harmonic", "hourly", "mean", "weekly" by name.
    harmonics
        Number of annual harmonics; by default 1 under three years of data, 2 under ten, 3 above (every
        further one fits weather of the training years rather than climate).
    mean, std
        Where ``read`` gives normalised states, the channels' means and standard deviations, with which the
        climatology is put into physical units.
    memory_limit
        Bytes for sums and buffers. What does not fit is done in blocks of channels, one stream for each. (The
        result, in float32, comes on top.)
    progress
        Wraps the loop over batches of states, such as ``tqdm``.

    Returns
    -------
    Climatology
        With ``attrs`` that say which kind was used and from what.

    Raises
    ------
    SplitError
        If the training period is empty.
    ParameterError
        If ``kind`` is unknown, or demands more than the training period offers.
    """
    times = clock.as_times(times)
    runs = [(0, len(times))] if training_runs is None else [(int(a), int(b)) for a, b in training_runs]
    indices = np.concatenate([np.arange(a, b) for a, b in runs]) if runs else np.empty(0, dtype=np.int64)
    if indices.size == 0:
        raise SplitError("the training period is empty, so there is no climatology")
    reader = read if callable(read) else read.__getitem__
    train_times = times[indices]
    fractions, hours = clock.year_fraction(train_times), clock.hour_of_day(train_times)

    chosen = _choose_kind(kind, fractions, hours, train_times)
    if chosen == HARMONIC:
        harmonics = _default_harmonics(train_times) if harmonics is None else int(harmonics)
    else:
        harmonics = 0
    basis = annual_basis(fractions, harmonics)
    if chosen == WEEKLY:
        bins, bin_of = np.unique(clock.week_of_year(train_times), return_inverse=True)
    elif chosen == MEAN:
        bins, bin_of = np.zeros(1), np.zeros(len(indices), dtype=np.int64)
    else:
        bins, bin_of = np.unique(hours, return_inverse=True)
    if chosen == HARMONIC and np.bincount(bin_of).min() < VALUES_PER_TERM * basis.shape[1]:
        raise ParameterError(
            f"{harmonics} annual harmonics cannot be fitted: an hour of day has only"
            f" {np.bincount(bin_of).min()} states, {VALUES_PER_TERM * basis.shape[1]} are needed",
            remedy="Choose fewer harmonics or kind 'hourly'.",
        )

    first = np.asarray(reader(int(indices[0])))
    coefficients = np.empty((len(bins), basis.shape[1], *first.shape), dtype=np.float32)
    bytes_per_channel = (2 * basis.shape[1] * 8 + 2 * _BATCH * 4) * first[0].size
    block = max(1, min(len(first), int(memory_limit // max(1, bytes_per_channel))))
    for start in range(0, len(first), block):
        channels = slice(start, min(start + block, len(first)))
        coefficients[:, :, channels] = _fit(
            reader, indices, bin_of, len(bins), basis, channels, first, progress
        )

    if std is not None:
        coefficients *= np.asarray(std, dtype=np.float32)[None, None, :, None, None]
    if mean is not None:
        coefficients[:, 0] += np.asarray(mean, dtype=np.float32)[None, :, None, None]
    attrs = {
        "climatology": DESCRIPTIONS[chosen].format(harmonics=harmonics, bins=len(bins)),
        "climatology_start": clock.time_key(train_times.min()),
        "climatology_stop": clock.time_key(train_times.max()),
        "climatology_states": int(indices.size),
        "climatology_harmonics": harmonics,
    }
    return Climatology(kind=chosen, bins=np.asarray(bins), coefficients=coefficients, attrs=attrs)


def annual_basis(fractions: np.ndarray, harmonics: int) -> np.ndarray:
    """Return the terms 1, cos, sin, cos 2, sin 2, ... of the annual phase, (time, 1 + 2 harmonics)."""
    phase = 2.0 * np.pi * np.asarray(fractions, dtype=np.float64)
    terms = [np.ones_like(phase)]
    for order in range(1, harmonics + 1):
        terms += [np.cos(order * phase), np.sin(order * phase)]
    return np.stack(terms, axis=1)


def _fit(reader, indices, bin_of, n_bins, basis, channels, first, progress) -> np.ndarray:
    """Fit a block of channels by least squares, bin after bin, so that only one bin's sums are in memory."""
    shape = first[channels].shape
    n_terms = basis.shape[1]
    # The annual cycle is small against a mean like 5e4 m2 s-2: departures from one state lose little in
    # float32.
    origin = np.nan_to_num(np.asarray(first[channels], dtype=np.float32)).reshape(1, -1)
    solution = np.empty((n_bins, n_terms, *shape), dtype=np.float32)
    of_bin = [np.flatnonzero(bin_of == bin_index) for bin_index in range(n_bins)]
    batches = [
        (bin_index, members[start : start + _BATCH], start + _BATCH >= len(members))
        for bin_index, members in enumerate(of_bin)
        for start in range(0, len(members), _BATCH)
    ]
    sums = gram = gaps = None
    for bin_index, members, last in progress(batches):
        if sums is None:
            sums = np.zeros((n_terms, origin.size))
            gram = np.zeros((n_terms, n_terms))
            gaps = GapCounter(n_terms, shape[0], int(np.prod(shape[1:])))
        states = np.stack(
            [np.asarray(reader(int(indices[m]))[channels], np.float32).ravel() for m in members]
        )
        states -= origin
        absent = np.isnan(states)
        if absent.any():
            gaps.add(basis[members], absent)
            states[absent] = 0.0
        # Single precision within a batch, double between batches.
        sums += basis[members].T.astype(np.float32) @ states
        gram += basis[members].T @ basis[members]
        if last:
            sums = gaps.solve(gram, sums)
            sums[0] += origin[0]
            solution[bin_index] = sums.reshape(n_terms, *shape)
            sums = None
    return solution


def _choose_kind(kind: str, fractions: np.ndarray, hours: np.ndarray, times: np.ndarray) -> str:
    if kind not in ("auto", *DESCRIPTIONS):
        raise ParameterError(f"unknown climatology kind {kind!r}; known: auto, {', '.join(DESCRIPTIONS)}")
    if kind in (HOURLY, MEAN, WEEKLY):
        return kind
    days = np.unique(np.floor(fractions * 365.0))
    holes = np.diff(np.concatenate([days, [days[0] + 365.0]]))
    covered = _span_days(times) >= _MIN_COVERED_DAYS and holes.max() <= _MAX_HOLE_DAYS
    if kind == HARMONIC:
        if not covered:
            raise ParameterError(
                f"an annual cycle needs a year of training data without a hole of {_MAX_HOLE_DAYS:.0f} days;"
                f" these span {_span_days(times):.0f} days with a hole of {holes.max():.0f}",
                remedy="Choose kind 'auto' or 'hourly', or widen the training period.",
            )
        return kind
    if covered:
        return HARMONIC
    counts = np.unique(hours, return_counts=True)[1]
    return HOURLY if counts.min() >= _MIN_STATES_PER_HOUR else MEAN


def _default_harmonics(times: np.ndarray) -> int:
    years = _span_days(times) / 365.0
    return 1 if years < 3 else 2 if years < 10 else 3


def _span_days(times: np.ndarray) -> float:
    span = times.max() - times.min()
    return (
        span.total_seconds() / 86400
        if times.dtype == object
        else float(span / np.timedelta64(1, "s")) / 86400
    )


def _hour_shares(hours: np.ndarray, hour: float) -> list[tuple[float, int]]:
    """Linear interpolation weights between neighbouring hours of a cyclic day: [(share, bin), ...]."""
    after = int(np.searchsorted(hours, hour))
    if after < len(hours) and hours[after] == hour:
        return [(1.0, after)]
    if len(hours) == 1:
        return [(1.0, 0)]
    before, after = (after - 1) % len(hours), after % len(hours)
    gap = (hours[after] - hours[before]) % 24.0
    share = ((hour - hours[before]) % 24.0) / gap
    return [(1.0 - share, before), (share, after)]
