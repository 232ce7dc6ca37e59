from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors import safe_open

from weathermill.errors import GridError, MissingDataError, ParameterError, StoreError, UnwritableOutputError
from weathermill.tensors import shards
from weathermill.tensors.store import TensorStore, TensorWriter


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_round_trip(tmp_path, make, dtype):
    values = make.store(tmp_path / "store", dtype=dtype)
    store = TensorStore(tmp_path / "store", verify="checksums")
    rounded = torch.from_numpy(values).to(store.torch_dtype).float().numpy()
    np.testing.assert_array_equal(store.decoded(0, len(store)), rounded)
    assert store.state_shape == (3, 5, 8)
    assert store.grid_shape == (5, 8)
    assert store.nbytes == 23 * 3 * 5 * 8 * store.numpy_dtype.itemsize
    given = make.description()
    np.testing.assert_array_equal(store.latitude, given["latitude"])
    np.testing.assert_array_equal(store.times, given["times"])
    np.testing.assert_array_equal(store.static, given["static"])
    assert store.channels == given["channels"]
    assert store.splits == given["splits"]
    assert store.manifest["provenance"] == {"source": "made by a test"}
    assert store.mean.tolist() == [250.0, 280.0, 300.0, 0.0]
    assert store.std.tolist() == [10.0, 12.0, 100.0, 1.0]


def test_read_only_and_strided_blocks_are_taken(tmp_path, make, recwarn):
    values = make.fields().transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    values.flags.writeable = False
    make.store(tmp_path / "store", values, dtype="float16")
    np.testing.assert_allclose(TensorStore(tmp_path / "store").decoded(0, 23), values, atol=2e-3)
    assert not [w for w in recwarn if "not writable" in str(w.message)]


def test_reading_is_a_mapped_view_or_a_copy_into_out(tmp_path, make):
    values = make.store(tmp_path / "store", dtype="float32")
    store = TensorStore(tmp_path / "store")
    view = store.read(7)
    assert not view.flags.owndata
    assert isinstance(view.base, np.memmap) or isinstance(view, np.memmap)
    np.testing.assert_array_equal(view, values[7])
    np.testing.assert_array_equal(store.read(-1), values[-1])
    out = np.empty_like(values[7])
    assert store.read(7, out=out) is out
    np.testing.assert_array_equal(out, values[7])
    np.testing.assert_array_equal(store.read_range(3, 12), values[3:12])
    buffer = np.empty_like(values[3:17])
    store.read_into(3, 17, buffer)
    np.testing.assert_array_equal(buffer, values[3:17])
    with pytest.raises(IndexError):
        store.read(23)


def test_physical_units(tmp_path, make):
    values = make.store(tmp_path / "store", dtype="float32")
    store = TensorStore(tmp_path / "store")
    expected = values[2:9].astype(np.float64) * store.std[:3, None, None] + store.mean[:3, None, None]
    np.testing.assert_allclose(store.physical(2, 9), expected, rtol=1e-7)


def test_shards_are_page_aligned_safetensors(tmp_path, make):
    values = make.store(tmp_path / "store", dtype="float32")
    path = tmp_path / "store/shards/00001.safetensors"
    with safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("fields"), values[5:10])
    assert shards.read_header(path).offset % 4096 == 0
    assert path.stat().st_size == shards.shard_size((5, 3, 5, 8), "float32")


def test_pending_writes_resume(tmp_path, make):
    values = make.fields()
    writer = TensorWriter(tmp_path / "store", **make.description())
    assert writer.pending() == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]
    writer.write(5, values[5:10])
    writer.write(20, values[20:23])
    kept = (tmp_path / "store.partial/shards/00001.safetensors").stat().st_mtime_ns

    again = TensorWriter(tmp_path / "store", **make.description())
    assert again.pending() == [(0, 5), (10, 15), (15, 20)]
    with pytest.raises(StoreError, match="3 of 5 shards are not written"):
        again.finish()
    for start, stop in again.pending():
        again.write(start, values[start:stop])
    again.finish()
    assert (tmp_path / "store/shards/00001.safetensors").stat().st_mtime_ns == kept
    assert sorted(p.name for p in (tmp_path / "store/shards").iterdir()) == [
        f"{k:05d}.safetensors" for k in range(5)
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]
    TensorStore(tmp_path / "store", verify="checksums")


def test_damaged_partial_shard_is_pending_again(tmp_path, make):
    values = make.fields()
    writer = TensorWriter(tmp_path / "store", **make.description())
    for start, stop in writer.pending():
        writer.write(start, values[start:stop])
    flip(tmp_path / "store.partial/shards/00002.safetensors", 5000)
    (tmp_path / "store.partial/shards/00003.safetensors").unlink()
    assert TensorWriter(tmp_path / "store", **make.description()).pending() == [(10, 15), (15, 20)]


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"dtype": "float32"}, {"mean": np.zeros(3)}])
def test_other_identity_starts_anew(tmp_path, make, change):
    writer = TensorWriter(tmp_path / "store", **make.description())
    writer.write(0, make.fields()[:5])
    assert len(TensorWriter(tmp_path / "store", **make.description(**change)).pending()) == 5


def test_old_store_stays_until_the_new_one_is_complete(tmp_path, make):
    make.store(tmp_path / "store", fingerprint="old")
    new = make.fields(seed=9)
    writer = TensorWriter(tmp_path / "store", **make.description(fingerprint="new"))
    for start, stop in writer.pending():
        assert TensorStore(tmp_path / "store").fingerprint == "old"
        writer.write(start, new[start:stop])
    writer.finish()
    store = TensorStore(tmp_path / "store", verify="checksums")
    assert store.fingerprint == "new"
    np.testing.assert_allclose(store.decoded(0, 23), new, atol=2e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_crash_between_the_two_renames_is_mended(tmp_path, make, monkeypatch):
    make.store(tmp_path / "store", fingerprint="old")
    writer = TensorWriter(tmp_path / "store", **make.description(fingerprint="new"))
    for start, stop in writer.pending():
        writer.write(start, make.fields()[start:stop])
    import weathermill.tensors.writer as module

    def crash(new, target):
        target.rename(target.with_name(target.name + ".replaced"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "replace_folder", crash)
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
    with pytest.raises(StoreError, match="was not finished"):
        TensorStore(tmp_path / "store")
    again = TensorWriter(tmp_path / "store", **make.description(fingerprint="new"))
    assert TensorStore(tmp_path / "store").fingerprint == "old"
    assert again.pending() == []
    again.finish()
    assert TensorStore(tmp_path / "store", verify="checksums").fingerprint == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_write_checks_range_and_shape(tmp_path, make):
    writer = TensorWriter(tmp_path / "store", **make.description())
    with pytest.raises(StoreError, match="No shard begins at time index 3"):
        writer.write(3, make.fields()[3:8])
    with pytest.raises(StoreError, match="needs an array of shape"):
        writer.write(5, make.fields()[5:9])


def test_missing_values_name_channel_and_time(tmp_path, make):
    values = make.fields()
    values[7, 1, 2, 3] = np.nan
    writer = TensorWriter(tmp_path / "store", **make.description())
    with pytest.raises(MissingDataError, match=r"'temperature_850' is missing.*1970-01-02T18:00:00.*2\.5 %"):
        writer.write(5, values[5:10])
    assert (5, 10) in writer.pending()
    allowed = TensorWriter(tmp_path / "other", **make.description(gaps=["temperature_850"]))
    allowed.write(5, values[5:10])
    values[8, 0, 0, 0] = -np.inf
    with pytest.raises(MissingDataError, match=r"'temperature_500' is infinite at 1970-01-03T00:00:00"):
        allowed.write(5, values[5:10])
    values[8, 0, 0, 0] = np.nan
    with pytest.raises(MissingDataError, match=r"'temperature_500' is missing"):
        allowed.write(5, values[5:10])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_missing_values_are_kept_and_counted_over_the_training_times(tmp_path, make, dtype):
    values = make.fields()
    values[:, 1, 0] = np.nan
    values[:6, 1, 1, 2] = np.nan
    values[12:, 1, 2, 3] = np.nan
    values[:, 2, 4, 4] = np.nan
    make.store(tmp_path / "store", values, dtype=dtype, gaps=["temperature_850", "insolation"])
    store = TensorStore(tmp_path / "store", verify="checksums")
    read = store.decoded(0, 23)
    np.testing.assert_array_equal(np.isnan(read), np.isnan(values))
    assert store.channels.may_be_missing == [1, 2]
    expected = np.isnan(values[:12, 1:3]).mean(axis=0)
    np.testing.assert_array_equal(store.missing_share, expected.astype(np.float32))
    assert (store.missing_share[0, 0] == 1.0).all() and store.missing_share[0, 1, 2] == 0.5
    assert all(np.isfinite(share) for share in store.rounding.values())


def test_stores_without_gaps_say_nothing_of_them(tmp_path, make):
    make.store(tmp_path / "store")
    store = TensorStore(tmp_path / "store")
    assert store.missing_share is None
    assert not any("may_be_missing" in channel for channel in store.manifest["channels"])


def test_values_beyond_float16_are_refused(tmp_path, make):
    values = make.fields()
    values[1, 2] = 1e5
    with pytest.raises(StoreError, match=r"'insolation' is beyond the range of float16"):
        TensorWriter(tmp_path / "store", **make.description()).write(0, values[:5])
    values[1, 2] = 65519.0
    TensorWriter(tmp_path / "store", **make.description()).write(0, values[:5])
    TensorWriter(tmp_path / "other", **make.description(dtype="bfloat16")).write(0, values[:5])


def test_contradictory_descriptions_are_refused(tmp_path, make):
    with pytest.raises(StoreError, match="Static fields have shape"):
        TensorWriter(tmp_path / "s", **make.description(static=None))
    with pytest.raises(StoreError, match=r"'std' has shape \(2,\)"):
        TensorWriter(tmp_path / "s", **make.description(std=np.ones(2)))
    with pytest.raises(GridError, match="Area weights"):
        TensorWriter(tmp_path / "s", **make.description(area_weights=np.ones(4)))
    with pytest.raises(ParameterError, match="float8"):
        TensorWriter(tmp_path / "s", **make.description(dtype="float8"))
    with pytest.raises(StoreError, match="outside the store's times"):
        TensorWriter(tmp_path / "s", **make.description(splits={"train": [(0, 99)]}))


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_flipped_byte_is_found_by_checksums(tmp_path, make):
    make.store(tmp_path / "store")
    flip(tmp_path / "store/shards/00003.safetensors", 4096 + 100)
    TensorStore(tmp_path / "store")
    with pytest.raises(StoreError, match=r"shards/00003\.safetensors of the tensor store is damaged"):
        TensorStore(tmp_path / "store", verify="checksums")


def test_truncated_shard_is_named_at_opening(tmp_path, make):
    make.store(tmp_path / "store")
    path = tmp_path / "store/shards/00002.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(StoreError, match=r"00002\.safetensors .* truncated"):
        TensorStore(tmp_path / "store")
    with pytest.raises(StoreError, match=r"00002\.safetensors is truncated"):
        TensorStore(tmp_path / "store", verify=None).read(12)


def test_shard_truncated_under_way_raises_from_direct_reads(tmp_path, make):
    make.store(tmp_path / "store")
    store = TensorStore(tmp_path / "store")
    out = np.empty((2, *store.state_shape), store.numpy_dtype)
    store.read_into(11, 13, out)
    os.truncate(tmp_path / "store/shards/00002.safetensors", 4096 + 300)
    with pytest.raises(StoreError, match="ends too early"):
        store.read_into(11, 13, out)
    (tmp_path / "store/shards/00002.safetensors").unlink()
    with pytest.raises(StoreError, match=r"00002\.safetensors .* cannot be read: No such file"):
        store.read_into(11, 13, out)


def test_swapped_shards_are_named_at_opening(tmp_path, make):
    make.store(tmp_path / "store")
    folder = tmp_path / "store/shards"
    (folder / "00000.safetensors").rename(folder / "x")
    (folder / "00001.safetensors").rename(folder / "00000.safetensors")
    (folder / "x").rename(folder / "00001.safetensors")
    with pytest.raises(StoreError, match=r"00000\.safetensors .* another shard: .* time index 5"):
        TensorStore(tmp_path / "store")


def test_missing_shard_is_named(tmp_path, make):
    make.store(tmp_path / "store")
    (tmp_path / "store/shards/00004.safetensors").unlink()
    with pytest.raises(StoreError, match=r"00004\.safetensors .* is missing"):
        TensorStore(tmp_path / "store")


def test_damaged_arrays_and_manifest(tmp_path, make):
    make.store(tmp_path / "store")
    flip(tmp_path / "store/arrays.safetensors", (tmp_path / "store/arrays.safetensors").stat().st_size - 2)
    with pytest.raises(StoreError, match=r"arrays\.safetensors .* damaged"):
        TensorStore(tmp_path / "store", verify=None)
    manifest = tmp_path / "store/manifest.json"
    content = json.loads(manifest.read_text())
    content["time_step"] = 1
    manifest.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="seal"):
        TensorStore(tmp_path / "store")
    manifest.write_text("{")
    with pytest.raises(StoreError, match="manifest of the tensor store is damaged"):
        TensorStore(tmp_path / "store")


def test_absent_and_unfinished_stores(tmp_path, make):
    with pytest.raises(StoreError, match="does not exist"):
        TensorStore(tmp_path / "store")
    TensorWriter(tmp_path / "store", **make.description())
    with pytest.raises(StoreError, match="was not finished"):
        TensorStore(tmp_path / "store")


def test_unwritable_target(tmp_path, make):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnwritableOutputError, match="cannot be written"):
        TensorWriter(tmp_path / "file/store", **make.description())


def test_full_disk_loses_nothing(tmp_path, make, monkeypatch):
    values = make.fields()
    writer = TensorWriter(tmp_path / "store", **make.description())
    writer.write(0, values[:5])

    def full(file, data):
        file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_write_all", full)
        with pytest.raises(UnwritableOutputError, match="disk is full"):
            writer.write(5, values[5:10])
    assert not list((tmp_path / "store.partial/shards").glob("*.partial"))
    assert writer.pending()[0] == (5, 10)
    for start, stop in TensorWriter(tmp_path / "store", **make.description()).pending():
        writer.write(start, values[start:stop])
    writer.finish()
    np.testing.assert_allclose(TensorStore(tmp_path / "store").decoded(0, 23), values, atol=2e-3)


def test_disk_space_is_checked_first(tmp_path, make, monkeypatch):
    from weathermill.tensors import writer as module

    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UnwritableOutputError, match=r"needs 0\.00 GiB and 0\.00 GiB of disk are free"):
        TensorWriter(tmp_path / "store", **make.description(n_times=100))
    assert not (tmp_path / "store.partial").exists()


def test_rounding_is_measured_against_the_tendency(tmp_path, make, caplog):
    values = make.fields()
    make.store(tmp_path / "half", values)
    store = TensorStore(tmp_path / "half")
    error = store.decoded(0, 23) - values
    for c, name in enumerate(["temperature_500", "temperature_850", "insolation"]):
        expected = (
            np.sqrt((error[:, c].astype(np.float64) ** 2).mean()) * store.std[c] / store.tendency_std[c]
        )
        assert store.rounding[name] == pytest.approx(expected, rel=1e-4)
    assert "Rounding to" not in caplog.text
    make.store(tmp_path / "coarse", values, tendency_std=np.array([0.01, 2.0, 1e-9]))
    assert "changes 1 channel(s) by more than 10 %" in caplog.text
    assert "temperature_500" in caplog.text
    make.store(tmp_path / "single", values, dtype="float32")
    assert set(TensorStore(tmp_path / "single").rounding.values()) == {0.0}


def test_many_threads_read_the_same(tmp_path, make):
    values = make.store(tmp_path / "store", dtype="float32", steps_per_shard=2)
    store = TensorStore(tmp_path / "store")
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        out = np.empty((3, *store.state_shape), np.float32)
        for start in rng.integers(0, 20, 50):
            store.read_into(start, start + 3, out)
            if not (out == values[start : start + 3]).all() or not (store.read(start) == values[start]).all():
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_more_shards_than_open_files(tmp_path, make):
    resource = pytest.importorskip("resource")
    values = make.store(tmp_path / "store", n_times=400, steps_per_shard=1, dtype="float32")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (240, limits[1]))
    try:
        store = TensorStore(tmp_path / "store")
        out = np.empty((2, *store.state_shape), np.float32)
        for i in range(399):
            np.testing.assert_array_equal(store.read(i), values[i])
            store.read_into(i, i + 2, out)
            np.testing.assert_array_equal(out, values[i : i + 2])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_store_and_writer_travel_to_other_processes(tmp_path, make):
    values = make.fields()
    writer = pickle.loads(pickle.dumps(TensorWriter(tmp_path / "store", **make.description())))
    for start, stop in writer.pending():
        writer.write(start, values[start:stop])
    writer.finish()
    store = TensorStore(tmp_path / "store")
    store.read_into(0, 1, np.empty((1, *store.state_shape), store.numpy_dtype))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(4), store.read(4))


def test_windows_by_split(tmp_path, make):
    make.store(tmp_path / "store")
    store = TensorStore(tmp_path / "store")
    assert store.windows("validation", 2).tolist() == [12, 13, 14]
    with pytest.raises(StoreError, match="no split 'holdout'; there are"):
        store.windows("holdout", 1)


def test_float16_rounds_to_nearest_even_and_bfloat16_matches_torch():
    values = np.float32([1.0, 1.00048828125, -3.3333333, 65504.0, 1e-7, np.nan, np.inf])
    for dtype in ("float16", "bfloat16"):
        tensor = shards.as_tensor(shards.encode(values, dtype), dtype)
        expected = torch.from_numpy(values).to(tensor.dtype)
        assert torch.equal(tensor.nan_to_num(7), expected.nan_to_num(7))
        np.testing.assert_array_equal(
            shards.decode(shards.encode(values, dtype), dtype), expected.float().numpy()
        )


KILLED = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from conftest import description, fields
from weathermill.tensors.store import TensorWriter
print("ready", flush=True)
values = fields(2000)
writer = TensorWriter({path!r}, **description(n_times=2000))
for start, stop in writer.pending():
    writer.write(start, values[start:stop])
writer.finish()
"""


def test_killed_write_goes_on(tmp_path, make):
    import time
    from pathlib import Path

    path = tmp_path / "store"
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    counts = []
    for delay in (0.15, 0.3):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        assert not path.exists()
        counts.append(len(list(path.with_name("store.partial").glob("shards/*.json"))))
    values = make.fields(2000)
    writer = TensorWriter(path, **make.description(n_times=2000))
    pending = writer.pending()
    assert 0 < len(pending) < 400
    assert len(pending) >= 400 - counts[-1]
    for start, stop in pending:
        writer.write(start, values[start:stop])
    writer.finish()
    np.testing.assert_allclose(TensorStore(path, verify="checksums").decoded(0, 2000), values, atol=2e-3)
