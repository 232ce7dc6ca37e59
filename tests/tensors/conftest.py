from __future__ import annotations

import numpy as np
import pytest

from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.store import TensorWriter

STEP = 21600


def description(n_times=23, dtype="float16", steps_per_shard=5, fingerprint="f", gaps=(), **changes):
    channels = ChannelTable(
        [
            Channel("temperature_500", "temperature", 500.0, "prognostic", "K"),
            Channel("temperature_850", "temperature", 850.0, "prognostic", "K", "temperature_850" in gaps),
            Channel("insolation", "insolation", None, "forcing", "W m-2", "insolation" in gaps),
            Channel("orography", "orography", None, "static", "m"),
        ]
    )
    height, width = 5, 8
    given = {
        "channels": channels,
        "latitude": np.linspace(80, -80, height),
        "longitude": np.arange(width) * 45.0,
        "times": np.arange(n_times) * STEP,
        "calendar": "standard",
        "time_step": STEP,
        "area_weights": np.ones(height),
        "mean": np.array([250.0, 280.0, 300.0]),
        "std": np.array([10.0, 12.0, 100.0]),
        "tendency_std": np.array([1.0, 2.0, 3.0]),
        "splits": {"train": [(0, 12)], "validation": [(12, 17)], "test": [(17, n_times)]},
        "static": np.random.default_rng(1).standard_normal((1, height, width)).astype(np.float32),
        "dtype": dtype,
        "steps_per_shard": steps_per_shard,
        "provenance": {"source": "made by a test"},
        "fingerprint": fingerprint,
    }
    return {**given, **changes}


def fields(n_times=23, seed=0):
    return np.random.default_rng(seed).standard_normal((n_times, 3, 5, 8)).astype(np.float32)


def write_store(path, values=None, **changes):
    given = description(**changes)
    values = fields(len(given["times"])) if values is None else values
    writer = TensorWriter(path, **given)
    for start, stop in writer.pending():
        writer.write(start, values[start:stop])
    writer.finish()
    return values


@pytest.fixture
def make():
    """The helpers of this folder, as attributes: import-mode importlib allows no cross imports."""

    class Make:
        pass

    Make.description = staticmethod(description)
    Make.fields = staticmethod(fields)
    Make.store = staticmethod(write_store)
    return Make
