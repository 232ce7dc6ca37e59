"""Stores of references: Kerchunk's JSON, and Icechunk where that is installed."""

from __future__ import annotations

import importlib.util
import json
import sys

import h5py
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import UnreadableSourceError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.opening import open_sources


def references_to(path) -> dict:
    """Write down where the bytes of an HDF5 file lie, as Kerchunk does."""
    references = {".zgroup": json.dumps({"zarr_format": 2}), ".zattrs": "{}"}
    with h5py.File(path) as file:
        for name, variable in file.items():
            axes = [axis[0].name.strip("/") for axis in variable.dims] if variable.dims[0] else [name]
            attributes = {"_ARRAY_DIMENSIONS": axes}
            for key in ("units", "calendar"):
                if key in variable.attrs:
                    attributes[key] = np.asarray(variable.attrs[key]).astype(str).item()
            metadata = {
                "zarr_format": 2,
                "shape": variable.shape,
                "chunks": variable.shape,
                "dtype": variable.dtype.str,
                "fill_value": None,
                "order": "C",
                "compressor": None,
                "filters": None,
            }
            references[f"{name}/.zarray"] = json.dumps(metadata)
            references[f"{name}/.zattrs"] = json.dumps(attributes)
            place = [str(path), variable.id.get_offset(), variable.id.get_storage_size()]
            references[f"{name}/" + ".".join("0" * variable.ndim)] = place
    return {"version": 1, "refs": references}


def test_references_to_pieces_of_a_file(tmp_path, make_source):
    source = make_source()
    source.to_netcdf(tmp_path / "data.h5", encoding={"t": {"_FillValue": None}})
    (tmp_path / "refs.json").write_text(json.dumps(references_to(tmp_path / "data.h5")))
    opened = open_sources(tmp_path / "refs.json")
    assert opened.descriptions[0].format == "references"
    fields = canonicalise(opened.datasets, variables=["temperature"], source_names=opened.names)
    np.testing.assert_array_equal(fields["temperature"], source["t"])
    np.testing.assert_array_equal(fields["time"], source["time"])


def test_references_in_parquet_are_refused_instead_of_read_as_nothing(tmp_path, make_source):
    make_source().to_zarr(tmp_path / "refs.parq", zarr_format=2, consolidated=True)
    (tmp_path / "refs.parq" / "t" / "refs.0.parq").write_bytes(b"PAR1")
    with pytest.raises(UnreadableSourceError, match="references in Parquet") as caught:
        open_sources(tmp_path / "refs.parq")
    assert "JSON" in caught.value.remedy


def test_icechunk_repositories(tmp_path, make_source):
    icechunk = pytest.importorskip("icechunk")
    source = make_source()
    path = tmp_path / "repository"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    digests = []
    for change in (0, 1):
        session = repository.writable_session("main")
        (source + change).assign_attrs(change=change).to_zarr(
            session.store, mode="w", zarr_format=3, consolidated=False
        )
        session.commit("one")
        opened = open_sources(path)
        digests.append(opened.descriptions[0].sha256)
    assert digests[0] != digests[1] and opened.descriptions[0].complete
    fields = canonicalise(opened.datasets, variables=["temperature"], units={"temperature": "K"})
    xr.testing.assert_equal(
        fields, canonicalise([source + 1], variables=["temperature"], units={"temperature": "K"})
    )


def test_without_icechunk_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    for name in ("refs", "snapshots", "manifests", "transactions"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    with pytest.raises(UnreadableSourceError, match="Icechunk is not installed") as caught:
        open_sources(tmp_path / "repository")
    assert "extra icechunk" in caught.value.remedy


@pytest.mark.skipif(importlib.util.find_spec("icechunk") is None, reason="Icechunk is not installed")
def test_a_broken_icechunk_repository_is_named(tmp_path):
    for name in ("refs", "snapshots", "manifests", "transactions"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    with pytest.raises(UnreadableSourceError, match="Icechunk repository cannot be opened"):
        open_sources(tmp_path / "repository")
