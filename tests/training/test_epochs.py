"""Epochs that follow each other: the next one's first batches are read while the last ones are worked on."""

from __future__ import annotations

import random
import threading
import time
from collections import deque

import numpy as np
import pytest
import torch

from weathermill.training import prefetch
from weathermill.training.feed import make_feed
from weathermill.training.prefetch import MappedReader
from weathermill.training.resident import PinnedEpoch
from weathermill.training.sampling import Sampling, plan_reads

TIERS = ["device", "pinned", "mapped"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
STEPS = [1, 3, 1, 2]


@pytest.fixture
def gappy(tmp_path, make_store):
    splits = {"train": [(0, 9), (11, 40)]}
    return make_store(tmp_path / "gappy", splits=splits, dtype="float16")


def truth(store, starts, steps):
    return np.stack([store.decoded(int(i), int(i) + steps + 1) for i in starts])


class Event:
    """Stands in for a CUDA event: a copy that takes a while."""

    def __init__(self, seconds=0.0):
        self.at = time.monotonic() + seconds

    def query(self):
        return time.monotonic() >= self.at

    def synchronize(self):
        time.sleep(max(0.0, self.at - time.monotonic()))


class DeviceSlot:
    """Stands in for a buffer on the device: it must not be written to while it is handed out."""

    def __init__(self, shape, states, store):
        self.tensor = torch.zeros((states, *shape), dtype=store.torch_dtype)
        self.array = self.tensor.numpy()
        self.index = torch.zeros(states, dtype=torch.int64)
        self.in_use = False

    def hand_over(self):
        self.in_use = True

    def release(self):
        self.in_use = False


class CopyingReader(MappedReader):
    """A mapped tier with a device that is none: the order of all that CUDA does, on the CPU."""

    def __init__(self, store, states, threads=3, ahead=2):
        super().__init__(store, states, torch.device("cpu"), threads, ahead, "read")
        self.cuda = True
        self.device_slots = [DeviceSlot(store.state_shape, states, store) for _ in range(3)]
        self._refill()

    def copy(self, source, target, plan):
        assert not target.in_use
        target.tensor[: plan.states] = source.tensor[: plan.states]
        if plan.index is not None:
            target.index[: plan.index.size] = source.index[: plan.index.size]
        source.copied = Event(random.Random(0).uniform(0, 0.003))

    def close(self):
        self.cuda = False
        super().close()


def orders(store, epochs, batch=4, consecutive=1):
    sampling = Sampling(tuple(store.splits["train"]), batch, True, 2, True, consecutive)
    return [sampling.epoch(e, STEPS[e % len(STEPS)], 0) for e in range(epochs)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("consecutive", [1, 3])
def test_epochs_that_follow_each_other_are_those_that_begin_alone(gappy, device, tier, consecutive):
    options = {"seed": 2, "threads": 2, "consecutive": consecutive}
    with make_feed(gappy, "train", 3, 4, device, tier, **options) as feed:
        alone = [[b.starts.tolist() for b in feed.epoch(e, steps=STEPS[e])] for e in range(4)]
        ahead = feed.epoch(0, steps=STEPS[0])
        for e in range(4):
            batches, seen = ahead, []
            if e < 3:
                ahead = feed.epoch(e + 1, steps=STEPS[e + 1], after=True)
            for batch in batches:
                seen.append(batch.starts.tolist())
                window = batch.window.float().cpu().numpy()
                np.testing.assert_array_equal(window, truth(gappy, batch.starts, STEPS[e]))
            assert seen == alone[e]
        assert list(ahead) == []


@pytest.mark.parametrize("consecutive", [1, 3])
@pytest.mark.parametrize("pause", [0.0, 0.004])
def test_copies_to_a_device_keep_their_order_over_epochs(gappy, consecutive, pause):
    reader = CopyingReader(gappy, 16)
    plans = orders(gappy, 6, consecutive=consecutive)
    rng = random.Random(1)
    ahead = reader.epoch(plans[0], STEPS[0])
    for e in range(6):
        batches = ahead
        if e < 5:
            ahead = reader.epoch(plans[e + 1], STEPS[(e + 1) % 4], after=True)
        for k, (starts, window) in enumerate(batches):
            np.testing.assert_array_equal(starts, plans[e][k])
            time.sleep(rng.uniform(0, pause))
            np.testing.assert_array_equal(window.float().numpy(), truth(gappy, starts, STEPS[e % 4]))
        assert k + 1 == len(plans[e])
        # What a validation takes: both epochs stand.
        time.sleep(5 * pause)
    reader.close()


def test_the_next_epoch_is_read_while_the_last_batches_are_worked_on(gappy, monkeypatch):
    read, original = [], type(gappy).read_into
    monkeypatch.setattr(
        type(gappy),
        "read_into",
        lambda self, start, *rest: (read.append(start), original(self, start, *rest))[1],
    )
    reader = CopyingReader(gappy, 16)
    plans = orders(gappy, 2)
    first = reader.epoch(plans[0], 1)
    second = reader.epoch(plans[1], 3, after=True)
    for _ in range(len(plans[0])):
        next(first)
    # The last batch of the first epoch is still in hand.
    wanted = {start for starts in plans[1][:2] for start, *_ in plan_reads(starts, 3).reads}
    for _ in range(500):
        if wanted <= set(read[len(plans[0]) :]) and second._ready.qsize() >= 2:
            break
        time.sleep(0.01)
    assert second._ready.qsize() >= 2 and not second._before.ended
    assert list(first) == []
    assert [starts.tolist() for starts, _ in second] == [starts.tolist() for starts in plans[1]]
    reader.close()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_an_epoch_left_early_lets_the_next_one_go_on(gappy, taken):
    before = threading.active_count()
    reader = CopyingReader(gappy, 16)
    plans = orders(gappy, 3)
    first = reader.epoch(plans[0], 1)
    second = reader.epoch(plans[1], 3, after=True)
    for _ in range(taken):
        next(first)
    first.close()
    third = reader.epoch(plans[2], 1, after=True)
    for epoch, plan, steps in ((second, plans[1], 3), (third, plans[2], 1)):
        for k, (starts, window) in enumerate(epoch):
            np.testing.assert_array_equal(starts, plan[k])
            np.testing.assert_array_equal(window.float().numpy(), truth(gappy, starts, steps))
    assert len(reader.free_host) == len(reader.host) and len(reader.free_device) == 3
    # And one that is waiting for its turn can be left too.
    first = reader.epoch(plans[0], 1)
    reader.epoch(plans[1], 3, after=True)
    next(first)
    reader.close()
    assert threading.active_count() == before


def test_an_epoch_behind_one_that_fails_is_not_stuck(gappy, monkeypatch):
    monkeypatch.setattr(prefetch, "LOOK_SECONDS", 0.05)
    reader = CopyingReader(gappy, 16)
    plans = orders(gappy, 2)
    with monkeypatch.context() as patch:
        patch.setattr(type(gappy), "read_into", lambda *_: (_ for _ in ()).throw(OSError(5, "gone")))
        reader._read = gappy.read_into
        first = reader.epoch(plans[0], 1)
        second = reader.epoch(plans[1], 3, after=True)
        for epoch in (first, second):
            with pytest.raises(Exception, match="reading training data failed"):
                list(epoch)
    reader.close()


class Tier:
    """Stands in for the page-locked tier: what `PinnedEpoch` needs of it."""

    def __init__(self, store, slots=3):
        self.store, self.shape = store, store.state_shape
        self.free = deque(DeviceSlot(store.state_shape, 16, store) for _ in range(slots))
        self.copied = []

    def copy(self, starts, steps, target):
        assert not target.in_use
        plan = plan_reads(starts, steps)
        for start, stop, at in plan.reads:
            values = torch.from_numpy(self.store.read_range(start, stop).copy())
            target.tensor[at : at + stop - start] = values
        if plan.index is not None:
            target.index[: plan.index.size] = torch.from_numpy(plan.index)
        self.copied.append(starts.tolist())
        return plan


@pytest.mark.parametrize("consecutive", [1, 3])
def test_page_locked_copies_keep_their_order_over_epochs(gappy, consecutive):
    tier = Tier(gappy)
    plans = orders(gappy, 4, consecutive=consecutive)
    ahead = PinnedEpoch(tier, plans[0], STEPS[0])
    for e in range(4):
        batches = ahead
        if e < 3:
            ahead = PinnedEpoch(tier, plans[e + 1], STEPS[e + 1], before=batches)
        for k, (starts, window) in enumerate(batches):
            np.testing.assert_array_equal(starts, plans[e][k])
            np.testing.assert_array_equal(window.float().numpy(), truth(gappy, starts, STEPS[e]))
            if e < 3 and k == len(plans[e]) - 1:
                # While the last batch is in hand, the next epoch's first ones are on their way.
                assert tier.copied[-1] == plans[e + 1][1].tolist()
    assert tier.copied == [starts.tolist() for plan in plans for starts in plan]
    assert len(tier.free) == 3
    first = PinnedEpoch(tier, plans[0], 1)
    second = PinnedEpoch(tier, plans[1], 3, before=first)
    next(first)
    first.close()
    assert [starts.tolist() for starts, _ in second] == [starts.tolist() for starts in plans[1]]
    assert len(tier.free) == 3
