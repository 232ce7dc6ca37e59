"""What time steps come from, where lead times and choices stand between them and the store."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.fields.choices import SourceOptions
from weathermill.fields.opening import open_sources
from weathermill.fields.origins import step_origins

START = np.datetime64("2020-01-01", "ns")


@pytest.fixture
def store(tmp_path):
    """A store of four forecasts of four steps, one chunk each; and a writer of another value into one forecast."""
    path = tmp_path / "x.zarr"
    source = xr.Dataset(
        {"t2m": (("init_time", "step", "latitude", "longitude"), np.full((4, 4, 4, 8), 280.0, np.float32))},
        coords={
            "init_time": START + np.arange(4) * np.timedelta64(24, "h"),
            "step": ("step", [6, 12, 18, 24], {"units": "hours"}),
            "latitude": ("latitude", [60.0, 20.0, -20.0, -60.0], {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(8) * 45.0, {"units": "degrees_east"}),
        },
    )
    source.to_zarr(path, encoding={"t2m": {"chunks": (1, 4, 4, 8)}})

    def rewrite(position: int) -> None:
        part = source[["t2m"]].isel(init_time=[position]).drop_vars(["step", "latitude", "longitude"])
        part = part + np.random.default_rng(position).standard_normal(part.t2m.shape).astype(np.float32)
        part.drop_vars("init_time").to_zarr(path, region={"init_time": slice(position, position + 1)})

    return path, rewrite


def origins(path, times: np.ndarray, **select) -> tuple[str, ...]:
    with open_sources(path) as opened:
        return step_origins(opened, times, SourceOptions(select=select))[0]


def test_a_changed_forecast_changes_the_step_at_its_valid_time_alone(store):
    path, rewrite = store
    times = START + np.arange(4) * np.timedelta64(24, "h") + np.timedelta64(12, "h")
    before = origins(path, times, step="12h")
    rewrite(2)
    changed = [a != b for a, b in zip(before, origins(path, times, step="12h"), strict=True)]
    assert changed == [False, False, True, False]


def test_all_steps_of_one_forecast_change_with_it(store):
    path, rewrite = store
    times = START + np.timedelta64(48, "h") + np.array([6, 12, 18, 24]) * np.timedelta64(1, "h")
    before = origins(path, times, init_time="2020-01-03")
    rewrite(2)
    changed = [a != b for a, b in zip(before, origins(path, times, init_time="2020-01-03"), strict=True)]
    assert changed == [True] * 4
