from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import SplitError
from weathermill.tensors.splits import Period, seconds_since_1970, split_indices, window_starts

STEP = 21600


def times_of(start, n, step=STEP):
    return int(np.datetime64(start, "s").astype(np.int64)) + np.arange(n) * step


def test_periods_are_half_open():
    times = times_of("2015-12-31", 12)
    splits = split_indices(
        times, {"train": Period(None, "2016"), "test": Period("2016-01-01", "2016-01-02T06:00")}
    )
    assert splits == {"train": [(0, 4)], "test": [(4, 9)]}


def test_gap_breaks_a_run():
    times = np.concatenate([times_of("2000-01-01", 6), times_of("2000-02-01", 5)])
    splits = split_indices(times, {"train": Period()})
    assert splits["train"] == [(0, 6), (6, 11)]
    assert window_starts(splits["train"], 2).tolist() == [0, 1, 2, 3, 6, 7, 8]


def test_overlap_is_refused():
    with pytest.raises(SplitError, match="'train' and 'test' overlap"):
        split_indices(
            times_of("2000-01-01", 40), {"train": Period(None, "2000-01-06"), "test": Period("2000-01-05")}
        )


def test_empty_split_names_what_the_data_hold():
    with pytest.raises(SplitError, match=r"'test' holds no state.*2000-01-01T00:00:00 to"):
        split_indices(times_of("2000-01-01", 8), {"test": Period("2010", None)})


def test_too_short_a_split_is_refused():
    with pytest.raises(SplitError, match="at most 1 consecutive state; at least 2"):
        split_indices(times_of("2000-01-01", 8), {"test": Period(None, "2000-01-01T06")})


def test_reversed_period_is_refused():
    with pytest.raises(SplitError, match="is empty"):
        split_indices(times_of("2000-01-01", 8), {"test": Period("2001", "2000")})


def test_fractions_follow_time():
    splits = split_indices(times_of("2000-01-01", 20), {"train": 0.7, "validation": 0.15, "test": 0.15})
    assert splits == {"train": [(0, 14)], "validation": [(14, 17)], "test": [(17, 20)]}
    with pytest.raises(SplitError, match="add up to at most one"):
        split_indices(times_of("2000-01-01", 20), {"train": 0.9, "test": 0.2})
    with pytest.raises(SplitError, match="mixture"):
        split_indices(times_of("2000-01-01", 20), {"train": 0.9, "test": Period("2000")})


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "all_leap"])
def test_dates_count_like_cftime(calendar):
    cftime = pytest.importorskip("cftime")
    for text in ("1970-01-01", "1979-03-01", "2000-02-28T18:00", "1969-12-30", "2016-12-30T23:59:59"):
        date, _, clock = text.partition("T")
        year, month, day = map(int, date.split("-"))
        clock = [int(part) for part in clock.split(":")] if clock else []
        expected = cftime.date2num(
            cftime.datetime(year, month, day, *clock, calendar=calendar), "seconds since 1970-01-01", calendar
        )
        assert seconds_since_1970(text, calendar) == expected


@pytest.mark.parametrize(
    ("text", "calendar"),
    [("2001-02-29", "standard"), ("2000-02-29", "noleap"), ("2000-01-31", "360_day"), ("June", "standard")],
)
def test_dates_outside_the_calendar_are_refused(text, calendar):
    with pytest.raises(SplitError, match="is no"):
        seconds_since_1970(text, calendar)


def test_unknown_calendar_is_refused():
    with pytest.raises(SplitError, match="'mayan' is not known"):
        seconds_since_1970("2000-01-01", "mayan")


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.sampled_from([1, 1, 1, 2, 5]), min_size=5, max_size=60),
    steps=st.integers(0, 4),
    cut=st.floats(0.2, 0.8),
)
def test_no_window_crosses_a_gap_or_a_split(gaps, steps, cut):
    times = np.concatenate([[0], np.cumsum(gaps)]) * STEP
    splits = split_indices(times, {"train": cut, "test": 1 - cut}, time_step=STEP, minimum_states=1)
    edge = splits["test"][0][0]
    for name, runs in splits.items():
        starts = window_starts(runs, steps)
        for i in starts:
            window = times[i : i + steps + 1]
            assert len(window) == steps + 1
            assert (np.diff(window) == STEP).all()
            assert (i + steps < edge) if name == "train" else (i >= edge)
        possible = [
            i
            for i in range(len(times) - steps)
            if (np.diff(times[i : i + steps + 1]) == STEP).all()
            and ((i + steps < edge) if name == "train" else (i >= edge))
        ]
        assert starts.tolist() == possible
