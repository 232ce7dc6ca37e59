"""Other dataset types, written whole; and outputs that are not what was written."""

from __future__ import annotations

import json

import dask
import numpy as np
import pytest
import xarray as xr
from kedro.io import DatasetError
from matplotlib.figure import Figure

from weathermill.datasets import WholeDataset, ZarrFieldsDataset
from weathermill.datasets.local import plain_error
from weathermill.errors import DamagedStoreError
from weathermill.incremental.records import Record, files_of, record_path, size_of, write_record


def keep_record(path):
    write_record(path, Record("f", "ingest", 0.0, 0.0, size_of(path), files=files_of(path)))


def test_what_is_saved_is_loaded_and_nothing_else_is_there(tmp_path):
    path = tmp_path / "deep" / "report.json"
    dataset = WholeDataset(
        filepath=str(path), dataset={"type": "json.JSONDataset", "save_args": {"indent": 1}}
    )
    dataset.save({"a": 1})
    assert dataset.load() == {"a": 1} == json.loads(path.read_text())
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    assert "json.JSONDataset" in str(dataset._describe())


def test_a_save_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.json"
    dataset = WholeDataset(filepath=str(path), dataset="json.JSONDataset")
    dataset.save({"a": 1})
    with pytest.raises(Exception, match="serializable"):
        dataset.save({"a": 2, "b": object()})
    assert dataset.load() == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_of_figures_is_replaced_as_one(tmp_path):
    path = tmp_path / "figures"
    dataset = WholeDataset(filepath=str(path), dataset="matplotlib.MatplotlibDataset")
    dataset.save({"old.png": Figure(), "both.png": Figure()})
    dataset.save({"new.png": Figure(), "both.png": Figure()})
    assert sorted(p.name for p in path.iterdir()) == ["both.png", "new.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["figures"]


def test_a_zarr_store_that_lost_a_chunk_is_refused_when_it_is_opened(tmp_path):
    path = tmp_path / "fields.zarr"
    store = ZarrFieldsDataset(filepath=str(path))
    fields = xr.Dataset({"t": (("time", "latitude"), np.ones((4, 3), np.float32))})
    store.save(fields)
    keep_record(path)
    assert float(store.load()["t"].sum()) == 12
    chunk = next(p for p in path.rglob("c/*/*") if p.is_file() and p.parts[-4] == "t")
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(DatasetError, match="is truncated") as caught:
        store.load()
    assert isinstance(plain_error(caught.value), DamagedStoreError)
    assert str(chunk.relative_to(path)) in str(caught.value)
    assert "force=ingest" in str(caught.value)
    chunk.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        store.load()
    record_path(path).unlink()
    store.load()


def test_memory_bounds_the_blocks_and_refuses_what_cannot_fit(tmp_path):
    fields = xr.Dataset({"t": (("time", "latitude"), np.ones((64, 1000), np.float32))})
    with dask.config.set({"weathermill.memory-bytes": 16 * 8 * 4000}):
        store = ZarrFieldsDataset(filepath=str(tmp_path / "a.zarr"), save_args={"chunk_bytes": 8000})
        store.save(fields)
    assert store.load().attrs["weathermill_shard_steps"] == 16
    with (
        dask.config.set({"weathermill.memory-bytes": 20000}),
        pytest.raises(DatasetError, match="one time step"),
    ):
        ZarrFieldsDataset(filepath=str(tmp_path / "b.zarr")).save(fields)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
