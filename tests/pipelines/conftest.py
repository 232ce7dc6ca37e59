"""A store of travelling waves, whose scores are known in closed form, and networks that forecast persistence."""

from __future__ import annotations

import numpy as np
import pytest

from weathermill.fields.solar import toa_insolation
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.store import TensorStore, TensorWriter

STEP, PERIOD_HOURS, HEIGHT, WIDTH = 21600, 96.0, 9, 16
CHANNELS = [
    Channel("geopotential_500", "geopotential", 500.0, "prognostic", "m2 s-2"),
    Channel("temperature_850", "temperature", 850.0, "prognostic", "K"),
]
MEAN, AMPLITUDE = np.array([5.5e4, 280.0]), np.array([900.0, 6.0])


def wave(times: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(time, 2, latitude, longitude): waves of wavenumber 2 and 3 with one period, in physical units."""
    phase = np.deg2rad(longitude)[None, None, :] * np.array([2, 3])[None, :, None]
    phase = phase - 2 * np.pi * times[:, None, None] / 3600 / PERIOD_HOURS
    rows = MEAN[:, None] + AMPLITUDE[:, None] * np.sin(phase)
    return np.repeat(rows[:, :, None, :], HEIGHT, axis=2)


def write_store(path, *, n_times=112, start="2001-01-20", forcing=False, static=False, dtype="float32"):
    """64 states of training (four periods), 16 of validation and the rest for the test.

    The forcing is ones of a name without formula, "ones" under a name with one, or what that formula gives: "sun".
    """
    first = np.datetime64(start, "s").astype(np.int64)
    times = first + STEP * np.arange(n_times)
    latitude, longitude = np.linspace(80, -80, HEIGHT), np.arange(WIDTH) * 360.0 / WIDTH
    channels = list(CHANNELS)
    mean, std = MEAN, AMPLITUDE / np.sqrt(2)
    if forcing:
        variable = "toa_incident_solar_radiation" if forcing in ("sun", "ones") else "insolation"
        channels.append(Channel(variable, variable, None, "forcing", "J m-2"))
        mean, std = np.append(mean, 0.0), np.append(std, 1.4e6 if forcing == "sun" else 1.0)
    if static:
        channels.append(Channel("land_sea_mask", "land_sea_mask", None, "static", "1"))
        mean, std = np.append(mean, 0.0), np.append(std, 1.0)
    table = ChannelTable(channels)
    values = (wave(times - first, longitude) - MEAN[:, None, None]) / (AMPLITUDE / np.sqrt(2))[:, None, None]
    if forcing:
        given = np.ones_like(values[:, :1])
        if forcing == "sun":
            dates = times.astype("datetime64[s]").astype("datetime64[ns]")
            given = toa_insolation(dates, latitude, longitude)[:, None] / 1.4e6
        values = np.concatenate([values, given], axis=1)
    tendency = np.append(2 * std[:2] * np.sin(np.pi * 6 / PERIOD_HOURS), np.ones(len(std) - 2))
    weights = np.cos(np.deg2rad(latitude))
    writer = TensorWriter(
        path,
        channels=table,
        latitude=latitude,
        longitude=longitude,
        times=times,
        calendar="standard",
        time_step=STEP,
        area_weights=weights / weights.mean(),
        mean=mean,
        std=std,
        tendency_std=tendency,
        splits={"train": [(0, 64)], "validation": [(64, 80)], "test": [(80, n_times)]},
        static=np.ones((1, HEIGHT, WIDTH), np.float32) if static else None,
        dtype=dtype,
        steps_per_shard=None,
        provenance={"source": "made by a test", "simulated": True},
        fingerprint="waves",
    )
    for a, b in writer.pending():
        writer.write(a, values[a:b].astype(np.float32))
    writer.finish()
    return TensorStore(path)


def persistence_network(store):
    """A network whose last layer is zero: its tendency is zero, so that it forecasts persistence."""
    config = ModelConfig(base_channels=4, depth=1, norm="none", zero_head=True, target="tendency")
    return Forecaster.from_store(store, config).eval()


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "tensors")


@pytest.fixture
def make_store():
    return write_store


@pytest.fixture
def make_network():
    return persistence_network


@pytest.fixture
def network(store):
    return persistence_network(store)
