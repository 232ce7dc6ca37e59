"""A small source of states, and networks for its grid or another that forecast persistence or something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable

PROGNOSTIC = [
    Channel("geopotential_500", "geopotential", 500.0, "prognostic", "m2 s-2"),
    Channel("temperature_500", "temperature", 500.0, "prognostic", "K"),
    Channel("temperature_850", "temperature", 850.0, "prognostic", "K"),
    Channel("2m_temperature", "2m_temperature", None, "prognostic", "K"),
]
MEAN, STD = np.array([5.5e4, 253.0, 281.0, 288.0]), np.array([3e3, 11.0, 15.0, 21.0])


def make_source(n_times=6, height=8, width=16, calendar="standard"):
    """Random fields in the naming of the Climate Data Store, latitudes ascending, levels in Pa."""
    rng = np.random.default_rng(3)
    latitude = np.linspace(-90 + 90 / height, 90 - 90 / height, height)
    longitude = np.arange(width) * 360.0 / width
    times = xr.date_range(
        "2001-01-01", periods=n_times, freq="6h", calendar=calendar, use_cftime=calendar != "standard"
    )
    levels, flat = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")
    shape = (n_times, 2, height, width)

    def smooth(*size):
        return rng.normal(size=size).astype(np.float32)

    return xr.Dataset(
        {
            "z": (
                levels,
                5.5e4 + 2e3 * smooth(*shape),
                {"units": "m**2 s**-2", "standard_name": "geopotential"},
            ),
            "t": (levels, 270 + 10 * smooth(*shape), {"units": "K", "standard_name": "air_temperature"}),
            "t2m": (
                flat,
                15 + 10 * smooth(n_times, height, width),
                {"units": "degC", "long_name": "2 metre temperature"},
            ),
        },
        coords={
            "time": times,
            "level": ("level", [50000.0, 85000.0], {"units": "Pa", "standard_name": "air_pressure"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
        attrs={"title": "made by a test"},
    )


def make_network(height=8, width=16, *, zero=True, forcing=False, static=False, poles=False):
    channels = list(PROGNOSTIC)
    mean, std = MEAN, STD
    forced = forcing if isinstance(forcing, str) else "insolation"
    for wanted, channel in (
        (forcing, Channel(forced, forced, None, "forcing", "J m-2")),
        (static, Channel("land_sea_mask", "land_sea_mask", None, "static", "1")),
    ):
        if wanted:
            channels.append(channel)
            mean, std = np.append(mean, 0.0), np.append(std, 1e6 if "solar" in channel.name else 1.0)
    edge = 90.0 if poles else 90.0 - 90.0 / height
    torch.manual_seed(0)
    network = Forecaster(
        ModelConfig(base_channels=4, depth=1, norm="none", zero_head=zero),
        ChannelTable(channels),
        np.linspace(edge, -edge, height),
        np.arange(width) * 360.0 / width,
        mean,
        std,
        0.1 * std,
        static=np.ones((1, height, width), np.float32) if static else None,
    )
    return network.eval()


@pytest.fixture
def source():
    return make_source()


@pytest.fixture
def sources():
    return make_source


@pytest.fixture
def networks():
    return make_network
