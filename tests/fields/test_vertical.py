from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, MissingVariableError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.coordinates import find_coordinate
from weathermill.fields.findings import Finding
from weathermill.fields.vertical import levels_in_hectopascals, vertical_of


def level(values, name="level", **attrs) -> xr.Variable:
    return xr.Variable(name, np.asarray(values), attrs)


@pytest.mark.parametrize(
    ("values", "attrs"),
    [
        ([100, 110, 137], {"long_name": "model_level_number"}),
        ([0.1, 0.5, 0.995], {"long_name": "sigma"}),
        ([992.6, 850.2, 500.1], {"long_name": "hybrid level at midpoints (1000*(A+B))", "units": "hPa"}),
        ([992.6, 850.2], {"units": "hPa", "formula_terms": "a: hyam b: hybm p0: P0 ps: PS"}),
        ([1, 2, 3], {"standard_name": "model_level_number"}),
        ([0.9, 0.5], {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}),
        ([300.0, 330.0, 350.0], {"units": "K"}),
        ([300.0, 330.0, 350.0], {"standard_name": "air_potential_temperature", "units": "K"}),
        ([2.0, 10.0, 100.0], {"units": "m", "positive": "up"}),
        ([0.0, 0.07, 0.28], {"units": "m", "positive": "down"}),
        ([10.0, 500.0], {"long_name": "height above ground"}),
        ([1, 2, 3], {"units": "level"}),
        ([900.0, 500.0], {"positive": "up"}),
        (["surface", "2 m above ground"], {}),
    ],
)
def test_levels_of_other_kinds_are_no_pressures(make_source, values, attrs):
    source = make_source(levels=tuple(range(len(values))))
    source = source.assign_coords(level=("level", np.asarray(values), attrs))
    assert find_coordinate(source, "level") is None
    with pytest.raises(CoordinateError, match=r"not on pressure levels"):
        canonicalise([source], variables=["temperature"])


@pytest.mark.parametrize(
    "values", [[100, 110, 137], [1, 2, 3], list(range(1, 138)), [100], [50, 100], [0.1, 0.995]]
)
def test_levels_without_units_that_may_count_a_model_are_refused_unless_the_units_are_said(
    make_source, values
):
    source = make_source(levels=tuple(map(float, values)), n_time=1)
    source.level.attrs.clear()
    if len(values) > 1:
        with pytest.raises(CoordinateError, match=r"ingest\.units to \{level: hPa\}"):
            canonicalise([source], variables=["temperature"])
    else:
        with pytest.raises((CoordinateError, MissingVariableError)):
            canonicalise([source], variables=["temperature"])
    fields = canonicalise([source], variables=["temperature"], units={"level": "hPa"})
    assert fields.level.values.tolist() == sorted(map(float, values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1000, 850, 500], [1000.0, 850.0, 500.0]),
        ([50, 250, 1000], [50.0, 250.0, 1000.0]),
        (
            [1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100],
            [1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 30.0, 50.0, 70.0, 100.0],
        ),
        ([100000, 85000, 1000], [1000.0, 850.0, 10.0]),
    ],
)
def test_levels_without_units_that_can_only_be_pressures_are_taken_and_told(values, expected):
    findings: list[Finding] = []
    assert levels_in_hectopascals(level(values), "x", findings).tolist() == expected
    assert "gives no unit for its levels" in findings[0].message


def test_heights_without_units_are_not_taken_for_pascals():
    assert not vertical_of("lev", level([10.0, 150.0, 2000.0, 12000.0])).pressure


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["500 hPa", "850 hPa"], [500.0, 850.0]),
        (["500hPa", "850mb"], [500.0, 850.0]),
        (["50000 Pa", "850 millibars"], [500.0, 850.0]),
        (["500", "850"], [500.0, 850.0]),
        ([b"500 hPa", b"850 hPa"], [500.0, 850.0]),
    ],
)
@pytest.mark.parametrize("kind", [object, None])
def test_levels_as_texts(make_source, texts, expected, kind):
    source = make_source().assign_coords(level=("level", np.array(texts, dtype=kind)))
    assert canonicalise([source], variables=["temperature"]).level.values.tolist() == expected


@pytest.mark.parametrize("units", ["hpa", "HPA", "Pascals", "mb", "millibars", "bar"])
def test_levels_in_spellings_of_pressure(make_source, units):
    factor = {"Pascals": 100.0, "bar": 1e-3}.get(units, 1.0)
    source = make_source().assign_coords(level=("level", np.array([500.0, 850.0]) * factor, {"units": units}))
    assert canonicalise([source], variables=["temperature"]).level.values.tolist() == pytest.approx(
        [500.0, 850.0]
    )


def test_nominal_pressures_along_model_levels_are_no_pressure_levels(make_source):
    source = make_source().rename(level="hybrid").assign_coords(hybrid=[1, 2])
    source = source.assign_coords(
        pressure=("hybrid", [500.0, 850.0], {"units": "hPa", "standard_name": "air_pressure"})
    )
    with pytest.raises(CoordinateError, match="it is on 2 model levels"):
        canonicalise([source], variables=["temperature"])


def test_one_model_level_can_be_selected_under_a_name_of_its_own(make_source):
    source = make_source().rename(level="hybrid").assign_coords(hybrid=[136, 137])
    fields = canonicalise([source], surface_variables=["t"], select={"hybrid": 137})
    assert np.array_equal(fields["t"].values, source["t"].values[:, 1])


def test_a_single_level_without_units_that_may_count_a_model_is_told(make_source):
    source = make_source(levels=(100.0,)).isel(level=0)
    source.level.attrs.clear()
    findings: list[Finding] = []
    with pytest.raises(MissingVariableError):
        canonicalise([source], variables=["temperature"], findings=findings)
    assert any("may be numbers of model levels" in f.message and "{level: hPa}" in f.remedy for f in findings)
    fields = canonicalise([source], variables=["temperature"], units={"level": "hPa"})
    assert fields.level.values.tolist() == [100.0]


@pytest.mark.parametrize(
    ("values", "attrs", "words"),
    [
        ([5.52, 6.21, 6.74], {"long_name": "log of pressure"}, "logarithms of pressure"),
        ([5.52, 6.21, 6.74], {"long_name": "ln(pressure)"}, "logarithms of pressure"),
        ([0.25, 0.5, 0.85], {"long_name": "pressure over surface pressure"}, "shares of a pressure"),
        ([1, 2, 3], {"long_name": "index of pressure level"}, "model levels"),
        ([25000, 50000, 85000], {"units": "hPa"}, "up to 85000 hPa, which no atmosphere has"),
        ([0.0, 1500.0, 4000.0], {"units": "dbar"}, "up to 400000 hPa, which no atmosphere has"),
    ],
)
def test_levels_that_speak_of_pressure_and_are_none_are_refused(make_source, values, attrs, words):
    source = make_source(levels=(1.0, 2.0, 3.0)).assign_coords(level=("level", values, attrs))
    with pytest.raises(CoordinateError, match=words):
        canonicalise([source], variables=["temperature"])


def test_levels_beyond_the_atmosphere_are_taken_in_the_units_that_are_said(make_source):
    source = make_source().assign_coords(level=("level", [50000, 85000], {"units": "hPa"}))
    fields = canonicalise([source], variables=["temperature"], units={"level": "Pa"})
    assert fields.level.values.tolist() == [500.0, 850.0]


@pytest.mark.parametrize(
    ("values", "told"), [([250, 500, 850], True), ([100, 200, 300], False), ([50000], False)]
)
def test_usual_numbers_of_hectopascals_that_are_said_to_be_pascals_are_told(values, told):
    findings: list[Finding] = []
    levels = levels_in_hectopascals(level(values, units="Pa"), "x", findings)
    assert levels.tolist() == [value / 100.0 for value in values]
    assert [finding.severity for finding in findings] == ["warning"] * told
