from __future__ import annotations

import numpy as np
import pytest


def sphere(n_lat: int = 19, n_lon: int = 24):
    """A grid with its exact cell areas, mean one: latitude, longitude, weights (lat,)."""
    step = 180.0 / n_lat
    latitude = 90.0 - step * (np.arange(n_lat) + 0.5)
    longitude = 360.0 / n_lon * np.arange(n_lon)
    bounds = np.sin(np.deg2rad(90.0 - step * np.arange(n_lat + 1)))
    weights = bounds[:-1] - bounds[1:]
    return latitude, longitude, weights / weights.mean()


@pytest.fixture
def grid():
    return sphere()


@pytest.fixture
def wave(grid):
    """States of a wave travelling eastwards round every latitude circle, whose scores are known in closed form.

    ``wave(hours, amplitude, zonal_wavenumber, period_hours, mean)`` -> (time, 1, latitude, longitude) float32.
    """
    latitude, longitude, _ = grid

    def make(hours, *, amplitude=3.0, wavenumber=2, period=96.0, mean=0.0, dtype=np.float32):
        phase = wavenumber * np.deg2rad(longitude) - 2 * np.pi * np.asarray(hours, float)[:, None] / period
        rows = mean + amplitude * np.sin(phase)
        return np.broadcast_to(rows[:, None, None, :], (len(rows), 1, latitude.size, longitude.size)).astype(
            dtype
        )

    return make


@pytest.fixture
def scored(grid):
    """Scores of a forecast that decorrelates with lead time, and the fields they came from."""
    from weathermill.verification.scores import ScoreAccumulator

    def make(
        *, seed=0, noise=0.5, n_init=24, channels=("geopotential_500", "2m_temperature"), climatology=True
    ):
        latitude, longitude, weights = grid
        rng = np.random.default_rng(seed)
        truth_rng = np.random.default_rng(12345)
        leads = np.array([6, 12, 24, 72])
        accumulator = ScoreAccumulator(
            channels,
            leads,
            weights,
            latitude=latitude,
            longitude=longitude,
            units=["m2 s-2" if name.startswith("geopotential") else "K" for name in channels],
        )
        shape = (n_init, len(leads), len(channels), latitude.size, longitude.size)
        truth = truth_rng.normal(size=shape).astype(np.float32)
        growth = (noise * np.sqrt(leads / 24.0))[:, None, None, None]
        forecast = (truth + growth * rng.normal(size=shape)).astype(np.float32)
        initial = truth_rng.normal(size=(n_init, *shape[2:])).astype(np.float32)
        inits = np.datetime64("2001-01-01") + 12 * np.arange(n_init) * np.timedelta64(1, "h")
        accumulator.update(
            forecast, truth, np.zeros(shape, np.float32) if climatology else None, inits, persistence=initial
        )
        return accumulator.result(), forecast, truth

    return make
