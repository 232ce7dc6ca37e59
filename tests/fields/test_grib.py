"""GRIB files, written here with ecCodes itself; where it is not installed only the advice is tested."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from grib_writing import NI, NJ, field, message, needs_eccodes

from weathermill.errors import UnreadableSourceError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.geometry import gaussian_latitudes
from weathermill.fields.opening import open_sources


def fields_of(path, **wanted):
    opened = open_sources(path)
    return canonicalise(opened.datasets, source_names=opened.names, **wanted)


@needs_eccodes
@pytest.mark.parametrize("edition", [1, 2])
def test_every_message_comes_back_at_its_place(tmp_path, edition):
    path = tmp_path / "an.grib"
    with path.open("wb") as file:
        for hour in (0, 600, 1200):
            for level in (850, 500):
                file.write(
                    message(
                        field(level / 100 + hour / 1000),
                        edition=edition,
                        shortName="t",
                        level=level,
                        dataTime=hour,
                    )
                )
    fields = fields_of(path, variables=["temperature"])
    assert fields.level.values.tolist() == [500.0, 850.0]
    assert [str(t)[11:13] for t in fields.time.values] == ["00", "06", "12"]
    assert np.array_equal(fields.latitude, np.linspace(90, -90, NJ))
    assert np.array_equal(fields.longitude, np.arange(NI) * 10.0)
    for i, hour in enumerate((0, 600, 1200)):
        for level in (850, 500):
            got = fields.temperature[i].sel(level=level)
            assert np.allclose(got, field(level / 100 + hour / 1000), atol=2e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["an.grib"], "no index is left beside the data"


@needs_eccodes
def test_variables_on_unequal_levels_are_all_there(tmp_path):
    path = tmp_path / "mixed.grib"
    with path.open("wb") as file:
        for name, levels in (("u", (850, 500, 300)), ("v", (850, 500))):
            for level in levels:
                file.write(message(field(level / 100) - 250, shortName=name, level=level))
        file.write(message(field(20), shortName="2t"))
        file.write(message(field(0) * 400, shortName="msl"))
    opened = open_sources(path)
    assert sorted(name.split("!")[1] for name in opened.names) == [
        "2t@heightAboveGround",
        "msl@meanSea",
        "u@isobaricInhPa",
        "v@isobaricInhPa",
    ]
    fields = canonicalise(
        opened.datasets,
        variables=["u_component_of_wind", "v_component_of_wind"],
        surface_variables=["2m_temperature", "mean_sea_level_pressure"],
    )
    assert fields.level.values.tolist() == [500.0, 850.0]
    alone = fields_of(path, variables=["u_component_of_wind"])
    assert alone.level.values.tolist() == [300.0, 500.0, 850.0]
    assert np.allclose(fields["2m_temperature"][0], field(20), atol=1e-3)


@needs_eccodes
@pytest.mark.parametrize("starts", [(0, 1200), (1200, 0)])
def test_steps_become_valid_times_and_the_latest_forecast_counts(tmp_path, starts):
    path = tmp_path / "fc.grib"
    with path.open("wb") as file:
        for start in starts:
            for step in (0, 6, 12):
                file.write(
                    message(field(start / 50 + step), shortName="t", level=500, dataTime=start, step=step)
                )
    fields = fields_of(path, variables=["temperature"])
    assert [str(t)[:13] for t in fields.time.values] == [
        "2020-01-01T00",
        "2020-01-01T06",
        "2020-01-01T12",
        "2020-01-01T18",
        "2020-01-02T00",
    ]
    # 12 UTC is there as a forecast (12) and as the start of the next one (24).
    expected = [0, 6, 24, 30, 36]
    for i, seed in enumerate(expected):
        assert np.allclose(fields.temperature[i, 0], field(seed), atol=1e-3), i


@needs_eccodes
def test_missing_values_and_scanning_from_the_south(tmp_path):
    values = field(0)
    values[3:6, 10:20] = np.nan
    (tmp_path / "a.grib").write_bytes(message(values, shortName="t", level=500))
    north = fields_of(tmp_path / "a.grib", variables=["temperature"]).temperature[0, 0]
    assert np.array_equal(np.isnan(north), np.isnan(values))
    keys = {
        "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": -90.0,
        "latitudeOfLastGridPointInDegrees": 90.0,
    }
    (tmp_path / "b.grib").write_bytes(message(values[::-1], shortName="t", level=500, **keys))
    south = fields_of(tmp_path / "b.grib", variables=["temperature"]).temperature[0, 0]
    assert np.array_equal(north, south, equal_nan=True)


@needs_eccodes
def test_regular_gaussian_grids(tmp_path):
    values = field(0, (64, 128))
    (tmp_path / "g.grib").write_bytes(message(values, sample="regular_gg_pl_grib2", shortName="t", level=500))
    fields = fields_of(tmp_path / "g.grib", variables=["temperature"])
    assert np.allclose(fields.latitude, gaussian_latitudes(64)[0], atol=1e-6)
    assert np.allclose(fields.longitude, np.arange(128) * 2.8125)
    assert np.allclose(fields.temperature[0, 0], values, atol=1e-3)


@needs_eccodes
def test_spherical_harmonics_are_refused_with_the_way_out(tmp_path):
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("sh_pl_grib2")
    (tmp_path / "x.grib").write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(UnreadableSourceError, match="spherical harmonics") as caught:
        open_sources(tmp_path / "x.grib")
    assert "sp2gp" in caught.value.remedy.lower()


@needs_eccodes
def test_damaged_files_are_refused_by_message(tmp_path):
    whole = message(field(0), shortName="t", level=500)
    (tmp_path / "cut.grib").write_bytes(whole + whole[: len(whole) // 2])
    with pytest.raises(UnreadableSourceError, match=r"message 2 .*damaged or cut off.*cut\.grib"):
        open_sources(tmp_path / "cut.grib")


@needs_eccodes
def test_only_what_is_asked_for_is_decoded(monkeypatch, tmp_path):
    from weathermill.fields import grib

    path = tmp_path / "an.grib"
    path.write_bytes(
        b"".join(
            message(field(h), shortName="t", level=p, dataTime=h) for h in (0, 600) for p in (500, 850, 1000)
        )
    )
    decoded = []
    original = grib.decode
    monkeypatch.setattr(grib, "decode", lambda *args: decoded.append(args) or original(*args))
    fields = fields_of(path, variables=["temperature"], levels=[850])
    assert decoded == []
    fields.temperature.isel(time=1).compute()
    assert len(decoded) <= 2


def test_without_eccodes_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "eccodes", None)
    (tmp_path / "x.grib").write_bytes(b"GRIB and more")
    with pytest.raises(UnreadableSourceError, match="ecCodes is not installed") as caught:
        open_sources(tmp_path / "x.grib")
    assert "eccodes" in caught.value.remedy
