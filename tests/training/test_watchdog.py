from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.errors import NonFiniteError
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.step import StepResult
from weathermill.training.watchdog import MOST_SKIPS, Recorder, SpikeGuard, StepRecord, Watchdog

CHANNELS = ChannelTable(
    [Channel(f"temperature_{p}", "temperature", float(p)) for p in (300, 500, 850)]
    + [Channel("insolation", "insolation", None, "forcing")]
)


def watchdog(**changes):
    return Watchdog(CHANNELS, np.arange(100) * 21600, **changes)


def record(step=7, loss=1.0, norm=2.0, per_channel=(1.0, 1.0, 1.0), starts=(4, 9)):
    return StepRecord(step, np.array(starts), loss, norm, np.array(per_channel))


def test_healthy_steps_pass():
    watchdog().check([record(k) for k in range(5)])


def test_loss_that_is_not_finite_names_step_times_and_channel():
    records = [record(6), record(7, float("nan"), float("nan"), (1.0, float("nan"), 0.5)), record(8)]
    with pytest.raises(NonFiniteError) as caught:
        watchdog().check(records)
    message = str(caught.value)
    assert "step 7" in message
    assert "temperature_500" in message
    assert "temperature_850" not in message
    assert "1970-01-02T00:00, 1970-01-03T06:00" in message


def test_gradient_that_is_not_finite_names_the_largest_loss():
    with pytest.raises(
        NonFiniteError, match=r"gradient of step 7 is inf; the largest loss, 9, is in temperature_850"
    ):
        watchdog().check([record(norm=float("inf"), per_channel=(1.0, 2.0, 9.0))])


def test_loss_scale_may_skip_steps_but_not_for_ever():
    dog = watchdog(scaled=True)
    dog.check([record(k, norm=float("inf")) for k in range(MOST_SKIPS)])
    dog.check([record()])
    dog.check([record(k, norm=float("inf")) for k in range(MOST_SKIPS)])
    with pytest.raises(NonFiniteError, match="gradient"):
        dog.check([record(norm=float("nan"))])


def test_recorder_keeps_what_results_were():
    recorder = Recorder(3, 2, torch.device("cpu"))
    loss, norm, channels = torch.tensor(0.0), torch.tensor(0.0), torch.zeros(2, 2)
    for k in range(1, 4):
        loss.fill_(k)
        norm.fill_(10 * k)
        channels.copy_(torch.tensor([[k, 2.0], [k, 4.0]]))
        assert not recorder.full
        recorder.add(k, np.array([k]), StepResult(loss, norm, channels))
    assert recorder.full
    records = recorder.take()
    assert [(r.step, r.loss, r.grad_norm, r.per_channel.tolist()) for r in records] == [
        (k, k, 10 * k, [k, 3.0]) for k in range(1, 4)
    ]
    assert len(recorder) == 0


def test_spikes_are_found_against_the_median_of_recent_steps(caplog):
    guard = SpikeGuard(3.0, memory=30, patience=5)
    assert guard.update() == float("inf")
    assert guard.observe([record(k, norm=1.0 + 0.01 * k) for k in range(4)]) == 0
    assert guard.update() == float("inf")
    guard.observe([record(4, norm=1.04)])
    assert guard.update() == pytest.approx(3 * 1.02)
    assert guard.observe([record(5, norm=50.0), record(6, norm=float("inf")), record(7, norm=1.0)]) == 1
    assert "Step 5 was skipped: its gradient norm is 50, and the limit 3.06" in caplog.text
    again = SpikeGuard(3.0, memory=30, patience=5)
    again.load_state_dict(guard.state_dict())
    assert again.update() == guard.update() < 4
    assert again.skipped == 1


def test_without_a_factor_nothing_is_skipped():
    guard = SpikeGuard(None)
    assert guard.observe([record(norm=1e9)]) == 0
    assert guard.update() == float("inf")
