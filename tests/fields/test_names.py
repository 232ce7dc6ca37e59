from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import CoordinateError, ParameterError
from weathermill.fields.choices import SourceOptions
from weathermill.fields.conventions import canonicalise
from weathermill.fields.survey import Source
from weathermill.parameters import validate_parameters


def test_a_table_names_what_is_not_recognised(make_source):
    source = make_source(levels=None, names=("SLP",), units="hPa", base=1000.0)
    fields = canonicalise(
        [source], surface_variables=["mean_sea_level_pressure"], names={"SLP": "mean_sea_level_pressure"}
    )
    expected = source["SLP"].values * np.float32(100.0)
    np.testing.assert_allclose(fields["mean_sea_level_pressure"].values, expected, rtol=1e-7)


def test_a_table_goes_before_recognition_and_messages_keep_the_name_of_the_file(make_source):
    source = make_source(levels=None, names=("t2m",))
    options = SourceOptions(names={"t2m": "skin_temperature"})
    (offer,) = Source(source, "x.nc", 0, options=options).offers
    assert (offer.variable, offer.label) == ("skin_temperature", "x.nc:t2m")


def test_a_table_names_one_level_and_coordinates(make_source):
    source = make_source(levels=None, names=("Z500",), units="m2 s-2").rename(
        latitude="phi", longitude="lam", time="when"
    )
    for name in ("phi", "lam"):
        source[name].attrs.clear()
    names = {"Z500": "geopotential_500", "phi": "latitude", "lam": "longitude", "when": "time"}
    fields = canonicalise([source], surface_variables=["geopotential_500"], names=names)
    assert fields["geopotential_500"].dims == ("time", "latitude", "longitude")
    assert fields.sizes["time"] == 6


def test_a_name_that_does_not_fit_the_levels_is_refused(make_source):
    with pytest.raises(
        CoordinateError, match="calls it temperature, which is on pressure levels, and it has none"
    ):
        canonicalise(
            [make_source(levels=None, names=("A",))],
            surface_variables=["temperature"],
            names={"A": "temperature"},
        )
    with pytest.raises(CoordinateError, match="has no levels, and it is on pressure levels"):
        canonicalise([make_source(names=("A",))], variables=["2m_temperature"], names={"A": "2m_temperature"})


def test_wrong_names_are_refused_with_the_nearest(make_source):
    source = make_source(levels=None, names=("SLP", "msl"))
    ask = {"surface_variables": ["mean_sea_level_pressure"]}
    with pytest.raises(ParameterError, match=r"no source has 'SLPP'; did you mean SLP"):
        canonicalise([source], names={"SLPP": "mean_sea_level_pressure"}, **ask)
    for target in ("msl", "mslpp", "mean_sea_level_presure"):
        with pytest.raises(ParameterError, match="no canonical name; did you mean mean_sea_level_pressure"):
            canonicalise([source], names={"SLP": target}, **ask)
    with pytest.raises(ParameterError, match="gives one name to several of SLP, msl"):
        canonicalise([source], names=dict.fromkeys(["SLP", "msl"], "mean_sea_level_pressure"), **ask)
    with pytest.raises(ParameterError, match="something of that name already"):
        canonicalise(
            [source.rename(msl="mean_sea_level_pressure")], names={"SLP": "mean_sea_level_pressure"}, **ask
        )
    relaxed = canonicalise(
        [source],
        names={"SLPP": "surface_pressure"},
        strict=False,
        units={"mean_sea_level_pressure": "Pa"},
        **ask,
    )
    assert "mean_sea_level_pressure" in relaxed


def test_parameters_refuse_wrong_targets_and_axes_before_any_work():
    ingest = {"variables": ["temperature"], "names": {"SLP": "mean_sea_levl_pressure"}}
    with pytest.raises(ParameterError, match="did you mean mean_sea_level_pressure"):
        validate_parameters({"ingest": ingest})
    with pytest.raises(ParameterError, match=r"select names level, which is chosen by ingest\.levels"):
        validate_parameters({"ingest": {"variables": ["temperature"], "select": {"level": 500}}})
    held = validate_parameters({"ingest": {"variables": ["t"], "select": {"step": "6h", "number": 0}}}).ingest
    assert held.select == {"step": "6h", "number": 0}
