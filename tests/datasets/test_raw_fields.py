"""Fingerprints of raw files."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr

from weathermill.datasets import RawFieldsDataset


@pytest.mark.parametrize("full", [False, True])
def test_a_byte_between_the_samples_is_seen_on_request(tmp_path, full):
    path = tmp_path / "raw.nc"
    values = np.random.default_rng(0).normal(size=(40, 200, 200)).astype(np.float32)
    xr.Dataset({"t": (("time", "latitude", "longitude"), values)}).to_netcdf(path, engine="h5netcdf")
    dataset = RawFieldsDataset(filepath=str(path), load_args={"full_fingerprint": full})
    before, status = dataset.fingerprint(), path.stat()
    with path.open("r+b") as file:
        file.seek(2**20 + 2**16 + 100)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (dataset.fingerprint() != before) is full


def test_storage_options_and_credentials_are_not_described():
    dataset = RawFieldsDataset(
        filepath="https://me:secret1@host/x.zarr",
        load_args={"storage_options": {"token": "secret2"}},
        credentials={"key": "secret3"},
    )
    assert "secret" not in str(dataset) and "host/x.zarr" in str(dataset)


def test_how_files_are_opened_counts(tmp_path):
    path = tmp_path / "raw.nc"
    xr.Dataset({"t": ("time", [0.0, 1.0])}).to_netcdf(path, engine="h5netcdf")
    xr.Dataset({"t": ("time", [2.0, 3.0])}).to_netcdf(path, engine="h5netcdf", group="second", mode="a")
    found = [
        RawFieldsDataset(filepath=str(path), load_args=arguments).fingerprint()
        for arguments in ({}, {"full_fingerprint": False}, {"group": "second"}, {"engine": "h5netcdf"})
    ]
    assert found[0] == found[1] and len(set(found)) == 3
