from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import yaml

from weathermill.fields.conventions import canonicalise
from weathermill.fields.opening import open_sources
from weathermill.fields.overview import overview


@pytest.mark.parametrize(
    "name",
    [
        "cds_new_pl_realERA5.nc",
        "cds_old_packed_pl_realERA5.nc",
        "cds_old_expver_dim.nc",
        "cds_new_zip_named.nc",
    ],
)
def test_the_parameters_it_gives_ingest_what_it_found(layouts, name):
    opened = open_sources(layouts / name)
    seen = overview(opened.datasets, opened.names)
    text = seen.to_text()
    parameters = yaml.safe_load(text.split("\n\n")[-1])["ingest"]
    # The sample's precipitation has units of pressure, which is an error of its own.
    parameters["surface_variables"] = [
        v for v in parameters["surface_variables"] if v != "total_precipitation"
    ]
    fields = canonicalise(opened.datasets, source_names=opened.names, **parameters)
    assert fields.sizes["time"] == seen.time["steps"]
    assert f"{fields.sizes['latitude']} x {fields.sizes['longitude']}" in text


def test_text_for_a_real_file(layouts):
    opened = open_sources(layouts / "cds_new_pl_realERA5.nc")
    text = overview(opened.datasets, opened.names).to_text()
    assert "4 steps, 2017-01-01T00:00 to 2017-01-02T12:00, every 12 h, proleptic_gregorian" in text
    assert "61 x 120, global, points on the poles" in text
    assert "geopotential  pressure  [m**2 s**-2]  500, 850 hPa  as z" in text


def test_nothing_is_read(monkeypatch, tmp_path, make_source):
    make_source().to_netcdf(tmp_path / "x.nc")
    opened = open_sources(tmp_path / "x.nc")
    overview(opened.datasets, opened.names).to_text()
    assert not opened.datasets[0]["t"].variable._in_memory


def test_gaps_repeats_problems_and_strangers(make_source):
    first, second = make_source(), make_source(start="2020-01-02T06:00")
    second["chlorophyll"] = second["t"].isel(level=0, drop=True)
    members = xr.concat([make_source(names=("q",))] * 2, "number")
    late = make_source(start="2020-02-01", names=("t",))
    seen = overview([first, second, late, members], ["a.nc", "b.nc", "c.nc", "d.nc"])
    assert seen.time["gaps"] == 1
    text = seen.to_text()
    assert "chlorophyll" in text and "(not in the vocabulary)" in text
    assert any(
        "there are 2 ensemble members along number (0, 1)" in finding.message for finding in seen.findings
    )
    assert seen.parameters()["variables"] == ["temperature", "specific_humidity"]
    assert "select: {number: 0}" in text


def test_repeated_times_of_one_variable(make_source):
    seen = overview([make_source(), make_source()], ["a", "b"])
    assert seen.time["repeated"] == 6
    apart = overview([make_source(), make_source(names=("q",))], ["a", "b"])
    assert apart.time["repeated"] == 0


def test_sources_that_make_no_sense_are_findings(make_source):
    bad = xr.Dataset({"t": ("x", np.zeros(3))})
    other = make_source(n_lat=5)
    times = make_source().drop_vars("time").assign_coords(time=("time", np.arange(6), {"units": "moons"}))
    seen = overview([make_source(), bad, other, times], ["a.nc", "bad.nc", "other.nc", "odd.nc"])
    found = {finding.subject: finding.message for finding in seen.findings if finding.severity == "error"}
    assert "no latitude is found" in found["bad.nc"]
    assert "2 different grids" in found["grid"]
    assert "moons" in found["time"]


def test_levels_that_differ_give_flat_names(make_source):
    source = make_source(levels=None, names=("geopotential_500", "temperature_850"))
    parameters = overview([source], ["a"]).parameters()
    assert parameters["variables"] == [] and parameters["levels"] is None
    assert parameters["surface_variables"] == ["geopotential_500", "temperature_850"]


@pytest.mark.parametrize(
    ("latitude", "longitude", "extent"),
    [
        (np.linspace(80, -80, 9), np.arange(16) * 22.5, "global"),
        (np.linspace(40, -40, 9), np.arange(16) * 22.5, "all longitudes"),
        (np.linspace(60, 40, 9), np.arange(16) * 2.5, "a region"),
    ],
)
def test_a_band_of_latitudes_is_not_called_global(make_source, latitude, longitude, extent):
    source = make_source()
    source = source.isel(latitude=[0] * 9, longitude=[0] * 16).assign_coords(
        latitude=("latitude", latitude, source.latitude.attrs),
        longitude=("longitude", longitude, source.longitude.attrs),
    )
    assert f"9 x 16, {extent}, latitude" in overview([source], ["a.nc"]).to_text()
