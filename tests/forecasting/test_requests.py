"""Requests are put into the network's order and units, or refused with what was found and what would do."""

from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import ModelError, UnitsError
from weathermill.forecasting import requests
from weathermill.forecasting.requests import answer

NAMES = ["geopotential_500", "temperature_500", "temperature_850", "2m_temperature"]
UNITS = ["m2 s-2", "K", "K", "K"]


@pytest.fixture
def model(networks):
    return networks(zero=False)


@pytest.fixture
def states():
    scale = np.array([1e3, 5.0, 5.0, 5.0])[:, None, None]
    mean = np.array([5.5e4, 253.0, 281.0, 288.0])[:, None, None]
    return (mean + scale * np.random.default_rng(0).normal(size=(2, 4, 8, 16))).astype(np.float32)


def test_a_plain_tensor_gives_forecasts_with_coordinates(model, states):
    out = answer(model, states, steps=3)
    expected = np.stack(list(model.rollout_physical(states, 3)), axis=1)
    np.testing.assert_array_equal(out["forecast"], expected)
    assert out["lead_time_hours"] == [6, 12, 18]
    assert out["channel"] == NAMES and out["units"] == UNITS
    assert out["latitude"] == model.latitude.tolist() and len(out["longitude"]) == 16
    assert answer(model, states)["forecast"].shape == (2, 1, 4, 8, 16)
    assert answer(model, states, lead_time_hours=16)["lead_time_hours"] == [6, 12, 18]


def test_order_wrap_and_units_do_not_matter_when_they_are_given(model, states):
    expected = answer(model, states)["forecast"]
    shuffled = states[:, [3, 0, 2, 1], ::-1]
    shuffled = np.roll(shuffled, 8, axis=3)
    shuffled[:, 0] -= 273.15
    out = answer(
        model,
        shuffled,
        channel=[NAMES[i] for i in (3, 0, 2, 1)],
        units=["degC", "m**2 s**-2", "K", "K"],
        latitude=model.latitude[::-1],
        longitude=(np.roll(model.longitude, 8) + 180) % 360 - 180,
    )
    np.testing.assert_allclose(out["forecast"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"channel": [*NAMES[:3], "2m_temprature"]},
            r"missing are 2m_temperature; 2m_temprature is unknown \(did you mean",
        ),
        ({"channel": [*NAMES[:3], NAMES[0]]}, "missing are 2m_temperature; given twice are geopotential_500"),
        ({"channel": [*NAMES, "x"]}, "x is unknown"),
        (
            {"latitude": np.linspace(80, -80, 8)},
            "latitude has 8 points from 80 to -80; the network takes 8 points from 78.75",
        ),
        ({"latitude": [1.0, 2.0]}, "latitude has 2 points from 1 to 2 for an axis of 8"),
        ({"longitude": np.arange(16) * 20.0}, "longitude has 16 points from 0 to 300"),
        ({"longitude": [np.nan] * 16}, "grid does not fit: longitude"),
        ({"units": ["m2 s-2", "K", "K"]}, "3 units were given for 4 channels"),
        ({"steps": -1}, "steps is -1"),
        ({"steps": 2, "lead_time_hours": 12}, "both given"),
        ({"lead_time_hours": float("nan")}, "lead_time_hours is nan"),
        ({"steps": 10**9}, "GiB"),
    ],
)
def test_what_does_not_fit_is_refused(model, states, given, message):
    with pytest.raises(ModelError, match=message):
        answer(model, states, **given)


def test_units_that_cannot_be_converted_are_refused(model, states):
    with pytest.raises(
        UnitsError, match=r"temperature_500 was given in 'm s-1', which cannot be converted to 'K'"
    ):
        answer(model, states, units=["m2 s-2", "m s-1", "K", "K"])


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (np.zeros((1, 3, 8, 16)), "have 3 channels, the network takes 4: geopotential_500"),
        (np.zeros((1, 4, 7, 16)), "latitude has 7 points; the network takes 8 points"),
        (np.zeros((4, 8, 16)), r"shape \(4, 8, 16\), not \(n, channel"),
        (np.zeros((0, 4, 8, 16)), "n of at least 1"),
        ([[["a"]]], "no array of numbers"),
        ([[1.0], [1.0, 2.0]], "no array of numbers"),
    ],
)
def test_other_shapes_are_refused(model, states, message):
    with pytest.raises(ModelError, match=message):
        answer(model, states)


def test_values_in_other_units_are_noticed(model, states):
    celsius = states.copy()
    celsius[1, 2] -= 273.15
    with pytest.raises(ModelError, match=r"temperature_850 has a mean of .* cannot be in K"):
        answer(model, celsius)
    normalised = (states - 1e4) / 1e4
    with pytest.raises(ModelError, match="geopotential_500 has a mean"):
        answer(model, normalised)
    gap = states.copy()
    gap[0, 3, 0, 0] = np.nan
    with pytest.raises(ModelError, match="2m_temperature has 1 values that are missing"):
        answer(model, gap)


def test_forcings_allow_one_step(networks, states):
    model = networks(forcing=True)
    forced = np.concatenate([states, np.zeros_like(states[:, :1])], axis=1)
    assert answer(model, forced)["forecast"].shape == (2, 1, 4, 8, 16)
    with pytest.raises(ModelError, match="needs forcings"):
        answer(model, forced, steps=2)


def test_the_answer_is_bounded(model, states, monkeypatch):
    monkeypatch.setattr(requests, "MOST_BYTES", 4 * 2 * 3 * 4 * 8 * 16)
    assert answer(model, states, steps=3)["forecast"].shape[1] == 3
    with pytest.raises(ModelError, match="Ask for fewer"):
        answer(model, states, steps=4)
