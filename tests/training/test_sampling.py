from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import ParameterError, SplitError
from weathermill.training.sampling import Sampling, plan_reads

RUNS = ((0, 30), (40, 55), (60, 61))


def test_an_epoch_holds_each_window_once():
    sampling = Sampling(RUNS, 4, drop_last=False)
    order = np.concatenate(sampling.epoch(0, 2))
    assert sorted(order) == [*range(28), *range(40, 53)]
    assert sampling.windows(2) == 41
    assert sampling.batches(2) == 11


def test_order_depends_on_seed_and_epoch_alone():
    def order(**changes):
        epoch = changes.pop("epoch", 0)
        return np.concatenate(Sampling(RUNS, 4, **changes).epoch(epoch, 1)).tolist()

    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(seed=1)
    assert order(shuffle=False)[:5] == [0, 1, 2, 3, 4]


def test_start_batch_continues_the_same_order():
    sampling = Sampling(RUNS, 4)
    whole = sampling.epoch(3, 1)
    rest = sampling.epoch(3, 1, start_batch=4)
    assert len(rest) == len(whole) - 4
    for a, b in zip(whole[4:], rest, strict=True):
        assert a.tolist() == b.tolist()


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    batch=st.integers(1, 7),
    world=st.integers(1, 4),
    consecutive=st.integers(1, 5),
    steps=st.integers(1, 3),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_ranks_share_an_epoch(lengths, batch, world, consecutive, steps, drop_last, epoch):
    runs, at = [], 0
    for length in lengths:
        runs.append((at, at + length))
        at += length + 2
    ranks = [Sampling(tuple(runs), batch, True, 5, drop_last, consecutive, r, world) for r in range(world)]
    possible = {i for a, b in runs for i in range(a, b - steps)}
    if not possible or not ranks[0].batches(steps):
        with pytest.raises(SplitError):
            ranks[0].epoch(epoch, steps)
        return
    parts = [rank.epoch(epoch, steps) for rank in ranks]
    assert len({len(part) for part in parts}) == 1
    sizes = [[len(b) for b in part] for part in parts]
    assert all(s == sizes[0] for s in sizes)
    drawn = np.concatenate([b for part in parts for b in part])
    assert set(drawn) <= possible
    if drop_last:
        assert len(set(drawn)) == len(drawn)
        assert len(possible) - len(drawn) < batch * world
        assert all(len(b) == batch for part in parts for b in part)
    else:
        assert set(drawn) == possible
        assert len(drawn) - len(possible) < world


def test_consecutive_windows_stay_together_but_groups_are_shuffled():
    sampling = Sampling(((0, 401),), 8, consecutive=4)
    order = np.concatenate(sampling.epoch(0, 1))
    assert 0.7 < (np.diff(order) == 1).mean() < 0.8
    assert sorted(np.concatenate(Sampling(((0, 401),), 8, consecutive=4, drop_last=False).epoch(0, 1))) == [
        *range(400)
    ]


def test_impossible_requests_are_refused():
    with pytest.raises(SplitError, match=r"No window of 41 .* longest run has 30"):
        Sampling(RUNS, 4).epoch(0, 40)
    with pytest.raises(SplitError, match="do not fill a batch of 50"):
        Sampling(RUNS, 50).epoch(0, 1)
    with pytest.raises(ParameterError, match="batch_size must be at least 1"):
        Sampling(RUNS, 0)
    with pytest.raises(ParameterError, match="Rank 2 is not among 2"):
        Sampling(RUNS, 4, rank=2, world_size=2)


@settings(deadline=None, max_examples=80)
@given(starts=st.lists(st.integers(0, 40), min_size=1, max_size=12), steps=st.integers(1, 4))
def test_read_plan_delivers_the_windows(starts, steps):
    plan = plan_reads(starts, steps)
    buffer = np.full(len(starts) * (steps + 1), -1)
    for start, stop, at in plan.reads:
        buffer[at : at + stop - start] = np.arange(start, stop)
    assert (buffer[: plan.states] >= 0).all()
    index = np.arange(plan.states) if plan.index is None else plan.index
    windows = buffer[index].reshape(len(starts), steps + 1)
    assert (windows == np.array(starts)[:, None] + np.arange(steps + 1)).all()


def test_overlapping_windows_are_read_once():
    plan = plan_reads([4, 5, 6, 7, 20], 1)
    assert plan.reads == ((4, 9, 0), (20, 22, 5))
    assert plan.states == 7
    assert plan_reads([4, 30, 50], 1).reads == ((4, 6, 0), (30, 32, 2), (50, 52, 4))
    assert plan_reads([4, 30, 50], 1).index is None
