from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, ParameterError, TimeAxisError
from weathermill.fields.choices import SourceOptions, lead_hours, lead_text, parse_duration
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding
from weathermill.fields.overview import overview
from weathermill.fields.survey import Source

START = np.datetime64("2020-01-01", "ns")
DAY = np.timedelta64(24, "h")


def hours(*values: float) -> np.ndarray:
    return np.array([np.timedelta64(round(value * 3600), "s") for value in values]).astype("timedelta64[ns]")


@pytest.fixture
def forecasts():
    """A maker of forecasts (time, lead, latitude, longitude) whose values are the day of the start and the lead."""

    def make(
        name: str = "step", leads=(6, 12, 24), n_time: int = 4, attrs=None, time: str = "time"
    ) -> xr.Dataset:
        values = np.arange(n_time)[:, None] * 100.0 + np.arange(len(leads))[None, :] + 200.0
        values = np.broadcast_to(values[:, :, None, None], (n_time, len(leads), 9, 16)).astype(np.float32)
        return xr.Dataset(
            {"t2m": ((time, name, "latitude", "longitude"), values, {"units": "K"})},
            coords={
                time: START + np.arange(n_time) * DAY,
                name: (name, np.asarray(leads), attrs or {"units": "hours"}),
                "latitude": ("latitude", np.linspace(90, -90, 9), {"units": "degrees_north"}),
                "longitude": ("longitude", np.arange(16) * 22.5, {"units": "degrees_east"}),
            },
        )

    return make


def fields_of(*sources: xr.Dataset, **options) -> tuple[xr.Dataset, list[Finding]]:
    findings: list[Finding] = []
    return canonicalise(sources, surface_variables=["2m_temperature"], findings=findings, **options), findings


@pytest.mark.parametrize(
    "name", ["step", "prediction_timedelta", "lead_time", "leadtime", "forecast_period", "fhour"]
)
def test_one_lead_time_makes_the_valid_time_later(forecasts, name):
    fields, findings = fields_of(forecasts(name, leads=(72,)))
    assert fields.time.values.tolist() == (START + np.arange(4) * DAY + 3 * DAY).tolist()
    assert fields["2m_temperature"].values[:, 0, 0].tolist() == [200.0, 300.0, 400.0, 500.0]
    assert any(f"{name} = 72h, from 2020-01-04T00:00" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("values", "attrs", "expected"),
    [
        (hours(6, 12), {}, [6, 12]),
        (np.array([6, 12]), {"units": "hours"}, [6, 12]),
        (np.array([0.25, 0.5]), {"units": "days"}, [6, 12]),
        (np.array([360, 720]), {"units": "minutes"}, [6, 12]),
        (np.array([21600000000000, 43200000000000]), {"units": "nanoseconds"}, [6, 12]),
        (np.array([21600, 43200], dtype=np.float32), {"units": "s"}, [6, 12]),
    ],
)
def test_lead_times_in_any_unit(values, attrs, expected):
    assert lead_hours("step", xr.Variable("step", values, attrs), "x").tolist() == expected


def test_lead_times_of_no_fixed_length_are_refused(forecasts):
    with pytest.raises(CoordinateError, match=r"'months', which are no length of time(.|\n)*valid_time"):
        fields_of(forecasts(leads=(1,), attrs={"units": "months"}))
    source = forecasts("prediction_timedelta", leads=(6,), attrs={"long_name": "lead"})
    with pytest.raises(
        CoordinateError, match=r"no units(.|\n)*ingest.units to {prediction_timedelta: hours}"
    ):
        fields_of(source)
    fields, _ = fields_of(source, units={"prediction_timedelta": "hours"})
    assert fields.time.values[0] == START + DAY / 4


@pytest.mark.parametrize("text", ["6h", "6 h", "6 hours", "PT6H", "360min", "0.25 d", 6, 6.0, hours(6)[0]])
def test_durations_are_written_in_many_ways(text):
    assert parse_duration(text) == pytest.approx(6.0, abs=1e-12)


def test_a_duration_that_is_none_is_refused():
    for text in ("six", "6 months", "6h30", ""):
        with pytest.raises(ParameterError, match="no length of time"):
            parse_duration(text)
    assert [lead_text(value) for value in (6.0, 0.5, 1.25, 1 / 3, 1 / 3600)] == [
        "6h",
        "0.5h",
        "1.25h",
        "20min",
        "1s",
    ]


def test_several_leads_are_refused_with_the_choices_and_one_can_be_selected(forecasts):
    with pytest.raises(CoordinateError, match=r"3 lead times along step \(6h, 12h, 24h\)(.|\n)*{step: 6h}"):
        fields_of(forecasts())
    fields, _ = fields_of(forecasts(), select={"step": "12h"})
    assert fields.time.values[0] == START + DAY / 2
    assert fields["2m_temperature"].values[:, 0, 0].tolist() == [201.0, 301.0, 401.0, 501.0]
    with pytest.raises(ParameterError, match="asks for step: 9h, and the sources hold 6h, 12h, 24h"):
        fields_of(forecasts(), select={"step": "9h"})
    with pytest.raises(
        ParameterError, match=r"'stop', which is no dimension of the sources; did you mean step"
    ):
        fields_of(forecasts(), select={"stop": "6h"})


def test_a_scalar_lead_makes_the_valid_time_later_too(forecasts):
    fields, _ = fields_of(forecasts("prediction_timedelta").isel(prediction_timedelta=1))
    assert fields.time.values[0] == START + DAY / 2


@pytest.mark.parametrize("dims", [("time",), ("time", "step")])
def test_valid_times_count_where_there_are_any(forecasts, dims):
    source = forecasts(leads=(6,))
    valid = (source.time.values + hours(6)).reshape([4, 1][: len(dims)])
    fields, _ = fields_of(source.assign_coords(valid_time=(dims, valid)))
    assert fields.time.values.tolist() == valid.ravel().tolist()
    with pytest.raises(
        TimeAxisError, match="valid_time begins at 2020-01-01T07:00, and time with step gives"
    ):
        fields_of(source.assign_coords(valid_time=(dims, valid + hours(1))))


def test_valid_times_of_the_selected_lead_count(forecasts):
    source = forecasts()
    valid = source.time.values[:, None] + hours(6, 12, 24)[None, :]
    fields, _ = fields_of(source.assign_coords(valid_time=(("time", "step"), valid)), select={"step": "24h"})
    assert fields.time.values.tolist() == valid[:, 2].tolist()


def test_a_time_that_is_valid_already_stays(forecasts):
    source = forecasts("forecast_period", leads=(6,)).isel(forecast_period=0)
    source.forecast_period.attrs["standard_name"] = "forecast_period"
    source.time.attrs["standard_name"] = "time"
    assert fields_of(source)[0].time.values[0] == START
    reference = source.assign_coords(forecast_reference_time=("time", source.time.values - hours(6)))
    assert fields_of(reference)[0].time.values[0] == START
    initial = source.assign_coords(forecast_reference_time=("time", source.time.values))
    assert fields_of(initial)[0].time.values[0] == START + DAY / 4
    neither = source.assign_coords(forecast_reference_time=("time", source.time.values - hours(5)))
    with pytest.raises(TimeAxisError, match="contradict each other"):
        fields_of(neither)


def test_the_steps_of_one_forecast_are_its_times(forecasts):
    expected = (START + hours(6, 12, 24)).tolist()
    one = forecasts(n_time=1)
    for source in (one, one.isel(time=0), one.assign_coords(valid_time=("step", START + hours(6, 12, 24)))):
        fields, _ = fields_of(source)
        assert fields.time.values.tolist() == expected
        assert fields["2m_temperature"].values[:, 0, 0].tolist() == [200.0, 201.0, 202.0]
    named = forecasts(time="init_time")
    fields, _ = fields_of(named, select={"init_time": "2020-01-03"})
    assert fields.time.values.tolist() == (START + 2 * DAY + hours(6, 12, 24)).tolist()


def test_lead_times_in_other_calendars(forecasts):
    times = xr.date_range("2001-02-29", periods=4, freq="1D", calendar="360_day", use_cftime=True)
    fields, _ = fields_of(forecasts(leads=(48,)).assign_coords(time=times))
    assert fields.time.values[0] == cftime.datetime(2001, 3, 1, calendar="360_day")


def test_files_of_one_lead_each_are_joined_at_their_valid_times_or_selected_from(forecasts):
    files = [forecasts().isel(step=i) for i in (0, 1)]
    assert fields_of(*files)[0].sizes["time"] == 8
    fields, findings = fields_of(*files, select={"step": "12h"}, source_names=["a.nc", "b.nc"])
    assert fields.time.values.tolist() == (START + np.arange(4) * DAY + DAY / 2).tolist()
    assert any("a.nc is left out: it has no step of 12h, but 6h" in f.message for f in findings)


def test_fields_without_the_lead_are_left_out_since_they_are_at_other_times(forecasts):
    source = forecasts(leads=(6,))
    source["msl"] = (("time", "latitude", "longitude"), np.full((4, 9, 16), 1e5, np.float32), {"units": "Pa"})
    findings: list[Finding] = []
    assert [offer.variable for offer in Source(source, "x.nc", 0, findings).offers] == ["2m_temperature"]
    assert any("msl are left out: they have no step" in finding.message for finding in findings)


@pytest.mark.parametrize(
    "name", ["lead_day", "leadtime_hour", "forecastDay", "fcst_step", "prediction_offset"]
)
def test_leads_by_other_names_are_leads_too(forecasts, name):
    fields, _ = fields_of(forecasts(name, leads=(3,), attrs={"units": "days"}))
    assert fields.time.values[0] == START + 3 * DAY
    with pytest.raises(CoordinateError, match=f"lead times \\({name}\\) have no units"):
        fields_of(forecasts(name, leads=(3,), attrs={"long_name": "lead"}))


def test_months_of_lead_are_refused_under_any_name(forecasts):
    with pytest.raises(CoordinateError, match="units 'months', which are no length of time"):
        fields_of(forecasts("leadtime_month", leads=(1,), attrs={"units": "months"}))


def test_leads_before_the_start_are_selected_as_they_are_listed(forecasts):
    source = forecasts(leads=(-6, 0, 6))
    with pytest.raises(CoordinateError, match=r"{step: -6h}"):
        fields_of(source)
    fields, _ = fields_of(source, select={"step": "-6h"})
    assert fields.time.values[0] == START - np.timedelta64(6, "h")
    assert fields["2m_temperature"].values[0, 0, 0] == 200.0


def test_a_member_is_selected_by_its_label(forecasts):
    source = forecasts("number", leads=(3, 5), attrs={"standard_name": "realization"})
    with pytest.raises(CoordinateError, match=r"2 ensemble members along number \(3, 5\)(.|\n)*{number: 3}"):
        fields_of(source)
    for wanted in (5, "5", 5.0):
        fields, _ = fields_of(source, select={"number": wanted})
        assert fields["2m_temperature"].values[:, 0, 0].tolist() == [201.0, 301.0, 401.0, 501.0]
        assert fields.time.values[0] == START
    labels = source.assign_coords(number=["r1i1p1f1", "r2i1p1f1"])
    assert fields_of(labels, select={"number": "r2i1p1f1"})[0]["2m_temperature"].values[0, 0, 0] == 201.0
    bare = source.drop_vars("number")
    assert fields_of(bare, select={"number": 1})[0]["2m_temperature"].values[0, 0, 0] == 201.0


def test_any_other_dimension_can_be_selected_from(forecasts):
    source = forecasts("height", leads=(2.0, 10.0), attrs={"units": "m", "axis": "Z"})
    with pytest.raises(CoordinateError, match=r"it is on 2 heights(.|\n)*ingest\.select to \{height: 2\}"):
        fields_of(source)
    fields, _ = fields_of(source, select={"height": 2})
    assert fields["2m_temperature"].values[0, 0, 0] == 200.0
    with pytest.raises(ParameterError, match=r"axis of latitude(.|\n)*regrid stage"):
        fields_of(source, select={"latitude": 90})


def test_selecting_reads_no_field_and_keeps_the_chunks_of_the_file(tmp_path, forecasts):
    source = forecasts(n_time=8)
    source.to_netcdf(tmp_path / "x.nc", encoding={"t2m": {"chunksizes": (4, 1, 9, 16)}})
    with xr.open_dataset(tmp_path / "x.nc", cache=False, decode_timedelta=False) as opened:
        surveyed = Source(opened, "x.nc", 0, options=SourceOptions(select={"step": "6h"}))
        assert not surveyed.raw["t2m"].variable._in_memory
        assert surveyed.offers[0].native_time_chunk == 4


def test_the_overview_proposes_a_choice_that_ingests(forecasts):
    seen = overview([forecasts()], ["x.nc"])
    parameters = seen.parameters()
    assert parameters["select"] == {"step": "6h"}
    assert "select: {step: 6h}" in seen.to_text()
    assert seen.time["first"] == "2020-01-01T06:00"
    parameters.pop("start")
    assert canonicalise([forecasts()], **parameters).time.values[0] == START + DAY / 4
    assert any("3 lead times along step" in f.message for f in seen.findings if f.severity == "warning")
