from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import VerificationError
from weathermill.verification.stability import StabilityMonitor, stability_plot
from weathermill.verification.style import figure_png


def follow(grid, fields):
    _, _, weights = grid
    monitor = StabilityMonitor(
        ["geopotential_500", "x"],
        weights,
        minimum=np.array([-2.0, 0.0]),
        maximum=np.array([2.0, 1.0]),
        std=np.array([1.0, 0.1]),
        units=["m2 s-2", "1"],
    )
    for step, states in enumerate(fields):
        monitor.update(6.0 * (step + 1), states)
    return monitor.result()


def test_a_rollout_inside_its_bounds_is_stable(grid):
    latitude, _, weights = grid
    states = np.zeros((10, 2, 2, 19, 24), np.float32)
    states[:, :, 0] = np.sin(np.deg2rad(latitude))[:, None] * 2.9
    states[:, 1, 1] = 1.05
    result = follow(grid, states)
    assert result.attrs["stable"] == 1
    assert (result["stable_until"] == 60).all()
    assert float(result["outside"].max()) == 0
    share = np.average(np.sin(np.deg2rad(latitude)) ** 2, weights=weights)
    np.testing.assert_allclose(
        result["spatial_std"].sel(channel="geopotential_500"), 2.9 * np.sqrt(share), rtol=1e-6
    )
    np.testing.assert_allclose(result["mean"].sel(rollout=1, channel="x"), 1.05, rtol=1e-6)
    assert figure_png(stability_plot(result)).startswith(b"\x89PNG")


@pytest.mark.parametrize("bad", [3.5, -3.5, np.nan, np.inf])
def test_where_it_left_them_is_told(grid, bad):
    _, _, weights = grid
    states = np.zeros((10, 2, 2, 19, 24), np.float32)
    states[4:, 1, 0, 2, 3] = bad
    result = follow(grid, states)
    assert result.attrs["stable"] == 0
    assert result["stable_until"].sel(channel="geopotential_500").to_numpy().tolist() == [60.0, 24.0]
    outside = result["outside"].sel(rollout=1, channel="geopotential_500")
    np.testing.assert_allclose(outside[4:], weights[2] / weights.sum() / 24)
    assert (outside[:4] == 0).all()
    assert (result["stable_until"].sel(channel="x") == 60).all()


def test_cells_missing_from_the_start_are_left_out_and_those_lost_later_count(grid):
    latitude, _, weights = grid
    states = np.zeros((6, 1, 2, 19, 24), np.float32)
    states[:, :, 0] = np.sin(np.deg2rad(latitude))[:, None]
    states[:, 0, 0, :9] = np.nan
    result = follow(grid, states)
    assert result.attrs["stable"] == 1
    here = result.sel(rollout=0, channel="geopotential_500")
    expected = np.average(np.sin(np.deg2rad(latitude[9:])), weights=weights[9:])
    np.testing.assert_allclose(here["mean"], expected, rtol=1e-6)
    np.testing.assert_allclose(here["minimum"], np.sin(np.deg2rad(latitude[-1])), rtol=1e-6)
    states[3:, 0, 0, 12, 5] = np.nan
    lost = follow(grid, states).sel(rollout=0, channel="geopotential_500")
    np.testing.assert_allclose(lost["outside"][3:], weights[12] / weights[9:].sum() / 24)
    assert float(lost["stable_until"]) == 18.0


def test_faults(grid):
    with pytest.raises(VerificationError, match="one value for each of 1"):
        StabilityMonitor(["x"], np.ones(3), minimum=np.zeros(2), maximum=np.ones(1), std=np.ones(1))
    monitor = StabilityMonitor(["x"], np.ones(3), minimum=np.zeros(1), maximum=np.ones(1), std=np.ones(1))
    with pytest.raises(VerificationError, match="no rollout"):
        monitor.result()
    with pytest.raises(VerificationError, match="have shape"):
        monitor.update(6, np.zeros((1, 2, 3, 4)))
    monitor.update(6, np.zeros((1, 1, 3, 4)))
    with pytest.raises(VerificationError, match="6 h was given before"):
        monitor.update(6, np.zeros((1, 1, 3, 4)))
    with pytest.raises(VerificationError, match="those given first"):
        monitor.update(12, np.zeros((2, 1, 3, 4)))
