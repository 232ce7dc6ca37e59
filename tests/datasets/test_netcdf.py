"""NetCDF files that fit in memory."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from weathermill.datasets import NetCDFDataset, netcdf
from weathermill.datasets.local import plain_error
from weathermill.errors import StoreError, UnreadableSourceError, UnwritableOutputError


def test_round_trip(tmp_path):
    data = xr.Dataset({"mean": ("channel", np.array([1e-7, 2.0]))}, coords={"channel": ["q_50", "t_850"]})
    entry = NetCDFDataset(filepath=str(tmp_path / "deep" / "statistics.nc"))
    entry.save(data)
    xr.testing.assert_identical(entry.load(), data)


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "statistics.nc"
    entry = NetCDFDataset(filepath=str(path))
    entry.save(xr.Dataset({"mean": ("channel", np.arange(1000.0))}))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Exception) as caught:
        entry.load()
    assert isinstance(plain_error(caught.value), UnreadableSourceError)
    assert "statistics.nc" in str(plain_error(caught.value))


def test_missing_file_says_what_makes_it(tmp_path):
    entry = NetCDFDataset(filepath=str(tmp_path / "s.nc"), load_args={"made_by": "normalise"})
    with pytest.raises(Exception) as caught:
        entry.load()
    assert isinstance(plain_error(caught.value), StoreError)
    assert "--pipelines=normalise" in str(caught.value)


@pytest.mark.parametrize("large", [False, True])
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path, monkeypatch, large):
    """HDF5 itself would crash the process at closing the file."""
    dataset = NetCDFDataset(filepath=str(tmp_path / "a.nc"))
    dataset.save(xr.Dataset({"a": ("x", np.arange(3.0))}))
    full = OSError(errno.ENOSPC, "No space left on device")
    if large:
        monkeypatch.setattr(netcdf, "_IN_MEMORY", 0)
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    else:
        monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(Exception, match="WM501") as caught:
        dataset.save(xr.Dataset({"a": ("x", np.zeros(3))}))
    assert isinstance(plain_error(caught.value), UnwritableOutputError)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]
    np.testing.assert_array_equal(dataset.load()["a"], np.arange(3.0))


def test_what_is_too_large_for_memory_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(netcdf, "_IN_MEMORY", 0)
    dataset = NetCDFDataset(filepath=str(tmp_path / "a.nc"))
    dataset.save(xr.Dataset({"a": ("x", np.arange(3.0))}))
    np.testing.assert_array_equal(dataset.load()["a"], np.arange(3.0))


def test_a_cluster_does_not_come_between(tmp_path):
    distributed = pytest.importorskip("distributed")
    data = xr.Dataset({"a": ("x", np.arange(3.0))}).chunk(x=2)
    with distributed.Client(n_workers=1, processes=False, dashboard_address=None):
        dataset = NetCDFDataset(filepath=str(tmp_path / "a.nc"))
        dataset.save(data)
        np.testing.assert_array_equal(dataset.load()["a"], np.arange(3.0))
