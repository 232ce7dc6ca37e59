from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from weathermill.training.feed import Batch
from weathermill.training.meter import StarvationMeter

CPU = torch.device("cpu")


def feed(tier="mapped"):
    return SimpleNamespace(take_copy_seconds=lambda: 0.0, tier=tier)


def batches(n, wait):
    for k in range(n):
        time.sleep(wait)
        yield Batch(torch.zeros(1), np.array([k, k + 1]))


def test_shares_follow_the_clock():
    parameter = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.SGD([parameter], lr=0.1)
    meter = StarvationMeter(feed(), optimiser, CPU)
    for _ in meter.batches(batches(8, 0.02)):
        time.sleep(0.03)
        optimiser.step()
        time.sleep(0.01)
        meter.stepped()
    summary = meter.summary()
    assert summary["feed/waiting_share"] == pytest.approx(1 / 3, abs=0.1)
    assert summary["feed/computing_share"] == pytest.approx(1 / 2, abs=0.1)
    assert summary["feed/optimising_share"] == pytest.approx(1 / 6, abs=0.1)
    assert sum(summary[f"feed/{k}_share"] for k in ("waiting", "computing", "optimising")) == pytest.approx(1)
    assert meter.samples == 16
    assert "reading is the limit" in meter.advice(summary)


def test_what_an_epochs_first_batch_takes_is_told_apart():
    def slow_start():
        time.sleep(0.1)
        yield from batches(5, 0.01)

    meter = StarvationMeter(feed(), None, CPU)
    for _ in meter.batches(slow_start()):
        time.sleep(0.01)
    summary = meter.summary()
    assert meter.starting == pytest.approx(0.11, abs=0.03)
    assert 0.4 < summary["feed/starting_share"] < summary["feed/waiting_share"]


def test_what_follows_a_step_is_neither_waiting_nor_computing():
    meter = StarvationMeter(feed(), None, CPU)
    for _ in meter.batches(batches(5, 0.02)):
        time.sleep(0.02)
        meter.stepped()
        time.sleep(0.05)
        meter.pause()
    assert meter.waiting + meter.busy < 5 * 0.06
    assert meter.summary()["feed/waiting_share"] == pytest.approx(0.5, abs=0.1)
    meter.reset()
    assert meter.summary() == {}
    assert meter.advice({}) == "No step was measured."


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({}, "the feed keeps up"),
        ({"optimising": 0.5}, "the optimiser takes much"),
        ({"waiting": 0.4, "copying": 0.95}, "the copy to the device is the limit"),
        ({"waiting": 0.4}, "reading is the limit"),
    ],
)
def test_advice_names_the_limit(shares, words):
    meter = StarvationMeter(feed(), None, CPU)
    names = ("waiting", "computing", "optimising", "copying", "host_waiting")
    summary = {f"feed/{name}_share": shares.get(name, 0.0) for name in names}
    assert words in meter.advice(summary)


def test_leaving_early_closes_the_batches():
    closed = []

    class Source:
        def __iter__(self):
            return self

        def __next__(self):
            return Batch(torch.zeros(1), np.array([0]))

        def close(self):
            closed.append(True)

    meter = StarvationMeter(feed(), None, CPU)
    iterator = meter.batches(Source())
    next(iterator)
    iterator.close()
    assert closed == [True]
