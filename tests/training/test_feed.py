from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
import torch

from weathermill.errors import ParameterError, ResourceError, SplitError, StoreError
from weathermill.tensors.shards import decode
from weathermill.training import feed as feed_module
from weathermill.training.feed import choose_tier, make_feed
from weathermill.training.memory import HostBuffer, available_host_memory

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TIERS = ["device", "pinned", "mapped"]


def expected(store, starts, steps):
    return np.stack([store.decoded(i, i + steps + 1) for i in starts])


@pytest.fixture
def gappy(tmp_path, make_store):
    splits = {"train": [(0, 9), (11, 31)], "validation": [(31, 40)]}
    return make_store(tmp_path / "gappy", splits=splits, dtype="float16")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("consecutive", [1, 4])
def test_every_tier_delivers_the_same_windows(gappy, device, tier, steps, consecutive):
    with make_feed(
        gappy, "train", steps, 4, device, tier, drop_last=False, consecutive=consecutive, threads=2
    ) as feed:
        assert feed.tier == tier
        for epoch in (0, 1):
            seen = []
            for batch in feed.epoch(epoch):
                assert batch.window.shape == (len(batch.starts), steps + 1, 2, 8, 16)
                assert batch.window.dtype == torch.float16
                assert batch.window.device.type == device
                np.testing.assert_array_equal(
                    batch.window.float().cpu().numpy(), expected(gappy, batch.starts, steps)
                )
                seen.extend(batch.starts)
            assert len(seen) == feed.windows()
            for i in seen:
                assert (i >= 0 and i + steps < 9) or (i >= 11 and i + steps < 31)


@pytest.mark.parametrize("reader", ["read", "memmap"])
def test_both_readers_deliver_the_same(gappy, reader):
    with make_feed(gappy, "train", 2, 4, "cpu", "mapped", reader=reader, threads=2) as feed:
        for batch in feed.epoch(0):
            np.testing.assert_array_equal(batch.window.float().numpy(), expected(gappy, batch.starts, 2))
    with pytest.raises(ParameterError, match="Reader 'mmap'"):
        make_feed(gappy, "train", reader="mmap")


def test_reader_is_chosen_by_measuring(tmp_path, make_store, monkeypatch):
    store = make_store(tmp_path / "big", n_times=80, height=180, width=360, steps_per_shard=20)
    read = store.read_into

    def slow(*args):
        time.sleep(0.02)
        read(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_into", slow)
        with make_feed(store, "train", 1, 20, "cpu", "mapped", threads=2) as feed:
            assert feed._source.reader == "memmap"
    monkeypatch.setattr(store, "read_range", lambda *args, out: time.sleep(0.02))
    with make_feed(store, "train", 1, 20, "cpu", "mapped", threads=2) as feed:
        assert feed._source.reader == "read"


@pytest.mark.parametrize("tier", TIERS)
def test_bfloat16_arrives_as_such(tmp_path, make_store, tier):
    store = make_store(tmp_path / "bf", dtype="bfloat16")
    with make_feed(store, "validation", 1, 4, "cpu", tier, shuffle=False) as feed:
        batch = next(iter(feed.epoch()))
        assert batch.window.dtype == torch.bfloat16
        raw = np.stack([store.read_range(i, i + 2) for i in batch.starts])
        np.testing.assert_array_equal(batch.window.float().numpy(), decode(raw, "bfloat16"))


@pytest.mark.parametrize("tier", TIERS)
def test_start_batch_resumes_the_order(gappy, tier):
    with make_feed(gappy, "train", 1, 3, "cpu", tier, seed=4) as feed:
        whole = [batch.starts.tolist() for batch in feed.epoch(2)]
        assert [batch.starts.tolist() for batch in feed.epoch(2, start_batch=3)] == whole[3:]
        assert len(whole) == feed.batches()
        assert list(feed.epoch(2, start_batch=len(whole))) == []


def test_fewer_steps_than_made_for(gappy):
    with make_feed(gappy, "train", 3, 4, "cpu", "mapped") as feed:
        batch = next(iter(feed.epoch(0, steps=1)))
        assert batch.window.shape[1] == 2
        assert feed.batches(1) > feed.batches(3)
        with pytest.raises(ParameterError, match="up to 3 steps; 4"):
            next(iter(feed.epoch(0, steps=4)))


def test_leaving_an_epoch_early_frees_the_threads(gappy):
    before = threading.active_count()
    with make_feed(gappy, "train", 1, 2, "cpu", "mapped", threads=2) as feed:
        for _ in range(3):
            for k, batch in enumerate(feed.epoch(0)):
                np.testing.assert_array_equal(batch.window.float().numpy(), expected(gappy, batch.starts, 1))
                if k == 1:
                    break
    assert threading.active_count() == before


@pytest.mark.parametrize("tier", TIERS)
def test_an_epoch_may_be_begun_before_it_is_needed(gappy, tier):
    with make_feed(gappy, "train", 1, 4, "cpu", tier, seed=2, threads=2) as feed:
        expected_order = [batch.starts.tolist() for batch in feed.epoch(1)]
        for _ in feed.epoch(0):
            pass
        ahead = feed.epoch(1)
        time.sleep(0.02)
        assert [batch.starts.tolist() for batch in ahead] == expected_order
        assert list(ahead) == []
        begun = feed.epoch(0)
        next(begun)
        other = feed.epoch(1)
        assert [batch.starts.tolist() for batch in other] == expected_order


def test_slow_consumer_never_sees_an_overwritten_window(gappy):
    with make_feed(gappy, "train", 1, 2, "cpu", "mapped", threads=2, prefetch=1) as feed:
        for batch in feed.epoch(0):
            time.sleep(0.005)
            np.testing.assert_array_equal(batch.window.float().numpy(), expected(gappy, batch.starts, 1))


def test_shard_truncated_under_way_stops_with_its_name(gappy):
    with make_feed(gappy, "train", 1, 2, "cpu", "mapped", threads=2) as feed:
        list(feed.epoch(0))
        os.truncate(gappy.path / "shards/00001.safetensors", 4200)
        with pytest.raises(StoreError, match=r"00001\.safetensors .* ends too early"):
            list(feed.epoch(1))


def test_tier_follows_size_and_budget(gappy):
    cpu = torch.device("cpu")
    assert choose_tier(2**30, cpu, host_budget=2**31)[0] == "pinned"
    tier, reason = choose_tier(2**31, cpu, host_budget=2**30)
    assert tier == "mapped"
    assert "2.00 GiB exceed the 1.00 GiB" in reason
    cuda = torch.device("cuda", 0)
    assert choose_tier(2**30, cuda, device_budget=2**30, host_budget=0)[0] == "device"
    assert choose_tier(2**30, cuda, device_budget=2**29, host_budget=2**30)[0] == "pinned"
    assert choose_tier(2**30, cuda, device_budget=2**29, host_budget=2**29)[0] == "mapped"
    with make_feed(gappy, "train", 1, 4, "cpu", host_budget=100) as feed:
        assert feed.tier == "mapped"
    with make_feed(gappy, "train", 1, 4, "cpu") as feed:
        assert feed.tier == "pinned"


def test_resident_tier_that_does_not_fit_says_what_would(gappy, monkeypatch):
    monkeypatch.setattr(feed_module, "available_host_memory", lambda: 1000)
    with pytest.raises(ResourceError, match=r"host memory are free[\s\S]*mapped"):
        make_feed(gappy, "train", 1, 4, "cpu", "pinned")


def test_small_split_gives_its_only_batch_and_says_so(gappy, caplog):
    with make_feed(gappy, "validation", 1, 8, "cpu"):
        assert not caplog.records
    with make_feed(gappy, "validation", 1, 100, "cpu") as feed:
        assert "has 8 windows of 1 steps, fewer than a batch of 100" in caplog.text
        assert [len(batch.starts) for batch in feed.epoch()] == [8]


def test_bad_requests(gappy):
    with pytest.raises(ParameterError, match="Tier 'disk'"):
        make_feed(gappy, "train", tier="disk")
    with pytest.raises(StoreError, match="no split 'holdout'"):
        make_feed(gappy, "holdout")
    with pytest.raises(SplitError, match="No window of 31"):
        make_feed(gappy, "train", steps=30)


def test_ranks_get_different_windows(gappy):
    seen = []
    for rank in range(2):
        with make_feed(gappy, "train", 1, 3, "cpu", rank=rank, world_size=2) as feed:
            seen.append({int(i) for batch in feed.epoch(1) for i in batch.starts})
    assert not seen[0] & seen[1]
    assert len(seen[0]) == len(seen[1])


def test_host_buffer_and_available_memory():
    buffer = HostBuffer((3, 5), np.dtype("<f4"), pin=False)
    assert buffer.array.shape == (3, 5)
    assert buffer.array.ctypes.data % 4096 == 0
    buffer.array[:] = 1
    buffer.close()
    assert 2**20 < available_host_memory() < 2**50


def test_memory_that_cannot_be_locked_falls_back(monkeypatch, caplog):
    calls = []
    ordinary = torch.empty

    class Runtime:
        status = 0

        def cudaHostRegister(self, address, nbytes, flags):  # noqa: N802
            calls.append(nbytes)
            return self.status

        def cudaHostUnregister(self, address):  # noqa: N802
            calls.append("unregistered")

    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    buffer = HostBuffer((4, 6), np.dtype("<f2"), pin=True)
    assert buffer.pinned
    buffer.close()
    assert calls == [48, "unregistered"]
    runtime.status = 801
    monkeypatch.setattr(torch, "zeros", _refuse_to_pin)
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: ordinary(*a, **k))
    buffer = HostBuffer((4, 6), np.dtype("<f2"), pin=True)
    buffer.array[:] = 1
    assert buffer.pinned
    assert buffer.array.shape == (4, 6)
    buffer.close()
    monkeypatch.setattr(torch, "empty", _refuse_to_pin)
    assert not HostBuffer((4, 6), np.dtype("<f2"), pin=True).pinned
    assert "could not be page-locked" in caplog.text


def _refuse_to_pin(*args, **kwargs):
    raise RuntimeError("out of memory")


@pytest.mark.gpu
@pytest.mark.parametrize("tier", ["pinned", "mapped"])
def test_cuda_slots_are_not_overwritten_while_in_use(gappy, tier):
    """The consumer queues slow work on each window; a slot freed too early would show in the sums."""
    spin = torch.randn(2048, 2048, device="cuda")
    with make_feed(gappy, "train", 1, 2, "cuda", tier, prefetch=2) as feed:
        sums, starts = [], []
        for batch in feed.epoch(0):
            for _ in range(20):
                spin = torch.tanh(spin @ spin)
            sums.append(batch.window.double().sum() + 0 * spin.sum().double())
            starts.append(batch.starts.copy())
        for total, start in zip(sums, starts, strict=True):
            assert total.item() == pytest.approx(expected(gappy, start, 1).astype(np.float64).sum(), rel=1e-9)
        assert feed.take_copy_seconds() > 0
