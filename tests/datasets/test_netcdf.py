"""NetCDF files that fit in memory."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.datasets import NetCDFDataset
from weathermill.datasets.local import plain_error
from weathermill.errors import StoreError, UnreadableSourceError


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
