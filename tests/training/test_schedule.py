from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weathermill.errors import ParameterError
from weathermill.training.schedule import ScheduleConfig, cosine, make_schedule, one_cycle


def test_constant_is_constant():
    rate = make_schedule(ScheduleConfig("constant", warmup_fraction=0.5), 1e-4, 100)
    assert {rate(step) for step in range(100)} == {1e-4}


def test_cosine_in_closed_form():
    rate = make_schedule(ScheduleConfig("cosine", 0.1, initial_fraction=0.0, final_fraction=0.2), 2.0, 100)
    assert rate(0) == 0.0
    assert rate(5) == pytest.approx(1.0)
    assert rate(10) == 2.0
    assert rate(55) == pytest.approx(2.0 * 0.6)
    assert rate(100) == rate(1000) == pytest.approx(0.4)
    assert rate(40) == pytest.approx(2.0 * (0.2 + 0.8 * (1 + math.cos(math.pi * 30 / 90)) / 2))


def test_one_cycle_in_closed_form():
    assert one_cycle(0, peak=1.0, total=40, warmup=10) == pytest.approx(0.04)
    assert one_cycle(5, peak=1.0, total=40, warmup=10) == pytest.approx(0.52)
    assert one_cycle(10, peak=1.0, total=40, warmup=10) == 1.0
    assert one_cycle(25, peak=1.0, total=40, warmup=10) == pytest.approx(0.5)


def test_cosine_agrees_with_torch():
    import torch

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20, eta_min=0.3)
    for step in range(20):
        assert cosine(step, peak=3.0, total=20, warmup=0, final_fraction=0.1) == pytest.approx(
            reference.get_last_lr()[0]
        )
        optimiser.step()
        reference.step()


@example(name="cosine", total=1, warmup=0.75, final=0.0)
@given(
    name=st.sampled_from(["cosine", "one_cycle"]),
    total=st.integers(1, 500),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
)
def test_rates_rise_to_the_peak_and_fall(name, total, warmup, final):
    rate = make_schedule(ScheduleConfig(name, warmup, final_fraction=final), 1.0, total)
    rates = [rate(step) for step in range(total + 1)]
    top = min(round(warmup * total), total - 1)
    assert rates[top] == 1.0
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[top:]))
    assert max(rates) <= 1 + 1e-12
    assert rates[-1] == pytest.approx(final, abs=1e-12)


@pytest.mark.parametrize(
    "bad", [{"name": "linear"}, {"warmup_fraction": 1.0}, {"final_fraction": 2.0}, {"initial_fraction": -1.0}]
)
def test_bad_schedules_are_refused(bad):
    with pytest.raises(ParameterError):
        ScheduleConfig(**bad)
