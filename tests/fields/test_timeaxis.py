from __future__ import annotations

import datetime as dt

import cftime
import numpy as np
import pytest

from weathermill.errors import EmptySelectionError, ParameterError, TimeAxisError
from weathermill.fields.timeaxis import (
    calendar_of,
    first_text,
    gaps,
    require_some,
    selection,
    step_seconds,
    to_axis_type,
    usual_step,
)
from weathermill.fields.timecoding import snap

SIX_HOURS = np.datetime64("2020-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")


def noleap(*args: int) -> cftime.datetime:
    return cftime.datetime(*args, calendar="noleap")


def test_selection_is_half_open_and_sorts():
    assert selection(SIX_HOURS, "2020-01-01T06:00", "2020-01-02").tolist() == [1, 2, 3]
    assert selection(SIX_HOURS[::-1], "2020-01-01T06:00", "2020-01-02").tolist() == [6, 5, 4]
    assert selection(SIX_HOURS, None, None).size == 8


def test_selection_in_a_calendar_without_leap_days():
    times = np.array([noleap(2020, 2, 28), noleap(2020, 3, 1), noleap(2020, 3, 2)])
    assert selection(times, "2020-02-28", "2020-03-02").tolist() == [0, 1]
    assert selection(times, "2020-03", None).tolist() == [1, 2]
    assert calendar_of(times) == "noleap"
    with pytest.raises(ParameterError, match="noleap"):
        to_axis_type("2020-02-29", times)


def test_a_date_that_is_none_is_refused():
    with pytest.raises(ParameterError, match="next tuesday"):
        to_axis_type("next tuesday", SIX_HOURS)


def test_mixed_calendars_on_one_axis_are_refused():
    with pytest.raises(TimeAxisError, match="360_day"):
        calendar_of(np.array([noleap(2000, 1, 1), cftime.datetime(2000, 1, 1, calendar="360_day")]))


def test_steps_and_gaps():
    times = np.delete(SIX_HOURS, [3, 4])
    assert usual_step(times) == 21600.0
    assert gaps(times) == [(2, 3 * 21600.0)]
    assert gaps(SIX_HOURS) == []
    assert usual_step(SIX_HOURS[:1]) is None
    months = np.array([noleap(2001, m, 1) for m in (1, 2, 3)])
    assert step_seconds(months).tolist() == [31 * 86400.0, 28 * 86400.0]


def test_snap_undoes_the_rounding_of_float32_days():
    days = (SIX_HOURS - np.datetime64("1850-01-01", "ns")) / np.timedelta64(1, "D") + 1.0 / 24.0
    coarse = days.astype(np.float32).astype(np.float64)
    blurred = np.datetime64("1850-01-01", "ns") + (coarse * 86400e9).astype("timedelta64[ns]")
    resolution = float(np.spacing(np.float32(days.max()))) * 86400.0
    assert not np.array_equal(blurred, SIX_HOURS + np.timedelta64(1, "h"))
    assert np.array_equal(snap(blurred, resolution), SIX_HOURS + np.timedelta64(1, "h"))


def test_snap_leaves_alone_what_would_collide():
    times = np.datetime64("2000-01-01", "ns") + np.array([0, 100, 250]) * np.timedelta64(1, "ms")
    assert np.array_equal(snap(times, 3600.0), times)


def test_an_empty_selection_says_what_there_is():
    with pytest.raises(EmptySelectionError, match=r"2020-01-01T00:00 to 2020-01-02T18:00"):
        require_some(0, "temperature", "2030", None, SIX_HOURS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020", "2020-01-01T00:00"),
        ("2020-02", "2020-02-01T00:00"),
        ("20200229T06", "2020-02-29T06:00"),
        ("2020-02-29 06:30", "2020-02-29T06:30"),
        ("2020-02-29T06:00Z", "2020-02-29T06:00"),
        ("2020-02-29T06:00+02:00", "2020-02-29T04:00"),
        (dt.datetime(2020, 2, 29, 6), "2020-02-29T06:00"),
        (dt.date(2020, 2, 29), "2020-02-29T00:00"),
    ],
)
def test_dates_are_written_in_many_ways(text, expected):
    assert to_axis_type(text, SIX_HOURS) == np.datetime64(expected)
    other = to_axis_type(text, np.array([cftime.datetime(2020, 1, 1, calendar="360_day")]))
    assert other.isoformat()[:16] == expected


def test_dates_that_only_other_calendars_have():
    days = np.array(
        [cftime.datetime(2001, 2, 29, calendar="360_day"), cftime.datetime(2001, 3, 1, calendar="360_day")]
    )
    assert to_axis_type("2001-02-30", days) == cftime.datetime(2001, 2, 30, calendar="360_day")
    assert selection(days, "2001-02-30", None).tolist() == [1]
    with pytest.raises(ParameterError, match="'2001-02-30' is no date of the proleptic_gregorian calendar"):
        to_axis_type("2001-02-30", SIX_HOURS)
    for text in ("2001-13-01", "2001-01-01T25:00", "20010230123", "2001/01/01"):
        with pytest.raises(ParameterError):
            to_axis_type(text, days)


def test_a_date_of_another_calendar_is_read_by_its_parts():
    assert to_axis_type(noleap(2020, 1, 1, 6), SIX_HOURS) == SIX_HOURS[1]


def test_years_before_1000_have_four_digits():
    assert first_text(noleap(1, 2, 3, 4)) == "0001-02-03T04:00"
