from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, SourceNotFoundError, UnreadableSourceError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.fingerprint import sampled_sha256
from weathermill.fields.opening import open_sources


def test_one_file_with_its_description(layouts):
    path = layouts / "cds_new_pl_realERA5.nc"
    with open_sources(path) as opened:
        assert opened.names == ["cds_new_pl_realERA5.nc"]
        (description,) = opened.descriptions
        assert description.size == path.stat().st_size
        assert description.format == "hdf5" and description.complete
        assert len(description.sha256) == 64
        assert opened.datasets[0]["t"].dims[0] == "valid_time"


def test_globs_folders_and_lists_open_in_order(tmp_path, make_source):
    for month in ("02", "01"):
        make_source(start=f"2020-{month}-01").to_netcdf(tmp_path / f"era5_2020{month}.nc")
    expected = ["era5_202001.nc", "era5_202002.nc"]
    for paths in (str(tmp_path / "era5_*.nc"), tmp_path, sorted(tmp_path.iterdir())):
        with open_sources(paths) as opened:
            assert opened.names == expected
    with open_sources([tmp_path / "era5_202002.nc", tmp_path / "era5_202001.nc"]) as opened:
        assert opened.names == expected[::-1]


def test_equal_names_are_told_apart_by_their_folders(tmp_path, make_source):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_source().to_netcdf(tmp_path / folder / "x.nc")
    with open_sources([tmp_path / "a", tmp_path / "b"]) as opened:
        assert opened.names == ["a/x.nc", "b/x.nc"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr_stores(tmp_path, make_source, zarr_format, consolidated):
    source = make_source()
    source.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=consolidated)
    opened = open_sources(tmp_path / "s.zarr")
    assert opened.descriptions[0].format == "zarr" and opened.descriptions[0].size > 0
    xr.testing.assert_allclose(opened.datasets[0].load(), source)


def test_a_url_of_any_file_system(make_source):
    source = make_source()
    source.to_zarr("memory://weather/s.zarr", zarr_format=3, consolidated=False)
    opened = open_sources("memory://weather/s.zarr")
    xr.testing.assert_allclose(opened.datasets[0].load(), source)
    assert opened.descriptions[0].location == "memory://weather/s.zarr"
    with fsspec.open("memory://weather/f.nc", "wb") as handle:
        handle.write(bytes(source.to_netcdf(engine="h5netcdf")))
    opened = open_sources("memory://weather/*.nc")
    assert opened.names == ["f.nc"]
    xr.testing.assert_allclose(opened.datasets[0].load(), source)
    with pytest.raises(SourceNotFoundError):
        open_sources("memory://weather/absent.zarr")
    with pytest.raises(SourceNotFoundError):
        open_sources("memory://weather/absent.nc")


def test_a_store_behind_a_web_server(tmp_path, make_source):
    source = make_source()
    source.to_zarr(tmp_path / "s.zarr", zarr_format=2, consolidated=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        opened = open_sources(f"{url}/s.zarr")
        fields = canonicalise(opened.datasets, variables=["temperature"]).compute()
        with pytest.raises((SourceNotFoundError, UnreadableSourceError), match="absent"):
            open_sources(f"{url}/absent.zarr")
        server.shutdown()
    xr.testing.assert_equal(fields, canonicalise([source], variables=["temperature"]).compute())
    assert opened.descriptions[0].location.startswith(url) and len(opened.descriptions[0].sha256) == 64


def test_unknown_protocol_is_told():
    with pytest.raises(SourceNotFoundError, match="nosuch"):
        open_sources("nosuch://bucket/x.zarr")


def test_missing_says_what_the_folder_holds(tmp_path):
    (tmp_path / "era5_1979.nc").write_bytes(b"x")
    for path in ("era5_1980.nc", "era6_*.nc"):
        with pytest.raises(SourceNotFoundError, match=r"holds era5_1979\.nc"):
            open_sources(tmp_path / path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="holds nothing"):
        open_sources(tmp_path / "empty")
    with pytest.raises(SourceNotFoundError, match="empty"):
        open_sources([])


@pytest.mark.parametrize("name", ["cds_new_pl_realERA5.nc", "cds_old_packed_pl_realERA5.nc"])
def test_truncated_files_are_refused_by_name(tmp_path, layouts, name):
    whole = (layouts / name).read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableSourceError, match=r"truncated.*cut\.nc"):
        open_sources(tmp_path / "cut.nc")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"error": "licence not accepted"}', "JSON"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"BZh91", "bzip2"),
        (b"some text that is nothing", "neither NetCDF"),
        (b"PK\x03\x04 and then no archive", "ZIP archive is damaged"),
    ],
)
def test_what_is_no_netcdf_is_told_what_it_is(tmp_path, content, said):
    (tmp_path / "file.nc").write_bytes(content)
    with pytest.raises(UnreadableSourceError, match=said) as caught:
        open_sources(tmp_path / "file.nc")
    assert "file.nc" in str(caught.value)
    assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.nc"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UnreadableSourceError, match="cannot be read"):
        open_sources(path)


def test_damage_inside_a_file_is_told_when_it_is_read(tmp_path, make_source):
    source = make_source(n_time=40, n_lat=33, n_lon=64)
    rng = np.random.default_rng(0)
    source["t"][:] = source["t"].values + rng.standard_normal(source["t"].shape).astype(np.float32)
    path = tmp_path / "bent.nc"
    source.to_netcdf(path, encoding={"t": {"zlib": True, "chunksizes": (4, 2, 33, 64)}})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    opened = open_sources(path)
    fields = canonicalise(opened.datasets, variables=["temperature"], source_names=opened.names)
    with pytest.raises(UnreadableSourceError, match=r"bent\.nc:t"):
        fields.compute()


def test_a_zip_under_the_name_of_a_netcdf(layouts):
    opened = open_sources(layouts / "cds_new_zip_named.nc")
    assert [name.split("!")[1] for name in opened.names] == [
        "data_stream-oper_stepType-accum.nc",
        "data_stream-oper_stepType-instant.nc",
    ]
    fields = canonicalise(opened.datasets, surface_variables=["2m_temperature"], source_names=opened.names)
    assert fields.sizes["time"] == 40
    assert 150.0 < float(fields["2m_temperature"].isel(time=3).mean()) < 320.0


def test_an_archive_is_unpacked_once_in_the_folder_for_temporary_data(layouts, tmp_path, monkeypatch):
    archive = shutil.copy(layouts / "cds_new_zip_named.nc", tmp_path / "a.nc")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    first, again = open_sources(archive), open_sources(archive)
    places = {dataset.encoding["source"] for opened in (first, again) for dataset in opened.datasets}
    assert len(places) == 2 and all(place.startswith(str(tmp_path / "scratch")) for place in places)
    # A run takes its temporary data away at its end; another one in the same process unpacks again.
    shutil.rmtree(tmp_path / "scratch")
    (tmp_path / "scratch").mkdir()
    assert open_sources(archive).datasets[1]["t2m"].isel(valid_time=0).load().size


def test_members_of_archives_cannot_leave_their_folder(tmp_path, make_source):
    make_source().to_netcdf(tmp_path / "good.nc")
    with zipfile.ZipFile(tmp_path / "evil.nc", "w") as archive:
        archive.write(tmp_path / "good.nc", "../../escaped.nc")
        archive.write(tmp_path / "good.nc", "/abs/escaped.nc")
        archive.writestr("notes.txt", "nothing")
    opened = open_sources(tmp_path / "evil.nc")
    assert len(opened) == 2
    assert not (tmp_path.parent / "escaped.nc").exists() and not Path("/abs/escaped.nc").exists()
    xr.testing.assert_equal(opened.datasets[0]["t"].load(), opened.datasets[1]["t"].load())


def test_archives_without_netcdf_or_with_false_claims_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.nc", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UnreadableSourceError, match=r"readme\.txt"):
        open_sources(tmp_path / "a.nc")
    with zipfile.ZipFile(tmp_path / "b.nc", "w") as archive:
        archive.writestr("x.nc", b"no netcdf at all")
    with pytest.raises(UnreadableSourceError, match=r"x\.nc"):
        open_sources(tmp_path / "b.nc")


def test_a_folder_that_is_no_store_is_told(tmp_path):
    (tmp_path / "half.zarr").mkdir()
    (tmp_path / "half.zarr" / "temperature").mkdir()
    with pytest.raises(SourceNotFoundError, match="no Zarr store"):
        open_sources(tmp_path / "half.zarr")
    with pytest.raises(UnreadableSourceError, match=r"neither zarr.json"):
        open_sources(str(tmp_path / "half*"))


def test_a_store_with_damaged_metadata_is_told(tmp_path, make_source):
    make_source().to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    (tmp_path / "s.zarr" / "t" / "zarr.json").write_text("{ not json")
    with pytest.raises(UnreadableSourceError, match=r"s\.zarr"):
        open_sources(tmp_path / "s.zarr")


def test_times_that_cannot_be_decoded_are_told(tmp_path, make_source):
    source = make_source().drop_vars("time")
    source["time"] = ("time", np.arange(6), {"units": "fortnights after the flood"})
    source.to_netcdf(tmp_path / "odd.nc")
    opened = open_sources(tmp_path / "odd.nc")
    with pytest.raises(CoordinateError, match="after the flood"):
        canonicalise(opened.datasets, variables=["temperature"], source_names=opened.names)


def test_the_hash_of_a_large_file_samples_it(tmp_path):
    path = tmp_path / "large.bin"
    content = np.random.default_rng(0).integers(0, 255, 8 * 2**20, dtype=np.uint8)
    path.write_bytes(content.tobytes())
    first, complete = sampled_sha256(path)
    assert not complete
    assert sampled_sha256(path)[0] == first
    content[-1] ^= 1
    path.write_bytes(content.tobytes())
    assert sampled_sha256(path)[0] != first
    path.write_bytes(content[:-1].tobytes())
    assert sampled_sha256(path)[0] != first


def test_the_hash_of_a_store_heeds_metadata_and_chunks(tmp_path, make_source):
    make_source().to_zarr(tmp_path / "s.zarr", zarr_format=2)
    before = open_sources(tmp_path / "s.zarr").descriptions[0].sha256
    assert open_sources(tmp_path / "s.zarr").descriptions[0].sha256 == before
    chunk = next(p for p in (tmp_path / "s.zarr" / "t").iterdir() if p.name[0].isdigit())
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert open_sources(tmp_path / "s.zarr").descriptions[0].sha256 != before
