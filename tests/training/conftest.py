from __future__ import annotations

import numpy as np
import pytest

from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.store import TensorStore, TensorWriter

STEP = 21600


def waves(n_times, height, width, channels=2):
    """Travelling waves with some noise: something that a small network can learn."""
    rng = np.random.default_rng(0)
    longitude = np.arange(width) * 2 * np.pi / width
    latitude = np.linspace(np.pi / 2, -np.pi / 2, height)
    time = np.arange(n_times)[:, None, None]
    fields = [
        np.sin((c + 1) * longitude - 0.3 * time) * np.cos(latitude)[:, None]
        + 0.05 * rng.standard_normal((n_times, height, width))
        for c in range(channels)
    ]
    return np.stack(fields, axis=1).astype(np.float32)


def write_store(
    path, n_times=40, height=8, width=16, dtype="float32", splits=None, forcing=False, steps_per_shard=7
):
    channels = [
        Channel(f"geopotential_{p}", "geopotential", float(p), "prognostic", "m2 s-2") for p in (500, 850)
    ]
    if forcing:
        channels.append(Channel("insolation", "insolation", None, "forcing", "W m-2"))
    channels.append(Channel("orography", "orography", None, "static", "m"))
    table = ChannelTable(channels)
    values = waves(n_times, height, width, table.n_dynamic)
    tendency = np.diff(values, axis=0).std(axis=(0, 2, 3)).astype(np.float64)
    latitude = np.linspace(90, -90, height)
    writer = TensorWriter(
        path,
        channels=table,
        latitude=latitude,
        longitude=np.arange(width) * 360.0 / width,
        times=np.arange(n_times) * STEP,
        calendar="standard",
        time_step=STEP,
        area_weights=np.cos(np.deg2rad(latitude)) + 0.1,
        mean=np.zeros(table.n_dynamic),
        std=np.ones(table.n_dynamic),
        tendency_std=tendency,
        splits=splits or {"train": [(0, n_times - 12)], "validation": [(n_times - 12, n_times)]},
        static=np.ones((1, height, width), np.float32),
        dtype=dtype,
        steps_per_shard=steps_per_shard,
        fingerprint="waves",
    )
    for start, stop in writer.pending():
        writer.write(start, values[start:stop])
    writer.finish()
    return TensorStore(path)


@pytest.fixture
def make_store():
    return write_store


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store")
