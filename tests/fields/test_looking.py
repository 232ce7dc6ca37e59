from __future__ import annotations

import numpy as np
import pytest
import yaml

from weathermill.errors import SourceNotFoundError
from weathermill.fields.choices import SourceOptions
from weathermill.fields.looking import look_at


def test_a_clean_file(layouts):
    look = look_at(layouts / "cds_new_pl_realERA5.nc")
    text = look.to_text()
    assert not look.errors and "nothing is wrong with it" in text
    assert "geopotential   500 hPa  " in text and "m2 s-2" in text
    assert "temperature" in text and "850 hPa" in text
    assert yaml.safe_load(text.split("\n\n")[-1])["ingest"]["levels"] == [500, 850]


def test_what_is_wrong_is_said_with_the_way_out(tmp_path, make_source):
    source = make_source(n_time=10).isel(time=[0, 1, 2, 6, 7, 8, 9])
    source["t"][2, 0] = 5000.0
    source["t"][6, 1, :3] = np.nan
    source.to_netcdf(tmp_path / "x.nc")
    look = look_at(tmp_path / "x.nc", sample_steps=7)
    text = look.to_text()
    assert "1 gaps" in text and "3 steps of 6 h missing" in text
    assert "beyond the physical limits" in text and "% of the sampled values are missing" in text
    assert look.errors[0].subject == "temperature"
    assert text.index("error:") < text.index("warning:")
    assert "% missing" in text


def test_units_that_cannot_be_told_are_an_error_not_a_traceback(tmp_path, make_source):
    make_source(units=None, base=-20.0).to_netcdf(tmp_path / "x.nc")
    look = look_at(tmp_path / "x.nc")
    assert "no units, and values from" in look.errors[0].message and look.report is None
    assert "parameter `ingest.units`" in look.to_text()


def test_coordinates_only(tmp_path, make_source, monkeypatch):
    make_source().to_netcdf(tmp_path / "x.nc")
    from weathermill.fields.layout import GuardedReader

    monkeypatch.setattr(GuardedReader, "__getitem__", lambda self, key: pytest.fail("data is read"))
    look = look_at(tmp_path / "x.nc", sample_steps=0)
    assert look.report is None and "6 steps" in look.to_text()


def test_different_grids_are_seen_without_sampling(tmp_path, make_source):
    make_source().to_netcdf(tmp_path / "a.nc")
    make_source(names=("q",), n_lat=5).to_netcdf(tmp_path / "b.nc")
    look = look_at(tmp_path)
    assert look.report is None and "2 different grids" in look.to_text()
    with pytest.raises(SourceNotFoundError):
        look_at(tmp_path / "c.nc")


@pytest.mark.parametrize(
    ("values", "attrs", "words"),
    [
        ([f"2020-01-0{day}" for day in range(1, 7)], {}, "time, which holds texts such as '2020-01-01'"),
        (np.arange(2020010100, 2020010106), {}, "time with the units 'none'"),
        (np.arange(20200101.0, 20200107.0), {"units": "day as %Y%m%d.%f"}, "time with the units 'day as"),
    ],
)
def test_times_that_cannot_be_decoded_are_an_error_with_the_way_out(
    tmp_path, make_source, values, attrs, words
):
    source = make_source(levels=None, names=("t2m",)).assign_coords(time=("time", values, attrs))
    source.to_netcdf(tmp_path / "x.nc")
    (error,) = look_at(tmp_path / "x.nc").errors
    assert words in error.message and "hours since" in error.remedy


def test_a_choice_that_no_source_has_is_the_one_error(tmp_path, make_source):
    source = make_source(levels=None, names=("t2m",)).expand_dims(number=[0, 1])
    source.to_netcdf(tmp_path / "x.nc")
    (error,) = look_at(tmp_path / "x.nc", options=SourceOptions(select={"number": 7})).errors
    assert "asks for number: 7, and the sources hold 0, 1" in error.message
