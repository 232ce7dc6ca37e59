"""What a path, folder or glob stands for."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from grib_writing import NI, NJ, needs_eccodes, summed

from weathermill.errors import SourceNotFoundError, UnreadableSourceError
from weathermill.fields.findings import attached
from weathermill.fields.listing import expand_local
from weathermill.fields.opening import open_sources


@pytest.fixture
def netcdf(tmp_path, make_source) -> Path:
    """A NetCDF-4 file outside the folders that are listed."""
    (tmp_path / "made").mkdir()
    make_source().to_netcdf(tmp_path / "made" / "x.nc")
    return tmp_path / "made" / "x.nc"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def names(listing) -> list[str]:
    return [path.name for path in listing.paths]


def told(opened) -> str:
    return "\n".join(f"{f.subject}: {f.message}" for dataset in opened.datasets for f in attached(dataset))


def test_suffixes_count_in_any_case_and_files_without_one_by_their_content(folder, netcdf):
    taken = [
        "a.NC",
        "b.nc3",
        "c.Nc4",
        "d.netcdf",
        "e.CDF",
        "f.h5",
        "g.HDF5",
        "h.he5",
        "wrfout_d01_2000-01-24_12:00:00",
        "plain",
        "gfs.t00z.pgrb2.f006",
    ]
    for name in taken:
        shutil.copy(netcdf, folder / name)
    assert names(expand_local(str(folder))) == sorted(taken)
    assert len(open_sources(folder)) == len(taken)


@pytest.mark.parametrize("suffix", [".grib", ".GRB", ".grib2", ".grb2", ".gb2", ".grib1", ".zip"])
def test_what_bears_the_suffix_of_data_is_taken_and_refused_where_it_is_none(folder, suffix):
    (folder / f"x{suffix}").write_bytes(b"<html>")
    assert names(expand_local(str(folder))) == [f"x{suffix}"]
    with pytest.raises(UnreadableSourceError, match="web page"):
        open_sources(folder)


def test_what_is_passed_over_is_counted_and_named(folder, netcdf):
    shutil.copy(netcdf, folder / "a.nc")
    beside = ("a.nc.idx", "b.nc.partial", "c.grib.923a8.idx", ".hidden.nc", "d.nc.tmp", "README", "e.nc~")
    for name in beside:
        shutil.copy(netcdf, folder / name) if name != "README" else (folder / name).write_text("by hand")
    (folder / "more").mkdir()
    opened = open_sources(folder)
    assert opened.names == ["a.nc"]
    assert "8 entries are passed over" in told(opened) and ".hidden.nc, README" in told(opened)
    assert "and 3 more" in told(opened)
    from_glob = open_sources(str(folder / "*"))
    assert from_glob.names == ["a.nc"] and "7 entries are passed over" in told(from_glob)


def test_an_empty_folder_is_refused_and_folders_below_are_pointed_to(folder, netcdf):
    with pytest.raises(SourceNotFoundError, match="holds nothing"):
        expand_local(str(folder))
    (folder / "2020").mkdir()
    shutil.copy(netcdf, folder / "2020" / "a.nc")
    with pytest.raises(SourceNotFoundError, match="no NetCDF or GRIB file") as caught:
        expand_local(str(folder))
    assert "/**/*.nc" in caught.value.remedy
    assert names(expand_local(f"{folder}/**/*.nc")) == ["a.nc"]


def test_a_glob_never_takes_the_inside_of_a_store(folder, make_source, netcdf):
    make_source().to_zarr(folder / "s.zarr", zarr_format=3, consolidated=False)
    shutil.copy(netcdf, folder / "a.nc")
    everything = expand_local(f"{folder}/**")
    assert names(everything) == ["a.nc", "s.zarr"]
    with pytest.raises(SourceNotFoundError, match=r"inside of the Zarr store s\.zarr") as caught:
        expand_local(f"{folder}/s.zarr/*")
    assert "s.zarr" in caught.value.remedy
    make_source().to_zarr(folder / "tree.zarr", group="member", zarr_format=3, consolidated=False)
    (group,) = expand_local(f"{folder}/tree.zarr/mem*").paths
    assert open_sources(group).datasets[0].sizes["time"] == 6


def test_a_store_whose_writing_was_interrupted_is_refused_and_not_passed_over(folder, netcdf):
    shutil.copy(netcdf, folder / "a.nc")
    (folder / "half.zarr" / "t").mkdir(parents=True)
    with pytest.raises(UnreadableSourceError, match=r"half\.zarr is no Zarr store"):
        open_sources(folder)


def test_a_file_that_is_listed_twice_is_taken_once(folder, netcdf):
    shutil.copy(netcdf, folder / "a.nc")
    opened = open_sources([folder / "a.nc", f"{folder}/*.nc"])
    assert opened.names == ["a.nc"] and "listed twice, and taken once: a.nc" in told(opened)


def test_members_of_an_archive_that_are_no_data_are_named(folder, netcdf):
    with zipfile.ZipFile(folder / "cds.zip", "w") as archive:
        archive.write(netcdf, "data.NC")
        archive.write(netcdf, "__MACOSX/._data.nc")
        archive.writestr("licence.txt", "text")
    opened = open_sources(folder)
    assert opened.names == ["cds.zip!data.NC"]
    assert "2 members are passed over: __MACOSX/._data.nc, licence.txt" in told(opened)


def test_references_count_where_there_is_nothing_else(folder, netcdf):
    (folder / "all.json").write_text('{"version": 1, "refs": {".zgroup": "{\\"zarr_format\\": 2}"}}')
    assert names(expand_local(str(folder))) == ["all.json"]
    shutil.copy(netcdf, folder / "a.nc")
    assert names(expand_local(str(folder))) == ["a.nc"]
    assert names(expand_local(f"{folder}/*.json")) == ["all.json"]


@needs_eccodes
def test_an_archive_of_grib_files_counts_as_these_together(folder):
    first, second = np.full((NJ, NI), 0.25), np.full((NJ, NI), 0.75)
    with zipfile.ZipFile(folder / "cds.zip", "w") as archive:
        archive.writestr("a.grib", summed(first, "0-6"))
        archive.writestr("b.GRIB", summed(second, "0-12"))
    opened = open_sources(folder)
    assert opened.names == ["cds.zip!a.grib!tp@surface", "cds.zip!b.GRIB!tp@surface"]
    np.testing.assert_allclose(opened.datasets[1]["tp"], 0.5, atol=1e-6)
    assert {Path(d.location).name for d in opened.descriptions} == {"cds.zip"}


@pytest.mark.parametrize("name", ["x.GRB2", "x.zip"])
def test_grib_files_and_archives_behind_a_url_are_refused_with_the_way_out(name):
    with pytest.raises(UnreadableSourceError, match="not read from a URL") as caught:
        open_sources(f"memory://weather/{name}")
    assert "Download" in caught.value.remedy
