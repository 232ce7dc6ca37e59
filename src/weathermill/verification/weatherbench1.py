"""The baseline rows of the WeatherBench 1 table, by its own conventions.

Rasp et al. (2020, doi:10.1029/2020MS002203): 5.625 degrees (32 x 64), years 1979 to 2016 for climatologies,
hourly states of 2017 and 2018 for verification, weights cos(latitude) over their mean, RMSE as the root of
the mean over all times and places (so its code; the formula in the paper prints the mean of roots), ISO
weeks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from weathermill.errors import SplitError
from weathermill.verification import times as clock
from weathermill.verification.baselines import MEAN, WEEKLY, climatology
from weathermill.verification.labels import number, short_name
from weathermill.verification.regions import GLOBAL
from weathermill.verification.scores import ScoreAccumulator

#: RMSE at 3 and 5 days, as published (persistence's T850 at 3 days is 4.23 K in the paper and on its leader board).
PUBLISHED = {
    ("persistence", "geopotential_500"): (936.0, 1033.0),
    ("persistence", "temperature_850"): (4.23, 4.56),
    ("climatology", "geopotential_500"): (1075.0, 1075.0),
    ("climatology", "temperature_850"): (5.51, 5.51),
    ("weekly climatology", "geopotential_500"): (816.0, 816.0),
    ("weekly climatology", "temperature_850"): (3.50, 3.50),
}
LEADS_HOURS = (72.0, 120.0)
CHANNELS = ("geopotential_500", "temperature_850")
#: What the published rows were computed from.
PUBLISHED_GRID, PUBLISHED_STEP_HOURS = (32, 64), 1.0
PUBLISHED_CLIMATOLOGY, PUBLISHED_TEST = (1979, 2016), (2017, 2018)
_ORDER = ("persistence", "climatology", "weekly climatology")


def cosine_weights(latitude: np.ndarray) -> np.ndarray:
    """Return cos(latitude) over its mean, the weights of WeatherBench 1."""
    weights = np.cos(np.deg2rad(np.asarray(latitude, dtype=np.float64)))
    return weights / weights.mean()


def baseline_table(
    read: Callable[[int], np.ndarray] | np.ndarray,
    times: Any,
    channels: Sequence[str],
    latitude: np.ndarray,
    *,
    training_runs: Iterable[tuple[int, int]],
    test_runs: Iterable[tuple[int, int]],
    leads_hours: Sequence[float] = LEADS_HOURS,
    every: int = 1,
    batch: int = 64,
    progress: Callable[[Iterable], Iterable] = iter,
) -> pd.DataFrame:
    """Score persistence, climatology and weekly climatology as the published table does.

    Parameters
    ----------
    read
        ``read(i)`` returns the state at ``times[i]``, (channel, latitude, longitude), physical units; or an
        array.
    times
        Times of all states, evenly spaced within runs.
    channels
        Names of the channels.
    latitude
        Degrees.
    training_runs, test_runs
        ``(start, stop)`` index ranges without gaps. Climatologies are made from the first, and persistence
        starts and verifies inside the second; climatologies are scored on every state of it, as published.
    leads_hours
        Lead times in hours.
    every
        Start from every n-th state only (1 as published: every hour).
    batch
        Initial times at once.
    progress
        Wraps the loop over batches, such as ``tqdm``.

    Returns
    -------
    pandas.DataFrame
        Columns ``baseline``, ``channel``, ``lead_time_h``, ``rmse``, ``rmse_mean_of_roots``, ``published``
        (NaN where there is no such row) and ``n`` (number of states verified).

    Raises
    ------
    SplitError
        If no test run is longer than the longest lead time.
    """
    times = clock.as_times(times)
    reader = read if callable(read) else read.__getitem__
    training_runs, test_runs = list(training_runs), list(test_runs)
    weights = cosine_weights(latitude)
    overall = climatology(reader, times, training_runs, kind=MEAN)
    weekly = climatology(reader, times, training_runs, kind=WEEKLY)

    states = ScoreAccumulator(channels, [0], weights, regions=[GLOBAL])
    verified = np.concatenate([np.arange(start, stop, every) for start, stop in test_runs])
    for rows in progress(_batches(verified, batch)):
        truth = _stack(reader, rows)[:, None]
        valid = times[rows]
        fields = {"climatology": overall.at(valid)[:, None], "weekly climatology": weekly.at(valid)[:, None]}
        states.update(fields, truth, None, valid)
    records = _records(
        states.result(by_init=False), channels, [float(lead) for lead in leads_hours], fixed=True
    )

    for lead in leads_hours:
        pairs = [_pairs(times, start, stop, float(lead), every) for start, stop in test_runs]
        initial = np.concatenate([pair[0] for pair in pairs])
        later = np.concatenate([pair[1] for pair in pairs])
        if initial.size == 0:
            raise SplitError(f"no part of the test period is longer than the lead time of {lead:g} h")
        accumulator = ScoreAccumulator(channels, [lead], weights, regions=[GLOBAL])
        for chunk in progress(_batches(np.arange(initial.size), batch)):
            truth = _stack(reader, later[chunk])[:, None]
            accumulator.update(
                {}, truth, None, times[initial[chunk]], persistence=_stack(reader, initial[chunk])
            )
        records += _records(accumulator.result(by_init=False), channels, [float(lead)])
    frame = pd.DataFrame.from_records(records)
    return frame.sort_values(["channel", "baseline", "lead_time_h"], ignore_index=True)


def departures(
    grid_shape: tuple[int, int],
    step_hours: float,
    training_times: Any,
    test_times: Any,
    *,
    simulated: bool = False,
) -> list[str]:
    """Say in what the data differ from those of the published table; nothing where they do not.

    Parameters
    ----------
    grid_shape
        (latitude, longitude).
    step_hours
        Between states.
    training_times, test_times
        Times of the states that climatologies are of, and of those that are verified.
    simulated
        Whether the data are a simulation.
    """
    notes = []
    if simulated:
        notes.append("The data are simulated: the published numbers are of ERA5 and say nothing about them.")
    if tuple(grid_shape) != PUBLISHED_GRID:
        notes.append(
            f"The grid is {grid_shape[0]} x {grid_shape[1]}, not {PUBLISHED_GRID[0]} x {PUBLISHED_GRID[1]}."
        )
    if step_hours != PUBLISHED_STEP_HOURS:
        notes.append(f"States are {step_hours:g} h apart, not {PUBLISHED_STEP_HOURS:g} h.")
    for name, times, years in (
        ("Climatologies are", training_times, PUBLISHED_CLIMATOLOGY),
        ("Verification is", test_times, PUBLISHED_TEST),
    ):
        keys = sorted(clock.time_key(time) for time in clock.as_times(times))
        first, last = keys[0][:10], keys[-1][:10]
        if (first, last) != (f"{years[0]}-01-01", f"{years[1]}-12-31"):
            notes.append(f"{name} of {first} to {last}, not of {years[0]} to {years[1]}.")
    return notes


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table as printed: a row per channel, baseline and lead time; one for all leads where they are equal."""
    rows = []
    for channel in table["channel"].unique():
        for baseline in _ORDER:
            here = table[(table.channel == channel) & (table.baseline == baseline)].sort_values("lead_time_h")
            fixed = baseline != "persistence"
            for record in here.head(1 if fixed else len(here)).to_dict("records"):
                published = record["published"]
                rows.append(
                    {
                        "channel": short_name(channel),
                        "baseline": baseline,
                        "lead": "all" if fixed else f"{record['lead_time_h'] / 24:g} days",
                        "rmse": number(record["rmse"]),
                        "published": number(published) if np.isfinite(published) else "-",
                        "difference": f"{100 * (record['rmse'] / published - 1):+.1f} %"
                        if np.isfinite(published)
                        else "-",
                        "mean_of_roots": number(record["rmse_mean_of_roots"]),
                        "n": record["n"],
                    }
                )
    return rows


def baseline_text(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Lay the rows beside the published ones, in plain text."""
    lines = [f"{'':<5} {'':<18} {'lead':>7} {'RMSE':>9} {'published':>10} {'difference':>11}"]
    for row in _rows(table):
        lines.append(
            f"{row['channel']:<5} {row['baseline']:<18} {row['lead']:>7} {row['rmse']:>9} {row['published']:>10}"
            f" {row['difference']:>11}"
        )
    return "\n".join(["Baselines of WeatherBench 1 (m2 s-2 and K):", *lines, *notes])


def baseline_page(table: pd.DataFrame, notes: Sequence[str], facts: Mapping[str, Any]) -> str:
    """Render the rows beside the published ones as a page that needs no network.

    Parameters
    ----------
    table
        From `baseline_table`.
    notes
        From `departures`.
    facts
        On the data, label to value; escaped.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("weathermill.verification").joinpath("templates/weatherbench1.html.j2").read_text("utf-8")
    )
    return template.render(rows=_rows(table), notes=notes, facts=[(k, str(v)) for k, v in facts.items()])


def _pairs(
    times: np.ndarray, start: int, stop: int, lead: float, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of initial and verifying states inside a run."""
    index = np.arange(start, stop)
    wanted = clock.add_hours(times[start:stop:every], lead)
    later = index[0] + np.searchsorted(times[start:stop], wanted) if index.size else index
    initial = index[::every]
    inside = later < stop
    initial, later, wanted = initial[inside], later[inside], wanted[inside]
    exact = np.array([times[i] == time for i, time in zip(later, wanted, strict=True)], dtype=bool)
    return initial[exact], later[exact]


def _records(scores, channels, leads, fixed: bool = False) -> list[dict[str, Any]]:
    records = []
    for baseline in scores["source"].to_numpy().tolist():
        for channel in channels:
            for lead in leads:
                here = scores.sel(
                    source=baseline, channel=channel, region="global", lead_time=0 if fixed else lead
                )
                published = PUBLISHED.get((baseline, channel), (np.nan,) * len(LEADS_HOURS))
                at = dict(zip(LEADS_HOURS, published, strict=True))
                records.append(
                    {
                        "baseline": baseline,
                        "channel": channel,
                        "lead_time_h": lead,
                        "rmse": float(here["rmse"]),
                        "rmse_mean_of_roots": float(here["rmse_mean_of_roots"]),
                        "published": at.get(lead, np.nan),
                        "n": int(here["n_init"]),
                    }
                )
    return records


def _batches(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _stack(reader: Callable[[int], np.ndarray], rows: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(reader(int(row))) for row in rows])
