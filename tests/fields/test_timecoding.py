from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, TimeAxisError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding
from weathermill.fields.opening import open_sources
from weathermill.fields.timecoding import TimeCoder, snap

HOURS = np.timedelta64(1, "h")


def decoded(values, units: str, calendar: str | None = None) -> xr.Variable:
    attrs = {"units": units} | ({"calendar": calendar} if calendar else {})
    return TimeCoder(time_unit="ns").decode(xr.Variable("time", np.asarray(values), attrs), "time")


@pytest.fixture
def ingested(tmp_path, make_source):
    """Write a source with these numbers for times, open it as a file, and return its times and what was told."""

    def ingest(values, units: str, n: int | None = None, **attrs) -> tuple[np.ndarray, list[Finding]]:
        source = make_source(levels=None, names=("t2m",), n_time=n or len(values)).drop_vars("time")
        source = source.assign_coords(time=("time", np.asarray(values), {"units": units, **attrs}))
        source.to_netcdf(tmp_path / "x.nc")
        findings: list[Finding] = []
        with open_sources(tmp_path / "x.nc") as opened:
            fields = canonicalise(
                opened.datasets,
                source_names=opened.names,
                surface_variables=["2m_temperature"],
                findings=findings,
            )
        return fields.time.values, findings

    return ingest


def test_days_from_the_year_one_are_those_of_the_standard_calendar(ingested):
    # A GrADS data server gives 733470 "days since 1-1-1" for what it calls 00z03mar2009; ESRL's FAQ has 725738 for
    # 1988-01-01. The Gregorian calendar carried back to the year 1 would be two days later.
    times, findings = ingested([725738.0, 733470.0], "days since 1-1-1 00:00:0.0")
    assert times.astype("datetime64[D]").astype(str).tolist() == ["1988-01-01", "2009-03-03"]
    assert any("CF's standard calendar" in finding.message for finding in findings)
    with pytest.raises(
        TimeAxisError, match=r"1988-01-01T00:00 in the standard calendar, and .* say 00z03jan1988"
    ):
        ingested([725738.0, 725739.0], "days since 1-1-1 00:00:0.0", minimum="00z03jan1988")
    proleptic, _ = ingested([725738.0, 725739.0], "days since 1-1-1", calendar="proleptic_gregorian")
    assert str(proleptic[0])[:10] == "1988-01-03"


@pytest.mark.parametrize(("decimals", "step"), [(4, 6), (5, 1), (6, 1), (8, 1)])
def test_rounded_days_become_whole_hours(ingested, decimals, step):
    start = (np.datetime64("2023-11-16T06", "h") - np.datetime64("1900-01-01", "h")).astype(float) / 24.0
    days = np.round(start + step * np.arange(30) / 24.0, decimals)
    times, _ = ingested(days, "days since 1900-01-01")
    assert np.array_equal(times, np.datetime64("2023-11-16T06", "ns") + np.arange(30) * step * HOURS)


def test_rounded_days_of_nomads_become_whole_hours(ingested):
    times, _ = ingested(np.round(738841.25 + np.arange(30) / 24, 6), "days since 1-1-1 00:00:0.0")
    assert np.array_equal(times, np.datetime64("2023-11-16T06", "ns") + np.arange(30) * HOURS)


def test_rounded_days_become_whole_minutes_where_those_are_the_steps(ingested):
    minutes = np.arange(0, 600, 5)
    times, _ = ingested(np.round(40000.0 + minutes / 1440.0, 6), "days since 1900-01-01")
    assert np.array_equal(np.diff(times), np.full(119, np.timedelta64(5, "m")))


def test_rounded_days_of_other_calendars_become_whole_hours(ingested):
    times, _ = ingested(
        np.round(51000.0 + np.arange(12) / 24.0, 6), "days since 1850-01-01", calendar="noleap"
    )
    assert [(time.minute, time.second, time.microsecond) for time in times] == [(0, 0, 0)] * 12
    assert times[1] - times[0] == times[11] - times[10]


def test_exact_times_are_left_alone(ingested):
    seconds = np.array([0.0, 1.25, 7.0, 12.5])
    times, _ = ingested(seconds, "seconds since 2020-01-01")
    expected = (seconds * 1e9).astype(np.int64)
    assert (times - np.datetime64("2020-01-01", "ns")).astype(np.int64).tolist() == expected.tolist()
    odd = np.array([0, 61, 3599, 7201])
    times, _ = ingested(odd, "seconds since 2020-01-01")
    assert ((times - np.datetime64("2020-01-01", "ns")) / np.timedelta64(1, "s")).tolist() == odd.tolist()


def test_a_missing_time_with_values_is_refused_by_its_position(ingested):
    with pytest.raises(
        TimeAxisError, match=r"1 of 4 times \(time\) are missing, at the positions 2 \(from 0\)"
    ):
        ingested([0.0, 6.0, np.nan, 18.0], "hours since 2020-01-01")
    with pytest.raises(CoordinateError, match=r"1 of 4 times \(time\) are missing, the first at position 2"):
        ingested([0.0, 6.0, np.nan, 18.0], "hours since 2020-01-01", calendar="noleap")


@pytest.mark.parametrize("position", [1, 3])
def test_a_missing_time_without_values_is_left_out_and_told(make_source, position):
    source = make_source(levels=None, names=("t2m",), n_time=4)
    times = source.time.values.copy()
    times[position] = np.datetime64("NaT")
    source = source.assign_coords(time=times)
    source["t2m"].values[position] = np.nan
    findings: list[Finding] = []
    fields = canonicalise([source], surface_variables=["2m_temperature"], findings=findings)
    kept = [i for i in range(4) if i != position]
    assert fields.time.values.tolist() == times[kept].tolist()
    assert np.array_equal(fields["2m_temperature"].values, source["t2m"].values[kept])
    assert any("hold no value and are left out" in finding.message for finding in findings)


def test_a_single_time_beside_a_time_axis_is_passed_over_and_told(make_source):
    source = make_source(levels=None, names=("t2m",))
    findings: list[Finding] = []
    beside = source.assign_coords(valid_time=source.time.values[0])
    fields = canonicalise([beside], surface_variables=["2m_temperature"], findings=findings)
    assert fields.time.values.tolist() == source.time.values.tolist()
    assert any("a single valid_time (2020-01-01T00:00) beside the times" in f.message for f in findings)


def test_whole_months_are_months_of_the_calendar(ingested):
    times, _ = ingested(np.arange(15), "months since 1999-12-01")
    assert times.astype("datetime64[D]").astype(str).tolist()[::7] == [
        "1999-12-01",
        "2000-07-01",
        "2001-02-01",
    ]
    years, _ = ingested(np.array([0, 1, 5]), "years since 1999-12-16 00:00:00")
    assert years.astype("datetime64[D]").astype(str).tolist() == ["1999-12-16", "2000-12-16", "2004-12-16"]


@pytest.mark.parametrize(
    ("values", "units"), [([0.5, 1.5], "months since 2000-01-01"), ([0, 1], "months since 2000-01-31")]
)
def test_months_whose_dates_are_not_certain_are_refused(ingested, values, units):
    with pytest.raises(CoordinateError, match="not all of them are whole months"):
        ingested(values, units)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("hours since 2000-01-01 00:00:00 +02:00", "1999-12-31T22"),
        ("hours since 2000-01-01T00:00:00Z", "2000-01-01T00"),
        ("hours since 2000-01-01 00:00:00 UTC", "2000-01-01T00"),
        ("hours since 2000-01-01 00:00:00 -3:00", "2000-01-01T03"),
    ],
)
def test_time_zones_in_units_come_to_utc(ingested, units, expected):
    assert str(ingested([0.0, 6.0], units)[0][0]).startswith(expected)


@pytest.mark.parametrize("zone", ["EST", "CET", "LST", "local time", "Europe/Berlin"])
def test_time_zones_that_are_named_are_refused(ingested, zone):
    with pytest.raises(CoordinateError, match=rf"time zone {zone} is not certain \[.*x\.nc\]"):
        ingested([0.0, 6.0], f"hours since 2000-01-01 00:00:00 {zone}")


def test_snapping_of_other_calendars_goes_through_midnight():
    day = cftime.datetime(2001, 2, 30, 23, 59, 59, 950000, calendar="360_day")
    (snapped,) = snap(np.array([day]), 0.06)
    assert snapped == cftime.datetime(2001, 3, 1, calendar="360_day")


def test_decoding_leaves_what_is_no_time(make_source):
    assert decoded([1.0, 2.0], "m").attrs == {"units": "m"}
    assert decoded([0.0, 1.0], "days since 2000-01-01", "360_day").values[1] == cftime.datetime(
        2000, 1, 2, calendar="360_day"
    )


@pytest.mark.parametrize(("share", "place"), [(0.0, "beginning"), (0.5, "middle"), (1.0, "end")])
def test_means_over_time_are_told_with_the_place_of_their_times(make_source, share, place):
    source = make_source(levels=None, names=("t2m",), step_hours=24)
    source["t2m"].attrs["cell_methods"] = "area: mean time: mean"
    length = np.timedelta64(24, "h")
    start = source.time.values - (length * share).astype("timedelta64[h]")
    source["time"].attrs["bounds"] = "time_bnds"
    source["time_bnds"] = (("time", "bnds"), np.stack([start, start + length], axis=1))
    findings: list[Finding] = []
    canonicalise([source], surface_variables=["2m_temperature"], findings=findings)
    expected = f"t2m hold the mean over an interval of time, no states at a time; it is 24 h long, and times are at its {place}"
    assert any(expected in finding.message for finding in findings)
