"""The Zarr store of fields: layout, streaming, atomicity."""

from __future__ import annotations

import json

import cftime
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from weathermill.datasets import ZarrArrayDataset, ZarrFieldsDataset
from weathermill.datasets.local import plain_error
from weathermill.datasets.zarr_fields import aligned, time_layout
from weathermill.errors import DamagedStoreError, ParameterError, StoreError
from weathermill.faults import known_error


def make_fields(steps=10, times=None):
    rng = np.random.default_rng(0)
    shape = (steps, 3, 4, 8)
    times = (
        np.datetime64("2001-01-01", "ns") + np.arange(steps) * np.timedelta64(6, "h")
        if times is None
        else times
    )
    return xr.Dataset(
        {
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                rng.normal(280, 1, shape).astype(np.float32),
            ),
            "2m_temperature": (
                ("time", "latitude", "longitude"),
                rng.normal(280, 1, (steps, 4, 8)).astype(np.float32),
            ),
            "land_sea_mask": (("latitude", "longitude"), rng.random((4, 8), dtype=np.float32)),
        },
        coords={
            "time": times,
            "level": [500.0, 700.0, 850.0],
            "latitude": [67.5, 22.5, -22.5, -67.5],
            "longitude": np.arange(8) * 45.0,
        },
        attrs={"title": "test"},
    )


def dataset(path, **save_args):
    return ZarrFieldsDataset(filepath=str(path), save_args=save_args)


@pytest.mark.parametrize("save_args", [{}, {"chunk_bytes": 400, "shard_bytes": 2000}])
def test_round_trip_is_exact(tmp_path, save_args):
    fields = make_fields()
    store = dataset(tmp_path / "fields.zarr", **save_args)
    store.save(fields)
    loaded = store.load()
    assert all(v.chunks is not None for v in loaded.data_vars.values())
    loaded.attrs.pop("weathermill_shard_steps")
    xr.testing.assert_identical(loaded.compute(), fields)


def test_chunks_align_with_shards(tmp_path):
    store = dataset(tmp_path / "fields.zarr", chunk_bytes=800, shard_bytes=2200)
    store.save(make_fields())
    chunk, shard = time_layout(make_fields(), chunk_bytes=800, shard_bytes=2200)
    assert (chunk, shard) == (2, 4)
    assert store.load()["temperature"].chunks[0] == (4, 4, 2)


@pytest.mark.parametrize("name", ["none", "zstd-3", "blosc-lz4-5-shuffle", "blosc-zstd-3-bitshuffle"])
def test_compression_is_lossless_and_by_name(tmp_path, name):
    fields = make_fields()
    store = dataset(tmp_path / "fields.zarr", compression=name)
    store.save(fields)
    np.testing.assert_array_equal(store.load()["temperature"], fields["temperature"])
    codecs = json.loads((tmp_path / "fields.zarr" / "temperature" / "zarr.json").read_text())["codecs"]
    inner = [codec["name"] for codec in codecs[0]["configuration"]["codecs"]]
    assert inner == ["bytes", *([] if name == "none" else [name.split("-")[0]]), "crc32c"]


def test_an_unknown_compression_is_refused(tmp_path):
    with pytest.raises(Exception) as caught:
        dataset(tmp_path / "fields.zarr", compression="gzip").save(make_fields())
    error = plain_error(caught.value)
    assert isinstance(error, ParameterError) and "gzip" in error.what and "catalog" in error.remedy


def test_plain_xarray_opens_it_without_a_warning(tmp_path, recwarn):
    fields = make_fields()
    dataset(tmp_path / "fields.zarr").save(fields)
    plain = xr.open_zarr(tmp_path / "fields.zarr")
    assert set(plain.variables) == set(fields.variables)
    xr.testing.assert_equal(plain.compute(), fields)
    assert not [w for w in recwarn if "onsolidated" in str(w.message) or "not recognized" in str(w.message)]


@pytest.mark.parametrize(
    ("block", "before", "after"),
    [
        (4, (2, 6), (2, 4)),
        (4, (3, 9), (2, 8)),
        (12, (2, 5), (2, 4)),
        (13, (2, 6), (2, 6)),
        (7, (3, 21), (3, 21)),
        (1, (4, 8), (4, 8)),
    ],
)
def test_shards_are_whole_blocks_or_whole_parts_of_blocks(block, before, after):
    assert aligned(make_fields(60).chunk(time=block), *before) == after
    chunk, shard = after
    assert shard % chunk == 0 and (shard % block == 0 or block % shard == 0 or after == before)


def test_no_block_is_computed_twice(tmp_path):
    computed = []

    def note(block, block_info=None):
        if block_info:
            computed.append(block_info[0]["chunk-location"][0])
        return block

    fields = make_fields(24).chunk(time=2)[["temperature"]]
    noted = fields["temperature"].copy(data=da.map_blocks(note, fields["temperature"].data, dtype=np.float32))
    # Seven steps would make a shard.
    store = dataset(tmp_path / "fields.zarr", chunk_bytes=400, shard_bytes=3 * 4 * 8 * 4 * 7)
    store.save(fields.assign(temperature=noted))
    assert sorted(computed) == list(range(12))
    xr.testing.assert_equal(store.load().compute(), fields.compute())


def test_other_calendars_stay(tmp_path):
    times = [cftime.DatetimeNoLeap(2001, 2, 28, 6 * i) for i in range(4)] + [
        cftime.DatetimeNoLeap(2001, 3, 1)
    ]
    store = dataset(tmp_path / "fields.zarr")
    store.save(make_fields(5, times))
    assert list(store.load()["time"].values) == times


def test_an_error_while_streaming_keeps_the_old_store(tmp_path):
    store = dataset(tmp_path / "fields.zarr", chunk_bytes=400, shard_bytes=400)
    old = make_fields()
    store.save(old)

    def broken(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 2:
            raise RuntimeError("unreadable chunk")
        return block

    bad = make_fields().chunk({"time": 1})
    lazy = da.map_blocks(broken, bad["2m_temperature"].data, dtype=np.float32)
    with pytest.raises(Exception, match="unreadable chunk"):
        store.save(bad.assign({"2m_temperature": (("time", "latitude", "longitude"), lazy)}))
    assert [p.name for p in tmp_path.iterdir()] == ["fields.zarr"]
    np.testing.assert_array_equal(store.load()["2m_temperature"].values, old["2m_temperature"].values)


def test_a_missing_store_says_what_makes_it(tmp_path):
    store = ZarrFieldsDataset(filepath=str(tmp_path / "none.zarr"), load_args={"made_by": "ingest"})
    with pytest.raises(Exception, match="kedro run --pipelines=ingest"):
        store.load()


def test_a_damaged_store_is_named(tmp_path):
    path = tmp_path / "fields.zarr"
    store = dataset(path)
    store.save(make_fields())
    (path / "temperature" / "zarr.json").write_text("{")
    with pytest.raises(Exception) as caught:
        store.load()
    cause = caught.value if isinstance(caught.value, StoreError) else caught.value.__cause__
    assert isinstance(cause, StoreError) and "fields.zarr" in str(cause)


def test_an_array_with_names_round_trips_without_warnings(tmp_path, recwarn):
    array = (
        make_fields()["temperature"]
        .rename(level="channel")
        .assign_coords(channel=["t_500", "t_700", "t_850"])
    )
    store = ZarrArrayDataset(filepath=str(tmp_path / "normalised.zarr"))
    store.save(array)
    loaded = store.load()
    assert loaded.chunks is not None
    xr.testing.assert_equal(loaded.compute(), array)
    assert not [w for w in recwarn if "Zarr" in str(w.message)]


@pytest.mark.parametrize("compression", ["blosc-zstd-3-bitshuffle", "zstd-1", "none"])
@pytest.mark.parametrize("name", ["t", "orography"])
def test_a_flipped_bit_is_never_read_as_another_value(tmp_path, compression, name):
    """Wherever it lies in a shard: without a checksum of every chunk, most are decoded to other values."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2000-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    values = rng.normal(size=(6, 8, 16)).astype(np.float32)
    fields = xr.Dataset({"t": (("time", "latitude", "longitude"), values)}, coords={"time": times})
    fields["orography"] = fields["t"].isel(time=0, drop=True)
    dataset = ZarrFieldsDataset(
        filepath=str(tmp_path / "fields.zarr"), save_args={"compression": compression, "chunk_bytes": 1024}
    )
    dataset.save(fields)
    (shard,) = [path for path in (tmp_path / "fields.zarr" / name / "c").rglob("*") if path.is_file()]
    whole = shard.read_bytes()
    for at in rng.integers(0, len(whole), 25):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        with pytest.raises((RuntimeError, ValueError)) as caught:
            dataset.load()[name].load()
        error = known_error(caught.value)
        assert isinstance(error, DamagedStoreError), caught.value
        assert "weathermill verify" in error.remedy
