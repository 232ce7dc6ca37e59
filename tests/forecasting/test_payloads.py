"""Datasets that come through JSON: any naming, order and units is one state; what is none is told, whatever it is."""

from __future__ import annotations

import copy
import datetime as dt
import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weathermill.errors import (
    CoordinateError,
    EmptySelectionError,
    GridError,
    MissingDataError,
    MissingVariableError,
    ModelError,
    UnitsError,
    WeathermillError,
)
from weathermill.forecasting import forecast, requests
from weathermill.forecasting.payloads import to_dataset
from weathermill.forecasting.requests import answer, read_dataset


def through_json(dataset, **kwargs):
    return json.loads(json.dumps(dataset.to_dict(**kwargs), default=str))


def plausible(source):
    """A source whose means are those of the networks' statistics, in float32 kelvin."""
    return source.assign(
        t=(source["t"] - 3).assign_attrs(source["t"].attrs),
        t2m=((source["t2m"] + 273.15).astype(np.float32)).assign_attrs(
            units="K", long_name="2 metre temperature"
        ),
    )


@pytest.fixture
def model(networks):
    return networks(zero=False)


@pytest.fixture
def state(source):
    return plausible(source).isel(time=[2])


def test_a_dataset_is_answered_bit_for_bit_as_the_python_call_does(model, state):
    expected = forecast(model, state, lead_time_hours=18)
    out = json.loads(
        json.dumps(
            {k: np.asarray(v).tolist() for k, v in answer(model, through_json(state), steps=3).items()}
        )
    )
    assert out["init_time"] == ["2001-01-01T12:00:00"] and out["lead_time_hours"] == [6, 12, 18]
    got = np.array(out["forecast"], dtype=np.float32)[0]
    for position, name in enumerate(out["channel"]):
        variable = expected[name] if name in expected else expected["temperature"].sel(level=float(name[-3:]))
        np.testing.assert_array_equal(got[:, position], variable.values)
    assert out["notes"] == []
    unsaid = through_json(state)
    del unsaid["data_vars"]["t2m"]["attrs"]["units"]
    again = answer(model, unsaid, steps=3)
    np.testing.assert_array_equal(again["forecast"][0], got)
    assert "2m_temperature: the request:t2m has no units; K is assumed" in again["notes"][0]
    np.testing.assert_array_equal(answer(model, state, steps=3)["forecast"][0], got)


def test_the_answer_may_be_a_dataset(model, state):
    out = through_json(xr.Dataset.from_dict(answer(model, through_json(state), steps=2, form="dataset")))
    back = to_dataset(out)
    expected = forecast(model, state, lead_time_hours=12)
    np.testing.assert_array_equal(back["temperature"][0], expected["temperature"])
    assert back["time"].values[0, 1] == np.datetime64("2001-01-02T00:00")
    assert back["2m_temperature"].attrs["units"] == "K"
    array = read_dataset(model, state, 1).states
    labelled = answer(model, array, steps=2, form="dataset", time=["2001-01-01T12:00Z"])
    np.testing.assert_array_equal(labelled["data_vars"]["temperature"]["data"], back["temperature"].values)
    with pytest.raises(ModelError, match="needs initial times"):
        answer(model, array, form="dataset")


def test_all_times_or_those_asked_for(model, source):
    whole = plausible(source)
    assert len(answer(model, through_json(whole))["init_time"]) == 6
    some = answer(model, through_json(whole), time=["2001-01-02", "2001-01-01T06:00"])
    assert some["init_time"] == ["2001-01-01T06:00:00", "2001-01-02T00:00:00"]
    with pytest.raises(EmptySelectionError, match="there is no state at 2001-02-01"):
        answer(model, through_json(whole), time=["2001-02-01"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_naming_order_and_units_is_the_same_state(networks, sources, data):
    model = networks(zero=False)
    plain = plausible(sources(n_times=1))
    expected = read_dataset(model, plain, 1).states
    given = plain.copy()
    if data.draw(st.booleans(), "hPa"):
        level = data.draw(st.permutations(range(2)), "levels")
        given = given.assign_coords(level=("level", [500.0, 850.0], {"units": "hPa"})).isel(level=list(level))
    if data.draw(st.booleans(), "descending"):
        given = given.isel(latitude=slice(None, None, -1))
    if data.draw(st.booleans(), "-180..180"):
        turned = given.assign_coords(longitude=(given["longitude"] + 180) % 360 - 180)
        turned["longitude"].attrs["units"] = "degrees_east"
        given = turned.sortby("longitude")
    names = {
        "z": ["z", "geopotential", "phi"],
        "t": ["t", "temperature", "ta"],
        "t2m": ["t2m", "2m_temperature", "tas"],
    }
    given = given.rename({old: data.draw(st.sampled_from(new), old) for old, new in names.items()})
    axes = {
        "latitude": ["latitude", "lat"],
        "longitude": ["longitude", "lon"],
        "level": ["level", "plev", "pressure_level"],
    }
    given = given.rename({old: data.draw(st.sampled_from(new), old) for old, new in axes.items()})
    given = given.rename({"time": data.draw(st.sampled_from(["time", "valid_time"]), "time")})
    celsius = data.draw(st.booleans(), "degC")
    if celsius:
        name = next(name for name in names["t"] if name in given)
        given[name] = (given[name].astype(float) - 273.15).assign_attrs(units="degC")
    height = data.draw(st.booleans(), "height")
    if height:
        name = next(name for name in names["z"] if name in given)
        given[name] = (given[name].astype(float) / 9.80665).assign_attrs(
            units="m", standard_name="geopotential_height"
        )
        given = given.rename({name: "gh"})
    for name in list(given.data_vars):
        given[name] = given[name].transpose(*data.draw(st.permutations(given[name].dims), f"dims of {name}"))
    if data.draw(st.booleans(), "scalar time"):
        given = given.isel({next(d for d in given.dims if "time" in d): 0})
    payload = through_json(given, data=data.draw(st.sampled_from([True, "list"]), "to_dict"))
    got = read_dataset(model, payload, 1).states
    if celsius or height:
        np.testing.assert_allclose(got, expected, rtol=2e-7)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "write",
    [
        lambda time: time.isoformat(),
        lambda time: time.isoformat() + "Z",
        lambda time: time,
        lambda time: str(time)[:16],
    ],
)
def test_times_may_be_written_in_several_ways(model, state, write):
    payload = state.to_dict()
    payload["coords"]["time"]["data"] = [write(dt.datetime(2001, 1, 1, 12))]
    assert answer(model, payload)["init_time"] == ["2001-01-01T12:00:00"]


def test_times_as_numbers_of_other_calendars_or_beside_the_dataset(model, state, sources):
    payload = through_json(state)
    payload["coords"]["time"] = {"dims": ["time"], "data": [36], "attrs": {"units": "hours since 2001-01-01"}}
    assert answer(model, payload)["init_time"] == ["2001-01-02T12:00:00"]
    noleap = through_json(plausible(sources(n_times=2, calendar="noleap")))
    noleap["coords"]["time"]["attrs"] = {"calendar": "noleap"}
    assert answer(model, noleap, time=["2001-01-01T06:00"])["init_time"] == ["2001-01-01T06:00:00"]
    thirty = copy.deepcopy(noleap)
    thirty["coords"]["time"] |= {
        "attrs": {"calendar": "360_day"},
        "data": ["2001-02-29 00:00:00", "2001-02-30 00:00:00"],
    }
    assert answer(model, thirty)["init_time"][1] == "2001-02-30T00:00:00"
    thirty["coords"]["time"]["attrs"] = {}
    with pytest.raises(CoordinateError, match="no time of the standard calendar"):
        answer(model, thirty)
    timeless = through_json(state.isel(time=0, drop=True))
    assert answer(model, timeless, time=["2001-01-01T12:00"])["init_time"] == ["2001-01-01T12:00:00"]
    with pytest.raises(CoordinateError, match="the dataset has no time"):
        answer(model, timeless)


def test_another_grid_is_refused_or_regridded_as_asked(networks, state):
    model = networks(7, 12, zero=False, poles=True)
    with pytest.raises(GridError, match=r"grid of 8 x 16 .* the network's is 7 x 12"):
        answer(model, through_json(state))
    for method in ("bilinear", "conservative"):
        out = answer(model, through_json(state), steps=2, regrid=method)
        assert out["notes"] == [f"The states were regridded from 8 x 16 to 7 x 12 points ({method})."]
        expected = forecast(model, state, lead_time_hours=12, method=method)
        np.testing.assert_array_equal(out["forecast"][0, :, 3], expected["2m_temperature"])
    with pytest.raises(ModelError, match="regrid is 'spline'"):
        answer(model, through_json(state), regrid="spline")


def test_forcings_of_time_need_not_be_sent(networks, state):
    model = networks(zero=False, forcing="toa_incident_solar_radiation")
    out = answer(model, through_json(state), steps=3)
    assert out["notes"] == ["toa_incident_solar_radiation: computed from time and place."]
    expected = forecast(model, state, lead_time_hours=18)
    np.testing.assert_array_equal(out["forecast"][0, :, 3], expected["2m_temperature"])
    whole = read_dataset(model, state, 3)
    bare = answer(model, whole.states[:, :4], steps=3, time=["2001-01-01T12:00"])
    np.testing.assert_array_equal(bare["forecast"], out["forecast"])
    full = answer(model, whole.states, steps=3, time=["2001-01-01T12:00"])
    np.testing.assert_array_equal(full["forecast"], out["forecast"])
    with pytest.raises(ModelError, match="follow from the time"):
        answer(model, whole.states[:, :4], steps=3)
    with pytest.raises(ModelError, match="cannot go on by its formula"):
        answer(model, whole.states, steps=3, time=["2001-01-01T18:00"])
    with pytest.raises(ModelError, match="2 times were given for 1 states"):
        answer(model, whole.states, time=["2001-01-01", "2001-01-02"])


def changed(payload, path, value):
    payload = copy.deepcopy(payload)
    here = payload
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return payload


@pytest.mark.parametrize(
    ("path", "value", "kind", "message"),
    [
        (("data_vars", "t2m", "attrs", "units"), "m s-1", UnitsError, "2m_temperature"),
        (
            ("data_vars", "t2m", "dims"),
            ["time", "latitude"],
            ModelError,
            "t2m of the dataset has the dimensions",
        ),
        (
            ("data_vars", "t2m", "data"),
            [[[{"value": 1}]]],
            ModelError,
            "t2m of the dataset holds values that are no numbers",
        ),
        (("data_vars", "t2m"), {"values": []}, ModelError, "the keys values, not dims and data"),
        (("data_vars",), [], ModelError, "no mappings"),
        (("data_vars",), {}, ModelError, "no field"),
        (("coords", "time", "data"), ["yesterday"], CoordinateError, "no time of the standard calendar"),
        (("coords", "latitude", "data"), [100.0 + i for i in range(8)], CoordinateError, "beyond the poles"),
        (("coords", "latitude", "data"), [0.0], ModelError, "does not hold together"),
        (("coords", "latitude"), {"dims": [], "data": 3.0}, WeathermillError, "WM"),
    ],
)
def test_what_does_not_fit_is_refused(model, state, path, value, kind, message):
    with pytest.raises(kind, match=message) as caught:
        answer(model, changed(through_json(state), path, value))
    assert caught.value.remedy or kind is WeathermillError or caught.value.where


def test_contradictions_are_told(model, state, monkeypatch):
    payload = through_json(state)
    payload["coords"]["level"] = {"dims": ["storey"], "data": [], "attrs": {}}
    with pytest.raises(CoordinateError, match=r"levels without units \(level\)"):
        answer(model, payload)

    def nobody_thought_of_it(*given, **named):
        raise ValueError("zero-size array")

    monkeypatch.setattr(requests, "StateReader", nobody_thought_of_it)
    with pytest.raises(ModelError, match=r"contradicts itself: .+ \[the request\]"):
        answer(model, through_json(state))


def test_more_that_does_not_fit(model, state):
    payload = through_json(state)
    lacking = copy.deepcopy(payload)
    del lacking["data_vars"]["t2m"]
    with pytest.raises(
        MissingVariableError, match=r"2m_temperature is in none of the sources, which offer .*\[the request\]"
    ):
        answer(model, lacking)
    gap = copy.deepcopy(payload)
    gap["data_vars"]["t2m"]["data"][0][0][0] = None
    with pytest.raises(MissingDataError, match="2001-01-01T12:00 has missing values in 2m_temperature"):
        answer(model, gap)
    warm = plausible(state).assign(t2m=state["t2m"] + 300)
    warm["t2m"].attrs["units"] = "K"
    with pytest.raises(ModelError, match=r"2m_temperature has a mean of .*, which cannot be in K"):
        answer(model, through_json(warm))
    with pytest.raises(ModelError, match="channel were given beside a dataset"):
        answer(model, payload, channel=["t"])
    with pytest.raises(ModelError, match="form is 'netcdf'"):
        answer(model, payload, form="netcdf")


def test_the_answer_to_a_dataset_is_bounded(model, state, monkeypatch):
    monkeypatch.setattr(requests, "MOST_BYTES", 4 * 3 * 4 * 8 * 16)
    assert answer(model, state, steps=3)["forecast"].shape[1] == 3
    with pytest.raises(ModelError, match="Ask for fewer"):
        answer(model, state, steps=4)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=True),
    st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["dims", "data", "attrs", "time"]), st.integers(0, 2), max_size=2),
)


def paths(value, front=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*front, key)
            yield from paths(item, (*front, key))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_junk_is_refused_with_a_reason_or_does_no_harm(networks, sources, data):
    model = networks()
    payload = through_json(plausible(sources(n_times=1, height=8, width=16)))
    for _ in range(data.draw(st.integers(1, 2))):
        places = list(paths(payload))
        payload = changed(payload, data.draw(st.sampled_from(places), "where"), data.draw(JUNK, "what"))
    try:
        out = answer(model, payload)
    except WeathermillError as error:
        assert error.what
    else:
        assert np.isfinite(out["forecast"]).all()
