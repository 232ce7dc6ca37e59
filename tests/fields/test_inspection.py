from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import ImplausibleValueError, MissingDataError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding
from weathermill.fields.inspection import inspect
from weathermill.fields.steps import handle_missing_steps


def report_on(source, findings=(), **options):
    fields = canonicalise([source], variables=["temperature"])
    return inspect(fields, source_names=["x.nc"], findings=findings, **options)


def messages(report, severity):
    return " | ".join(f"{f.subject}: {f.message}" for f in report.findings if f.severity == severity)


def test_clean_data_has_nothing_to_find(make_source):
    report = report_on(make_source(n_time=12))
    assert report.findings == []
    report.raise_for_errors()
    assert report.facts["time"]["steps"] == 12 and report.facts["time"]["step_seconds"] == 21600.0
    assert report.facts["levels"] == [500.0, 850.0]
    assert report.facts["grid"]["pole_points"] and report.facts["grid"]["shape"] == [9, 16]
    (first, second) = report.variables
    assert first.level == 500.0 and 250 < first.mean < 260 and first.missing_share == 0.0
    assert second.maximum > first.maximum


def test_gaps_are_warned_of(make_source):
    source = make_source(n_time=12).isel(time=[0, 1, 2, 6, 7, 8, 10, 11])
    report = report_on(source)
    assert "2 gaps, 4 steps of 6 h missing: after 2020-01-01T12:00 (24 h)" in messages(report, "warning")
    assert report.facts["time"]["gaps"][0]["missing_steps"] == 3
    report.raise_for_errors()


def test_missing_values_and_empty_variables(make_source):
    source = make_source(n_time=6)
    source["t"][:, 0, :3] = np.nan
    report = report_on(source)
    assert "33.3 % of the sampled values are missing at 500 hPa" in messages(report, "warning")
    source["t"][:, 0] = np.nan
    report = report_on(source)
    assert "no value in the sample at 500 hPa" in messages(report, "error")
    with pytest.raises(MissingDataError, match=r"1 error: temperature.*x\.nc"):
        report.raise_for_errors()


@pytest.mark.parametrize(
    ("value", "text"), [(np.inf, "infinite"), (5000.0, "beyond the physical limits"), (-9999.0, "fill value")]
)
def test_implausible_values_of_the_sample_are_refused_as_such_and_not_as_missing(make_source, value, text):
    source = make_source(n_time=6)
    source["t"][2, 0, :4] = value
    with pytest.raises(ImplausibleValueError, match=text) as caught:
        report_on(source).raise_for_errors()
    assert caught.value.code == "WM209"
    source["t"][:, 0] = np.nan
    source["t"][2, 1, :4] = value
    with pytest.raises(ImplausibleValueError, match=rf"no value in the sample.*{text}"):
        report_on(source).raise_for_errors()
    partly = make_source(n_time=6)
    partly["t"][0] = np.nan
    assert "1 of 6 sampled steps hold no value at all" in messages(report_on(partly), "warning")


def test_values_beyond_physics_stop_the_run(make_source):
    source = make_source()
    source["t"] -= 200.0
    report = report_on(source)
    assert "100 % of the sampled values lie beyond the physical limits 120 to 370" in messages(
        report, "error"
    )
    one = make_source()
    one["t"][0, 0, 0, 0] = 5000.0
    report = report_on(one)
    assert not report.errors and "beyond the physical limits" in messages(report, "warning")


def test_infinite_constant_and_repeated_values(make_source):
    source = make_source()
    source["t"][2, 0, 1, 1] = np.inf
    assert "1 values of 6 sampled steps are infinite" in messages(report_on(source), "error")
    source = make_source()
    source["t"][:, 1] = 280.0
    assert "one and the same value everywhere in the sample at 850 hPa" in messages(
        report_on(source), "warning"
    )
    source = make_source()
    source["t"][3] = source["t"][2]
    assert "1 of 6 sampled steps equal the one before" in messages(report_on(source), "warning")


def test_a_region_is_said_to_be_one_and_its_size_is_left_to_the_check_of_the_network(make_source):
    source = make_source(n_lon=36).isel(longitude=slice(3, 9))
    report = report_on(source)
    assert not report.warnings
    assert "region, from 30 to 80 degrees east" in messages(report, "info")


def test_other_calendars_and_single_steps(make_source):
    source = make_source()
    times = xr.date_range("2020-01-01", periods=6, freq="D", calendar="360_day", use_cftime=True)
    assert "the calendar is 360_day" in messages(report_on(source.assign_coords(time=times)), "info")
    assert "one time step alone" in messages(report_on(source.isel(time=[0])), "warning")


def test_only_a_sample_is_read(make_source):
    source = make_source(n_time=50)
    source["t"][7] = np.nan
    report = report_on(source, sample_steps=3)
    assert report.variables[0].missing_share == 0.0
    every = report_on(source, sample_steps=50)
    assert every.variables[0].missing_share == pytest.approx(1 / 50)


def test_large_steps_make_a_small_sample(monkeypatch, make_source):
    monkeypatch.setattr("weathermill.fields.inspection.SAMPLE_BYTES", 3 * 2 * 9 * 16 * 4)
    source = make_source(n_time=50)
    source["t"][[0, 49]] = np.nan
    report = report_on(source, sample_steps=50)
    assert report.variables[0].missing_share == pytest.approx(2 / 3)


def test_the_page_escapes_what_files_say(make_source):
    source = make_source().assign_attrs(title="<script>alert(1)</script>")
    finding = Finding("warning", "<b>t</b>", "odd <i>units</i>", "do & see")
    report = report_on(source, findings=[finding, finding])
    page = report.to_html()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "<b>t</b>" not in page and "odd &lt;i&gt;" in page and "do &amp; see" in page
    assert "0 errors, 1 warning." in page
    json.dumps(report.to_dict())
    assert report.to_dict()["warnings"] == 1


def test_flags_of_time_alone_are_no_fields(make_source):
    source = make_source(n_time=8).isel(time=[0, 1, 3, 4, 5, 6, 7])
    fields = handle_missing_steps(canonicalise([source], variables=["temperature"]), "interpolate")
    assert "interpolated" in fields
    report = inspect(fields)
    assert report.findings == [] and {v.variable for v in report.variables} == {"temperature"}


def test_a_hemisphere_is_told(make_source):
    hemisphere = make_source().assign_coords(
        latitude=("latitude", np.linspace(90, 0, make_source().sizes["latitude"]))
    )
    hemisphere["latitude"].attrs = make_source()["latitude"].attrs
    assert "from latitude 90 to 0, short of a pole" in messages(report_on(hemisphere), "info")
