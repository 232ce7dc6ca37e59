"""GRIB messages of one parameter that are different fields, and sums that run from the start of a forecast."""

from __future__ import annotations

import numpy as np
import pytest
from grib_writing import NI, NJ, covering, field, message, needs_eccodes, summed

from weathermill.errors import MissingVariableError, SourceConflictError, TimeAxisError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import attached
from weathermill.fields.opening import open_sources

pytestmark = needs_eccodes

GROUND = {"edition": 1, "indicatorOfTypeOfLevel": 1, "level": 0}


def rain(seed: int) -> np.ndarray:
    """Precipitation in m of one interval."""
    return np.random.default_rng(seed).gamma(0.5, 2e-3, (NJ, NI))


def write(path, *messages: bytes):
    path.write_bytes(b"".join(messages))
    return path


def opened_as(path, findings=None, **wanted):
    opened = open_sources(path)
    return canonicalise(opened.datasets, source_names=opened.names, findings=findings, **wanted)


def offered(path) -> dict[str, str]:
    """Return variable -> source of what is offered."""
    return {str(name): source for dataset, source in open_sources(path) for name in dataset.data_vars}


def texts(findings) -> str:
    return "\n".join(f"{f.subject}: {f.message} {f.remedy}" for f in findings)


def test_sums_from_the_start_of_each_run_are_differenced(tmp_path):
    content, parts = [], {}
    for start in (0, 1200):
        total = np.zeros((NJ, NI))
        for k, step in enumerate((6, 12)):
            parts[start, step] = rain(start + k)
            total = total + parts[start, step]
            content.append(summed(total, f"0-{step}", dataTime=start))
    findings = []
    got = opened_as(write(tmp_path / "a.grib", *content), findings, surface_variables=["total_precipitation"])
    assert [str(t)[8:13] for t in got.time.values] == ["01T06", "01T12", "01T18", "02T00"]
    for i, key in enumerate([(0, 6), (0, 12), (1200, 6), (1200, 12)]):
        np.testing.assert_allclose(got.total_precipitation[i], parts[key], atol=1e-8)
    assert "2 of 4 fields" in texts(findings)
    assert got.total_precipitation.attrs["cell_methods"] == "time: sum (interval: 6 hours)"


def test_sums_that_are_reset_and_sums_from_the_start_agree_where_both_are_there(tmp_path):
    """As in GFS: 0-3, 0-6, then both 6-9 and 0-9, and 6-12 and 0-12."""
    parts = [rain(k) for k in range(4)]
    # Sums over more than one reset are packed coarsely: only the others give the exact intervals.
    content = [
        summed(np.sum(parts[a // 3 : b // 3], axis=0), f"{a}-{b}", bits=24 if b - a <= 6 else 10)
        for a, b in ((0, 3), (0, 6), (6, 9), (0, 9), (6, 12), (0, 12))
    ]
    findings = []
    got = opened_as(
        write(tmp_path / "a.grib2", *content), findings, surface_variables=["total_precipitation"]
    )
    np.testing.assert_allclose(got.total_precipitation, parts, atol=1e-8)
    assert "2 messages cover times that shorter sums cover too" in texts(findings)


def test_steps_of_one_forecast_in_files_of_their_own_are_differenced(tmp_path):
    parts = [rain(k) for k in range(3)]
    for k in range(3):
        write(tmp_path / f"f{3 * k + 3:03d}.grib", summed(np.sum(parts[: k + 1], axis=0), f"0-{3 * k + 3}"))
    got = opened_as(tmp_path, surface_variables=["total_precipitation"])
    np.testing.assert_allclose(got.total_precipitation, parts, atol=1e-8)
    # What a file's fields are made of identifies it: a change in the step before it is a change of both.
    before = [d.sha256 for d in open_sources(tmp_path).descriptions]
    write(tmp_path / "f003.grib", summed(parts[0] * 1.5, "0-3"))
    after = [d.sha256 for d in open_sources(tmp_path).descriptions]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_a_step_that_is_missing_leaves_a_field_of_another_length_and_none_is_taken(tmp_path):
    parts = [rain(k) for k in range(6)]
    path = write(tmp_path / "a.grib", *(summed(np.sum(parts[:k], axis=0), f"0-{k}") for k in (1, 2, 3, 5)))
    findings = []
    with pytest.raises(MissingVariableError, match=r"tp_accum_1h.*tp_accum_2h"):
        opened_as(path, findings, surface_variables=["total_precipitation"])
    assert "{tp_accum_1h: total_precipitation}" in texts(findings)


def test_a_first_sum_without_a_predecessor_is_set_aside_and_told(tmp_path):
    parts = [rain(k) for k in range(12)]
    content = [summed(np.sum(parts[:k], axis=0), f"0-{k}") for k in (9, 10, 11, 12)]
    findings = []
    got = opened_as(write(tmp_path / "a.grib", *content), findings, surface_variables=["total_precipitation"])
    np.testing.assert_allclose(got.total_precipitation, parts[9:], atol=1e-8)
    assert "1 message are the first sum" in texts(findings) or "1 message is the first sum" in texts(findings)


def test_windows_of_unequal_length_are_offered_apart(tmp_path):
    path = write(tmp_path / "a.grib", summed(rain(1), "0-6"), summed(rain(2), "6-18"))
    assert set(offered(path)) == {"tp_accum_6h", "tp_accum_12h"}
    with pytest.raises(MissingVariableError, match=r"tp_accum_12h.*tp_accum_6h"):
        opened_as(path, surface_variables=["total_precipitation"])
    told, settled = [], []
    opened_as(path, told, surface_variables=["tp_accum_12h"])
    assert "forms that are not the same" in texts(told) and "{tp_accum_12h: total_precipitation}" in texts(
        told
    )
    named = {"tp_accum_12h": "total_precipitation"}
    named = opened_as(path, settled, surface_variables=["total_precipitation"], names=named)
    np.testing.assert_allclose(named["total_precipitation"][0], rain(2), atol=1e-8)
    assert not [finding for finding in settled if finding.severity == "warning"]
    # Under the name that it has, each can be had.
    got = opened_as(path, surface_variables=["tp_accum_12h"])
    np.testing.assert_allclose(got["tp_accum_12h"][0], rain(2), atol=1e-8)
    assert got["tp_accum_12h"].attrs["units"] == "m"


def test_sums_that_fall_are_refused(tmp_path):
    path = write(tmp_path / "a.grib", summed(rain(1) + 0.01, "0-6"), summed(rain(2), "0-12"))
    got = opened_as(path, surface_variables=["total_precipitation"])
    with pytest.raises(SourceConflictError, match=r"falls by 0\.0.* between 6 h and 12 h"):
        got.compute()


def test_sums_that_fall_by_their_packing_become_zero(tmp_path):
    values = rain(1)
    path = write(tmp_path / "a.grib", summed(values, "0-6", bits=16), summed(values, "0-12", bits=8))
    got = opened_as(path, surface_variables=["total_precipitation"]).total_precipitation[1].values
    assert got.min() == 0.0 and got.max() < 2e-4


def test_an_instantaneous_field_is_taken_before_averages_and_extremes(tmp_path):
    path = write(
        tmp_path / "a.grib",
        message(field(0), **GROUND, shortName="2t", step=6),
        covering(field(9), "max", "0-6", "2t", **GROUND),
        covering(field(5), "avg", "0-6", "2t", **GROUND),
    )
    findings = []
    got = opened_as(path, findings, surface_variables=["2m_temperature"])
    np.testing.assert_allclose(got["2m_temperature"][0], field(0), atol=1e-3)
    assert set(offered(path)) == {"2t", "2t_max_6h", "2t_avg_6h"}
    assert "the files also hold 2t_avg_6h, 2t_max_6h" in texts(findings)


def test_a_users_table_gives_the_name_to_one_form_and_takes_it_from_the_others(tmp_path):
    write(tmp_path / "f000.grib", message(field(0), **GROUND, shortName="2t"))
    for step in (6, 12):
        now = message(field(step), **GROUND, shortName="2t", step=step)
        highest = covering(field(step + 1), "max", f"{step - 6}-{step}", "2t", **GROUND)
        write(tmp_path / f"f{step:03d}.grib", now, highest)
    names = {"2t_max_6h": "2m_temperature"}
    got = opened_as(tmp_path, surface_variables=["2m_temperature"], names=names)["2m_temperature"]
    np.testing.assert_allclose(got, [field(7), field(13)], atol=1e-3)


def test_a_maximum_alone_is_not_taken_for_the_value_at_a_time(tmp_path):
    path = write(tmp_path / "a.grib", covering(field(9), "max", "0-6", "2t", **GROUND))
    with pytest.raises(MissingVariableError, match="2t_max_6h"):
        opened_as(path, surface_variables=["2m_temperature"])


def test_a_mean_is_not_taken_for_a_sum(tmp_path):
    path = write(tmp_path / "a.grib", covering(rain(1), "avg", "0-6", "tp", **GROUND))
    with pytest.raises(MissingVariableError, match="tp_avg_6h"):
        opened_as(path, surface_variables=["total_precipitation"])


def test_an_average_alone_is_taken_and_told(tmp_path):
    path = write(tmp_path / "a.grib", covering(field(9), "avg", "0-24", "2t", **GROUND))
    findings = []
    got = opened_as(path, findings, surface_variables=["2m_temperature"])
    np.testing.assert_allclose(got["2m_temperature"][0], field(9), atol=1e-3)
    assert "the mean over 24h" in texts(findings)


def test_sums_whose_steps_are_coded_as_instants_are_refused_where_they_may_run_from_the_start(tmp_path):
    """ERA-Interim's layout."""
    path = write(
        tmp_path / "a.grib",
        *(message(rain(s) * s, **GROUND, shortName="tp", step=s) for s in (3, 6)),
    )
    with pytest.raises(MissingVariableError, match="tp_instant"):
        opened_as(path, surface_variables=["total_precipitation"])
    alone = write(tmp_path / "b.grib", message(rain(1), **GROUND, shortName="tp"))
    findings = []
    got = opened_as(alone, findings, surface_variables=["total_precipitation"])
    np.testing.assert_allclose(got.total_precipitation[0], rain(1), atol=1e-8)
    assert "do not say over what time" in texts(findings)


def test_equal_messages_are_merged_and_different_ones_refused(tmp_path):
    one = message(field(1), shortName="t", level=500)
    other = message(field(2), shortName="t", level=500)
    upper = message(field(3), shortName="t", level=300)
    findings = []
    got = opened_as(write(tmp_path / "a.grib", one, upper, one), findings, variables=["temperature"])
    np.testing.assert_allclose(got.temperature[0, 1], field(1), atol=1e-3)
    assert "1 repeated time steps hold the same values" in texts(findings)
    coarse = message(field(1), shortName="t", level=500, bits=8)
    opened_as(write(tmp_path / "b.grib", one, coarse, upper), variables=["temperature"])
    with pytest.raises(
        TimeAxisError, match=r"temperature at 2020-01-01T00.*twice.*by up to 1, at 500 hPa"
    ) as caught:
        opened_as(write(tmp_path / "c.grib", one, upper, other), variables=["temperature"])
    assert "c.grib!t@isobaricInhPa" in caught.value.where and "#2" in caught.value.where
    opened_as(tmp_path / "c.grib", variables=["temperature"], levels=[300])


def test_copies_of_single_messages_are_compared_with_these_alone(tmp_path):
    content = {
        (hour, level): message(field(hour / 100 + level), shortName="t", level=level, dataTime=hour)
        for hour in (0, 600)
        for level in (300, 500)
    }
    for copies in ([(0, 500), (600, 300)], [(0, 500), (600, 300), (600, 300)]):
        path = write(tmp_path / "a.grib", *content.values(), *(content[key] for key in copies))
        got = opened_as(path, variables=["temperature"])
        np.testing.assert_allclose(got.temperature[1, 0], field(306), atol=1e-3)
    assert open_sources(path).names[1] == "a.grib!t@isobaricInhPa#2"


def test_single_forecasts_members_and_means_of_an_ensemble_stay_apart(tmp_path):
    def member(number: int, seed: float) -> bytes:
        keys = {"productDefinitionTemplateNumber": 1, "typeOfProcessedData": 4 if number else 3}
        return message(field(seed), **keys, number=number, shortName="t", level=500)

    single = message(field(0), typeOfProcessedData=1, shortName="t", level=500)
    mean = message(field(9), productDefinitionTemplateNumber=2, derivedForecast=0, shortName="t", level=500)
    both = write(tmp_path / "a.grib", single, member(0, 1), member(1, 2))
    with pytest.raises(MissingVariableError, match=r"t_ens at 500 hPa; t_single at 500"):
        opened_as(both, variables=["temperature"])
    got = opened_as(write(tmp_path / "b.grib", single, mean), variables=["temperature"])
    np.testing.assert_allclose(got.temperature[0, 0], field(0), atol=1e-3)
    (members,) = open_sources(write(tmp_path / "c.grib", member(1, 2), member(0, 1))).datasets
    assert members["number"].values.tolist() == [0, 1]
    np.testing.assert_allclose(members["t"].sel(number=1).squeeze(), field(2), atol=1e-3)


def test_experiments_of_era5_stay_apart_and_the_final_one_counts(tmp_path):
    early = message(field(1), edition=1, shortName="t", level=500, expver="0005")
    final = message(field(2), edition=1, shortName="t", level=500, expver="0001")
    findings = []
    got = opened_as(write(tmp_path / "a.grib", early, final), findings, variables=["temperature"])
    np.testing.assert_allclose(got.temperature[0, 0], field(2), atol=1e-3)
    assert "ERA5T" in texts(findings)


def test_types_of_level_stay_apart_and_one_near_the_ground_counts(tmp_path):
    def cloud(seed: float, level_type: int) -> bytes:
        kind = {"edition": 1, "indicatorOfTypeOfLevel": level_type, "level": 0}
        return message(field(seed) / 400, **kind, shortName="tcc")

    path = write(tmp_path / "a.grib", cloud(1, 7), cloud(2, 1))
    assert set(offered(path)) == {"tcc", "tcc_tropopause"}
    got = opened_as(path, surface_variables=["total_cloud_cover"])
    np.testing.assert_allclose(got["total_cloud_cover"][0], field(2) / 400, atol=1e-5)
    path = write(tmp_path / "b.grib", cloud(1, 200), cloud(2, 1))
    with pytest.raises(MissingVariableError, match="tcc_entireAtmosphere; tcc_surface"):
        opened_as(path, surface_variables=["total_cloud_cover"])


def test_layers_of_the_soil_keep_their_own_levels(tmp_path):
    def layer(top: int, bottom: int, seed: float) -> bytes:
        sides = {}
        for side, depth in (("First", top), ("Second", bottom)):
            sides |= {
                f"typeOf{side}FixedSurface": 106,
                f"scaleFactorOf{side}FixedSurface": 2,
                f"scaledValueOf{side}FixedSurface": depth,
            }
        return message(field(seed), discipline=2, parameterCategory=0, parameterNumber=2, **sides)

    nested = write(tmp_path / "b.grib", layer(0, 10, 1), layer(0, 40, 2), layer(10, 40, 3))
    (dataset,) = open_sources(nested).datasets
    np.testing.assert_allclose(dataset["depthBelowLandLayer"], [0.05, 0.2, 0.25])
    path = write(tmp_path / "a.grib", layer(0, 10, 1), layer(10, 40, 2))
    (dataset,) = open_sources(path).datasets
    (variable,) = dataset.data_vars.values()
    assert dataset["depthBelowLandLayer"].values.tolist() == [0.0, 0.1]
    np.testing.assert_allclose(variable.squeeze()[1], field(2), atol=1e-3)


def test_every_message_is_used_or_named(tmp_path):
    content = [
        message(field(1), shortName="t", level=500),
        message(field(2), shortName="t", level=850, dataTime=600),
        summed(rain(0) * 0, "0-0"),
        summed(rain(1), "0-6"),
    ]
    opened = open_sources(write(tmp_path / "a.grib", *content))
    told = texts(finding for dataset in opened.datasets for finding in attached(dataset))
    assert "2 of 4 fields (times by levels and members) are not in the file" in told
    assert "sum over no time at all" in told
