"""Files and stores as their publishers lay them out, from the disk or a server to canonical fields."""

from __future__ import annotations

import http.server
import re
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import MissingDataError, TimeAxisError, UnreadableSourceError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.missing import refuse_missing
from weathermill.fields.opening import open_sources


def ingested(paths, **wanted) -> xr.Dataset:
    opened = open_sources(paths)
    return canonicalise(opened.datasets, source_names=opened.names, **wanted)


def test_instantaneous_and_accumulated_fields_of_one_archive(layouts):
    # This file's precipitation is made up, and in the wrong units.
    fields = ingested(
        layouts / "cds_new_zip_named.nc",
        surface_variables=["2m_temperature", "total_precipitation"],
        units={"total_precipitation": "m"},
    )
    assert fields.sizes["time"] == 40
    assert fields["total_precipitation"].attrs["cell_methods"] == "time: sum"
    assert not fields.isnull().any().to_array().any()


def test_era5_takes_the_place_of_era5t_in_another_file(tmp_path, make_source):
    early, final = make_source(n_time=8), make_source(n_time=6)
    early["t"] += 0.25
    versions = {"early": ["0001"] * 2 + ["0005"] * 6, "final": ["0001"] * 6}
    # Where both say ERA5 they agree.
    early["t"][:2] = final["t"][:2]
    for name, source in {"early": early, "final": final}.items():
        expver = ("time", np.array(versions[name], dtype=object))
        source.assign_coords(expver=expver).to_netcdf(tmp_path / f"{name}.nc")
    findings = []
    fields = ingested(tmp_path / "*.nc", variables=["temperature"], findings=findings)
    np.testing.assert_array_equal(fields["temperature"][:6], final["t"])
    np.testing.assert_array_equal(fields["temperature"][6:], early["t"][6:])
    assert any("4 time steps of ERA5T" in finding.message for finding in findings)
    again = ingested(
        [tmp_path / "final.nc", tmp_path / "early.nc"], variables=["temperature"], findings=findings
    )
    np.testing.assert_array_equal(again["temperature"], fields["temperature"])


def test_a_low_resolution_weatherbench_store(tmp_path, make_source):
    """Zarr v2, consolidated, (time, level, longitude, latitude), latitudes ascending, no sea surface over land."""
    names = {"t": "temperature"}
    plain = make_source(n_lat=8).rename(names)
    sst = make_source(n_lat=8, levels=None, names=("sea_surface_temperature",))
    sst["sea_surface_temperature"][:, 2:5, 3:9] = np.nan
    store = plain.merge(sst[["sea_surface_temperature"]]).isel(latitude=slice(None, None, -1))
    store = store.transpose("time", "level", "longitude", "latitude")
    store["level"] = store["level"].astype("int64")
    store.to_zarr(tmp_path / "wb2.zarr", zarr_format=2, consolidated=True)
    fields = ingested(
        tmp_path / "wb2.zarr",
        variables=["temperature"],
        surface_variables=["sea_surface_temperature"],
    )
    assert fields["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert fields.latitude.values[0] > fields.latitude.values[-1]
    np.testing.assert_array_equal(fields["temperature"], plain["temperature"])
    np.testing.assert_array_equal(
        fields["sea_surface_temperature"].isnull(), sst["sea_surface_temperature"].isnull()
    )
    with pytest.raises(MissingDataError, match="sea_surface_temperature has"):
        refuse_missing(fields).compute()
    refuse_missing(fields, allow=["sea_surface_temperature"]).compute()


def test_an_arco_store_whose_axis_is_allocated_far_beyond_the_data(tmp_path, make_source):
    source = make_source(n_time=8, start="2020-01-01", step_hours=6).rename(t="temperature")
    axis = np.arange("1980-01-01", "2050-01-01", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    template = source.isel(time=0, drop=True).expand_dims(time=axis).chunk(time=1000)
    template.attrs = {"valid_time_start": "2020-01-01", "valid_time_stop": "2020-01-02"}
    encoding = {"temperature": {"chunks": (1, 2, 9, 16)}}
    template.drop_encoding().to_zarr(
        tmp_path / "arco.zarr", zarr_format=2, compute=False, encoding=encoding, safe_chunks=False
    )
    first = int(np.searchsorted(axis, source.time.values[0]))
    source.drop_vars(["level", "latitude", "longitude"]).to_zarr(
        tmp_path / "arco.zarr", region={"time": slice(first, first + 8)}
    )
    fields = ingested(tmp_path / "arco.zarr", variables=["temperature"])
    np.testing.assert_array_equal(fields.time, source.time)
    np.testing.assert_array_equal(refuse_missing(fields)["temperature"], source["temperature"])


def cmip_file(path, make_source, calendar: str, start: str) -> np.ndarray:
    """Write one file as CMIP6 has them, with bounds and both kinds of fill values; return what `ta` holds."""
    source = make_source(names=("ta",), levels=(85000.0, 50000.0)).rename(
        level="plev", latitude="lat", longitude="lon"
    )
    values = source["ta"].values.copy()
    values[0, 0, 0, 0] = values[1, 0, 0, 0] = np.nan
    times = xr.date_range(start, periods=6, freq="D", calendar=calendar, use_cftime=True)
    with netCDF4.Dataset(path, "w") as file:
        for name, size in {"time": None, "plev": 2, "lat": 9, "lon": 16, "bnds": 2}.items():
            file.createDimension(name, size)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 1850-01-01", "calendar": calendar, "bounds": "time_bnds"})
        time[:] = cftime.date2num(times.values, "days since 1850-01-01", calendar=calendar)
        bounds = file.createVariable("time_bnds", "f8", ("time", "bnds"))
        bounds[:] = time[:][:, None] + np.array([-0.5, 0.5])
        for name, units in {"plev": "Pa", "lat": "degrees_north", "lon": "degrees_east"}.items():
            axis = file.createVariable(name, "f8", (name,))
            axis.setncatts({"units": units, "bounds": f"{name}_bnds"})
            axis[:] = source[name].values
            file.createVariable(f"{name}_bnds", "f8", (name, "bnds"))[:] = source[name].values[:, None]
        height = file.createVariable("height", "f8", ())
        height.setncatts({"units": "m", "standard_name": "height"})
        height[:] = 2.0
        # One fill value is declared, another one is not.
        ta = file.createVariable("ta", "f4", ("time", "plev", "lat", "lon"), fill_value=np.float32(1e20))
        ta.setncatts({"units": "K", "standard_name": "air_temperature", "coordinates": "height"})
        ta.set_auto_mask(False)
        stored = values.copy()
        stored[0, 0, 0, 0], stored[1, 0, 0, 0] = 1e20, 9.96921e36
        ta[:] = stored
    return values[:, ::-1]


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "proleptic_gregorian"])
def test_cmip_files_keep_their_calendar(tmp_path, make_source, calendar):
    values = cmip_file(tmp_path / "ta_day.nc", make_source, calendar, "2020-02-26")
    fields = ingested(tmp_path / "ta_day.nc", variables=["temperature"])
    assert list(fields.data_vars) == ["temperature"] and fields.level.values.tolist() == [500.0, 850.0]
    np.testing.assert_array_equal(fields["temperature"], values)
    if calendar == "proleptic_gregorian":
        assert fields.time.dtype.kind == "M"
    else:
        assert fields.time.values[0].calendar == calendar
    days = [int(day) for day in fields.time.dt.day]
    assert (
        days
        == {
            "noleap": [26, 27, 28, 1, 2, 3],
            "360_day": [26, 27, 28, 29, 30, 1],
            "proleptic_gregorian": [26, 27, 28, 29, 1, 2],
        }[calendar]
    )


def test_files_of_two_calendars_are_refused(tmp_path, make_source):
    cmip_file(tmp_path / "a.nc", make_source, "noleap", "2020-01-01")
    cmip_file(tmp_path / "b.nc", make_source, "360_day", "2020-02-01")
    with pytest.raises(TimeAxisError, match=r"2 calendars: 360_day \(b.nc\), noleap \(a.nc\)"):
        ingested(tmp_path / "*.nc", variables=["temperature"])


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
def test_big_endian_files(tmp_path, make_source, kind):
    source = make_source()
    source["level"] = source["level"].astype("f4")
    # Classic files are big-endian by definition.
    if kind == "NETCDF4":
        source.astype(">f4").to_netcdf(tmp_path / "big.nc", engine="h5netcdf")
    else:
        source.to_netcdf(tmp_path / "big.nc", format=kind)
    fields = ingested(tmp_path / "big.nc", variables=["temperature"]).compute()
    assert fields["temperature"].dtype == np.dtype("<f4")
    np.testing.assert_array_equal(fields["temperature"], source["t"])


def test_static_fields_in_files_without_time(tmp_path, make_source):
    source = make_source()
    source.to_netcdf(tmp_path / "t.nc")
    mask = make_source(levels=None, names=("lsm",), units="1", base=0.0).isel(time=0, drop=True)
    mask["lsm"] = (mask["lsm"] > 0).astype("i1").assign_attrs(units="(0 - 1)")
    mask.isel(latitude=slice(None, None, -1)).to_netcdf(tmp_path / "lsm.nc")
    fields = ingested(tmp_path / "*.nc", variables=["temperature"], static_variables=["land_sea_mask"])
    assert fields["land_sea_mask"].dims == ("latitude", "longitude")
    np.testing.assert_array_equal(fields["land_sea_mask"], mask["lsm"])


def test_one_variable_in_two_files(tmp_path, make_source):
    make_source().to_netcdf(tmp_path / "a.nc")
    make_source(n_time=9, step_hours=6).isel(time=slice(3, 9)).to_netcdf(tmp_path / "b.nc")
    fields = ingested(tmp_path / "*.nc", variables=["temperature"])
    np.testing.assert_array_equal(fields["temperature"], make_source(n_time=9)["t"])
    other = make_source(n_time=9).isel(time=slice(3, 9))
    other["t"] += 1.0
    other.to_netcdf(tmp_path / "b2.nc")
    with pytest.raises(TimeAxisError, match=r"twice with different values.*a\.nc:t and b2\.nc:t"):
        ingested([tmp_path / "a.nc", tmp_path / "b2.nc"], variables=["temperature"])


def test_one_time_step_that_is_no_dimension(tmp_path, make_source):
    source = make_source()
    for i in range(3):
        source.isel(time=i).to_netcdf(tmp_path / f"{i}.nc")
    fields = ingested(tmp_path / "*.nc", variables=["temperature"])
    np.testing.assert_array_equal(fields["temperature"], source["t"][:3])


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """A web server that answers requests for parts of a file, as those of data centres do."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])


class WholeHandler(http.server.SimpleHTTPRequestHandler):
    """A web server that knows whole files only."""

    def log_message(self, *_: object) -> None: ...


@contextmanager
def served(folder, handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("handler", [RangeHandler, WholeHandler])
def test_a_file_behind_a_web_server(tmp_path, make_source, handler):
    pytest.importorskip("aiohttp")
    source = make_source()
    source.to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    source.to_netcdf(tmp_path / "old.nc", format="NETCDF3_CLASSIC")
    with served(tmp_path, handler) as url:
        fields = ingested(f"{url}/t.nc", variables=["temperature"]).compute()
        np.testing.assert_array_equal(fields["temperature"], source["t"])
        with pytest.raises(UnreadableSourceError, match=r"old\.nc"):
            ingested(f"{url}/old.nc", variables=["temperature"])


def test_the_documentation_names_tests_that_exist():
    tests = Path(__file__).resolve().parents[1]
    page = (tests.parent / "docs" / "data.md").read_text()
    table = page.split("and the test that shows it")[1].split("\n## ")[0]
    file, count = "", 0
    for named, test in re.findall(r"`([\w/]+\.py|…)(?:::(\w+))?`", table):
        # An ellipsis stands for the file that was named last.
        file = file if named == "…" else named
        assert (tests / file).is_file(), named
        assert not test or f"def {test}(" in (tests / file).read_text(), f"{file}::{test}"
        count += bool(test)
    assert count > 30
