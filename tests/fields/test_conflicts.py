"""One thing in two places: merged where the values agree, refused where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import SourceConflictError, TimeAxisError, UnitsError
from weathermill.fields.conventions import canonicalise


def packed(source: xr.Dataset, step: float) -> xr.Dataset:
    """Return a source as if it had been stored in whole multiples of a step."""
    result = source.copy(deep=True)
    for name in result.data_vars:
        result[name].values[:] = np.round(result[name].values / step) * step
        result[name].encoding["scale_factor"] = step
    return result


@pytest.fixture
def height(make_source):
    """A maker of orography without time, in m."""

    def make(add: float = 0.0, place: tuple[int, int] = (2, 5)) -> xr.Dataset:
        source = make_source(levels=None, names=("orog",), units="m", base=100.0).isel(time=0, drop=True)
        source["orog"][place] += add
        return source

    return make


def ingested(*sources, findings=None, **wanted) -> xr.Dataset:
    names = [f"{letter}.nc" for letter in "abcdefgh"[: len(sources)]]
    return canonicalise(list(sources), source_names=names, findings=findings, **wanted)


STATIC = {"surface_variables": ["2m_temperature"], "static_variables": ["orography"]}


def test_equal_static_fields_of_several_files_are_taken_once_and_told(make_source, height):
    near = make_source(levels=None, names=("t2m",))
    findings = []
    got = ingested(near.merge(height()), height(), findings=findings, **STATIC)
    np.testing.assert_array_equal(got["orography"], height()["orog"])
    assert any("2 sources hold it, and agree" in finding.message for finding in findings)
    alone = []
    ingested(near.merge(height()), findings=alone, **STATIC)
    assert not any("hold it" in finding.message for finding in alone)


def test_static_fields_that_differ_by_their_packing_are_one(make_source, height):
    near = make_source(levels=None, names=("t2m",))
    ingested(near.merge(height()), packed(height(), 0.5), **STATIC)
    with pytest.raises(SourceConflictError):
        ingested(near.merge(height()), packed(height(0.5), 0.2), **STATIC)


def test_an_empty_static_field_gives_way_and_what_follows_has_to_agree_with_its_successor(
    make_source, height
):
    near = make_source(levels=None, names=("t2m",))
    empty = height() * np.nan
    empty["orog"].attrs["units"] = "m"
    got = ingested(near.merge(empty), height(), **STATIC)
    np.testing.assert_array_equal(got["orography"], height()["orog"])
    with pytest.raises(SourceConflictError, match=r"b\.nc:orog and c\.nc:orog"):
        ingested(near.merge(empty), height(), height(1.0), **STATIC)


@pytest.mark.parametrize("add", [3.0, np.nan])
def test_different_static_fields_are_refused_with_place_and_difference(make_source, height, add):
    near = make_source(levels=None, names=("t2m",))
    with pytest.raises(SourceConflictError, match=r"a\.nc:orog and b\.nc:orog hold different") as caught:
        ingested(near.merge(height()), height(add), **STATIC)
    said = "by up to 3 m" if np.isfinite(add) else "missing in one of them, at 1 points"
    assert said in caught.value.what and "at latitude 45, longitude 112.5" in caught.value.what


def test_a_static_field_that_changes_with_time_is_refused(make_source):
    near = make_source(levels=None, names=("t2m",))
    mask = make_source(levels=None, names=("lsm",), units="1", base=0.0) * 0.0
    mask["lsm"].attrs["units"] = "1"
    wanted = {"surface_variables": ["2m_temperature"], "static_variables": ["land_sea_mask"]}
    assert float(ingested(near.merge(mask), **wanted)["land_sea_mask"].max()) == 0.0
    mask["lsm"][3, 0, 0] = 1.0
    with pytest.raises(SourceConflictError, match=r"a\.nc:lsm at 2020-01-01T18:00"):
        ingested(near.merge(mask), **wanted)


def test_a_level_that_a_file_has_twice_counts_once_or_is_refused(make_source):
    source = make_source(levels=(500.0, 850.0, 850.0))
    findings = []
    got = ingested(source, variables=["temperature"], findings=findings)
    assert got.level.values.tolist() == [500.0, 850.0]
    assert any("850 hPa 2 times, with the same values" in finding.message for finding in findings)
    source["t"][2, 2, 4, 3] += 1.0
    with pytest.raises(
        SourceConflictError, match=r"850 hPa 2 times.*2020-01-01T12.*by up to 1, at latitude 0"
    ):
        ingested(source, variables=["temperature"])
    # What is not asked for is no obstacle.
    ingested(source, variables=["temperature"], levels=[500])


def test_a_meridian_that_a_file_has_twice_is_left_out_or_refused(make_source):
    source = make_source()
    copy = source.isel(longitude=[0]).assign_coords(longitude=[360.0])
    whole = xr.concat([source, copy], "longitude")
    got = ingested(whole, variables=["temperature"])
    np.testing.assert_array_equal(got["temperature"], source["t"])
    whole["t"][0, 1, 2, -1] += 2.0
    with pytest.raises(SourceConflictError, match="by up to 2, at latitude 45, longitude 0"):
        ingested(whole, variables=["temperature"])


def test_one_level_in_two_files_with_different_values_is_refused(make_source):
    other = make_source(levels=(850.0, 1000.0))
    ingested(make_source(), other, variables=["temperature"], levels=[500, 850, 1000])
    other["t"][0, 0] += 0.1
    with pytest.raises(TimeAxisError, match="temperature at 2020-01-01T00:00 occurs twice") as caught:
        ingested(make_source(), other, variables=["temperature"], levels=[500, 850, 1000])
    assert "a.nc:t and b.nc:t" in caught.value.where


def test_one_variable_under_two_names_in_one_file_is_merged_or_refused(make_source):
    source = make_source(names=("t", "ta"))
    findings = []
    got = ingested(source, variables=["temperature"], findings=findings)
    np.testing.assert_array_equal(got["temperature"], source["t"])
    assert any("6 repeated time steps hold the same values" in finding.message for finding in findings)
    source["ta"][3, 1, 8, 15] += 0.5
    with pytest.raises(
        TimeAxisError, match=r"at 2020-01-01T18.*by up to 0\.5, at 850 hPa, latitude -90"
    ) as caught:
        ingested(source, variables=["temperature"])
    assert caught.value.where == "a.nc:t and a.nc:ta"


def test_a_users_table_says_which_of_two_variables_counts(make_source):
    source = make_source(names=("t", "ta"))
    source["ta"] += 0.5
    names = {"ta": "temperature"}
    got = ingested(source, variables=["temperature"], names=names)
    np.testing.assert_array_equal(got["temperature"], source["ta"])


def test_a_third_source_has_to_agree_with_the_one_that_is_taken(make_source):
    """The first has no value at a time, so that the second counts there: the third was compared with the first."""
    empty, right, wrong = (make_source() for _ in range(3))
    empty["t"][2] = np.nan
    wrong["t"][2] += 1.0
    got = ingested(empty, right, right, variables=["temperature"])
    np.testing.assert_array_equal(got["temperature"], right["t"])
    with pytest.raises(TimeAxisError, match="2020-01-01T12") as caught:
        ingested(empty, right, wrong, variables=["temperature"])
    assert caught.value.where == "b.nc:t and c.nc:t"


def test_a_variable_outside_the_vocabulary_must_have_one_unit_in_all_files(make_source):
    kelvin = make_source(levels=None, names=("brightness",))
    celsius = make_source(levels=None, names=("brightness",), units="degC", start="2020-02-01")
    with pytest.raises(UnitsError, match=r"K in a\.nc:brightness, degC in b\.nc:brightness"):
        ingested(kelvin, celsius, surface_variables=["brightness"])
    celsius["brightness"].attrs["units"] = "K"
    assert ingested(kelvin, celsius, surface_variables=["brightness"]).sizes["time"] == 12
